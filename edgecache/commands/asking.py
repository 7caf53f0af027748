"""One request to a running edge, for commands. It starts fast: nothing of the daemon is imported.

Keeps the rule that whatever goes wrong has one of three ends: it was asked wrongly (`Misused`), nobody is there
(`Unreachable`), or the answer is an error or broke off (`Refused`). It does not know what is asked for.
"""

import http.client
import json
import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import quote

from edgecache.commands.addresses import Address, address
from edgecache.commands.terminal import Misused, Refused, Unreachable

CONNECT_S = 5.0
READ_BYTES = 1 << 16
#: How much of an answer that is no error of an edge's is worth showing.
_QUOTED_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a body, and when they came, counted from the request."""

    after_ms: float
    content: bytes


@dataclass(frozen=True, slots=True)
class Said:
    """One answer, whole, and how it came."""

    status: int
    headers: Mapping[str, str]
    pieces: tuple[Piece, ...]
    total_ms: float

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(piece.content for piece in self.pieces)

    @property
    def media_type(self) -> str:
        """Without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def problem(self) -> str:
        """What went wrong, in the edge's own words if they are an edge's."""
        try:
            told = json.loads(self.body)["error"]
            words = f"{self.status} {told['code']}: {told['message']}"
        except (ValueError, KeyError, TypeError, RecursionError):
            quoted = self.body[: 4 * _QUOTED_CHARACTERS].decode("utf-8", "replace")[:_QUOTED_CHARACTERS]
            words = (
                f"{self.status} {http.client.responses.get(self.status, '')}: {quoted.strip() or 'no more was said'}"
            )
        wait = self.headers.get("retry-after", "")
        words += f" (try again in {wait} s)" if wait.isdigit() else ""
        return "".join(each if each.isprintable() else " " for each in words)


