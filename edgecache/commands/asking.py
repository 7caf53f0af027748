"""Commands that ask a running edge: say, explain, healthcheck. They start fast: nothing of the daemon is imported.

Data goes to stdout, talk to stderr. `Unreachable` becomes exit code 3, `Refused` 1.
"""

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

SUFFIXES = {"wav": "wav", "x-wav": "wav", "mpeg": "mp3", "ogg": "ogg", "opus": "ogg", "flac": "flac", "pcm": "pcm"}


class Unreachable(Exception):
    """No edge answers there."""


class Refused(Exception):
    """The edge answered with an error, or broke off."""


@dataclass(frozen=True, slots=True)
class Said:
    """One answer, whole, and how it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    first_byte_ms: float
    total_ms: float

    @property
    def problem(self) -> str:
        """What the edge says went wrong."""
        try:
            told = json.loads(self.body)["error"]
            return f"{told['code']}: {told['message']}"
        except (ValueError, KeyError, TypeError):
            return self.body[:200].decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Target:
    """Where an edge listens."""

    url: str
    api_key: str | None = None
    timeout_s: float = 60.0

    def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Said:
        """One request. Unreachable: nobody is there. Refused: the answer broke off."""
        parts = urlsplit(self.url if "//" in self.url else f"http://{self.url}")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=self.timeout_s)
        sent = {**(headers or {}), **({"X-API-Key": self.api_key} if self.api_key else {})}
        try:
            connection.connect()
        except OSError as error:
            raise Unreachable(f"no edge answers at {self.url}: {error}. Start one with `edgecache serve`.") from error
        try:
            began_s = time.perf_counter()
            connection.request(method, parts.path.rstrip("/") + path, body, sent)
            answer = connection.getresponse()
            chunks = [answer.read1(1 << 16)]
            first_s = time.perf_counter()
            while chunks[-1]:
                chunks.append(answer.read1(1 << 16))
            total_s = time.perf_counter()
        except (OSError, http.client.HTTPException) as error:
            raise Refused(f"the edge broke off: {error or type(error).__name__}") from error
        finally:
            connection.close()
        told = {name.lower(): text for name, text in answer.getheaders()}
        whole = b"".join(chunks)
        return Said(answer.status, told, whole, (first_s - began_s) * 1000, (total_s - began_s) * 1000)


@dataclass(frozen=True, slots=True)
class Report:
    """What `say` tells of one answer."""

    cache: str
    first_audio_ms: float
    total_ms: float
    source: str
    speech_s: float | None
    size_bytes: int
    media_type: str
    faster: float | None
    saved_to: str

    def line(self) -> str:
        """For people."""
        speech = f"{self.speech_s:.1f} s of speech   " if self.speech_s is not None else ""
        faster = f"   {self.faster:.0f}x faster than the miss" if self.faster else ""
        return (
            f"{self.cache:<5} first audio {self.first_audio_ms:.1f} ms   total {self.total_ms:.1f} ms   "
            f"{self.source}   {speech}{self.size_bytes / 1000:.1f} kB {self.media_type}{faster}   -> {self.saved_to}"
        )


def say(target: Target, fields: Mapping[str, object], output: Path | None, *, fresh: bool) -> tuple[Said, Report]:
    """Asks for speech and saves it. Refused: the edge's own words."""
    headers = {"Content-Type": "application/json", "Accept": "audio/*"}
    if fresh:
        headers["Cache-Control"] = "no-cache"
    said = target.ask("POST", "/v1/tts", json.dumps(fields, ensure_ascii=False).encode(), headers)
    if said.status != 200:
        raise Refused(f"{said.status} {said.problem}")
    media_type = said.headers.get("content-type", "").partition(";")[0]
    path = output or Path(f"say.{SUFFIXES.get(media_type.rpartition('/')[2], 'audio')}")
    path.write_bytes(said.body)
    return said, _report(said, media_type, fields, str(path))


def _report(said: Said, media_type: str, fields: Mapping[str, object], saved_to: str) -> Report:
    told = dict(each.strip().partition("=")[::2] for each in said.headers.get("cache-status", "").split(";"))
    made_ms = _made_ms(said.headers.get("server-timing", "")) if "hit" in told else None
    return Report(
        cache="HIT" if "hit" in told else "JOIN" if "collapsed" in told else told.get("fwd", "miss").upper(),
        first_audio_ms=said.first_byte_ms,
        total_ms=said.total_ms,
        source=told.get("detail", "-"),
        speech_s=_speech_s(said, fields),
        size_bytes=len(said.body),
        media_type=media_type,
        faster=made_ms / said.first_byte_ms if made_ms else None,
        saved_to=saved_to,
    )


def _made_ms(server_timing: str) -> float | None:
    for metric in server_timing.split(","):
        name, _, parameters = metric.strip().partition(";")
        if name == "made":
            return float(parameters.partition("dur=")[2] or 0)
    return None


def _speech_s(said: Said, fields: Mapping[str, object]) -> float | None:
    from edgecache.speech.formats import Expected, NotAudio, inspector

    try:
        listening = inspector(said.headers.get("content-type", ""), Expected(None, None, len(str(fields["text"])), 1.0))
        listening.feed(said.body)
        measured = listening.finish()
    except NotAudio:
        return None
    return None if measured.duration_ms is None else measured.duration_ms / 1000