@dataclass(frozen=True, slots=True)
class Target:
    """Where an edge listens, as it was typed, and who asks. keeps: what it answers; else a 200 is only heard."""

    url: str
    api_key: str | None = None
    timeout_s: float = 60.0
    admin_token: str | None = None
    keeps: bool = True

    @classmethod
    def admin(
        cls, url: str, token_file: Path | None = None, timeout_s: float = 60.0, api_key: str | None = None
    ) -> Self:
        """An admin listener. token_file: holds what it asks for; else EDGECACHE_ADMIN_TOKEN does, if it asks.

        api_key: of the client whose recordings are meant.
        """
        return cls(url, api_key, timeout_s, _admin_token(token_file))

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | BinaryIO | None = None,
        headers: Mapping[str, str] | None = None,
        hear: Callable[[bytes], object] | None = None,
    ) -> Said:
        """One request. hear: is given the body of a 200 as it comes in."""
        sent = {**(headers or {}), **self.credentials()}
        at = address(self.url)
        connection = _connected(at)
        try:
            connection.sock.settimeout(self.timeout_s)
            began_s = time.perf_counter()
            connection.request(method, at.prefix + path, body, sent)
            answer = connection.getresponse()
            told = answer.status == 200
            pieces = _read(answer, began_s, hear if told else None, keep=self.keeps or not told)
            total_ms = (time.perf_counter() - began_s) * 1000
        except TimeoutError as error:
            raise Refused(f"{at} took the request and then said nothing for {self.timeout_s:g} s") from error
        except (ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
            raise Refused(_broken(at, error)) from error
        finally:
            connection.close()
        fields = {name.lower(): text for name, text in answer.getheaders()}
        return Said(answer.status, fields, pieces, total_ms)

    def ask_admin(self, method: str, path: str, body: bytes | BinaryIO | None = None) -> tuple[int, dict[str, Any]]:
        """What the admin listener tells, as JSON. Refused: it tells no JSON, so it is none."""
        said = self.ask(method, path, body)
        try:
            told = json.loads(said.body)
        except (ValueError, RecursionError):
            told = None
        if not isinstance(told, dict):
            raise Refused(f"what answers at {address(self.url)} is no admin listener: {said.problem}; see --admin")
        if "error" in told:
            elsewhere = told["error"].get("code") in ("not_found", "method_not_allowed")
            hint = "; is that the admin listener? see --admin" if elsewhere else ""
            hint = "; see --admin-token-file" if said.status == 401 else hint
            raise Refused(said.problem + hint)
        return said.status, told

    def credentials(self) -> dict[str, str]:
        """Headers that say who asks. Misused: no header can."""
        for what, secret in (("API key", self.api_key), ("admin token", self.admin_token)):
            if secret and not (secret.isascii() and secret.isprintable()):
                raise Misused(f"the {what} holds a character that no HTTP header can carry")
        told = {"X-API-Key": self.api_key} if self.api_key else {}
        return told | ({"Authorization": f"Bearer {self.admin_token}"} if self.admin_token else {})


def explanation(target: Target, body: bytes, namespace: str | None) -> dict[str, Any]:
    """What would become of this request."""
    path = "/explain" + (f"?namespace={quote(namespace, safe='')}" if namespace else "")
    return target.ask_admin("POST", path, body)[1]


def key_of(target: Target, body: bytes, namespace: str | None) -> str:
    """Under which key the answer to this request is recorded. Misused: each of its sentences has its own."""
    key = explanation(target, body, namespace)["key"]
    if key is None:
        raise Misused("this text is spoken sentence by sentence: `edgecache explain --json` has the key of each")
    return str(key)


def explained(told: Mapping[str, Any]) -> str:
    """What `/explain` tells, for people; the canonical bytes are for programs."""
    lines = []
    for name, value in told.items():
        if name == "sentences":
            lines.append(f"{name:<16} {_sentences(value)}")
        elif name != "canonical_hex" and (name, value) != ("key", None):
            spelled = (
                value if isinstance(value, str) else "-" if value is None else json.dumps(value, ensure_ascii=False)
            )
            lines.append(f"{name:<16} {spelled}")
    return "\n".join(lines)


def _sentences(told: Mapping[str, Any]) -> str:
    verdicts = ", ".join(f"{many} {verdict}" for verdict, many in told["verdicts"].items())
    most = "" if told["looked_at"] == told["count"] else f" of the first {told['looked_at']}"
    return f"{told['count']}: {verdicts}{most}; --json has each"


def _admin_token(token_file: Path | None) -> str | None:
    if token_file is None:
        return os.environ.get("EDGECACHE_ADMIN_TOKEN", "").strip() or None
    try:
        return token_file.read_text("utf-8").strip()
    except OSError as error:
        raise Misused(f"--admin-token-file: {token_file} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Misused(f"--admin-token-file: {token_file} holds no text") from error


def _connected(at: Address) -> http.client.HTTPConnection:
    kind = http.client.HTTPSConnection if at.secure else http.client.HTTPConnection
    connection = kind(at.host, at.port, timeout=CONNECT_S)
    try:
        connection.connect()
    except UnicodeError as error:
        raise Misused(f"{at.host!r} can't be the name of a host") from error
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(f"{at} has a certificate that is not trusted: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise Unreachable(f"{at} does not speak TLS; did you mean http://?") from error
    except TimeoutError as error:
        raise Unreachable(f"no edge answers at {at}: nothing came back in {CONNECT_S:g} s") from error
    except ConnectionRefusedError as error:
        start = "start one with `edgecache demo` or `edgecache serve`"
        raise Unreachable(f"no edge answers at {at}: nobody listens there; {start}") from error
    except OSError as error:
        raise Unreachable(f"no edge answers at {at}: {error.strerror or error}") from error
    return connection


def _read(
    answer: http.client.HTTPResponse, began_s: float, hear: Callable[[bytes], object] | None, *, keep: bool
) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    received = 0
    while content := answer.read1(READ_BYTES):
        received += len(content)
        if keep:
            pieces.append(Piece((time.perf_counter() - began_s) * 1000, content))
        if hear is not None:
            hear(content)
    # read1 takes the end of the connection for the end of a body that was to be longer.
    length = answer.getheader("Content-Length", "")
    if length.isdigit() and answer.status == 200 and received < int(length):
        raise http.client.IncompleteRead(b"", int(length) - received)
    return tuple(pieces)


def _broken(at: Address, error: Exception) -> str:
    match error:
        case http.client.RemoteDisconnected():
            return f"{at} hung up without an answer"
        case http.client.IncompleteRead() | ConnectionError():
            return f"{at} broke off: what came is not whole"
        case http.client.BadStatusLine():
            return f"{at} does not answer with HTTP" + ("" if at.secure else "; if it speaks TLS, say https://")
        case _:
            return f"{at} does not answer as HTTP says it must ({type(error).__name__})"
