"""Who may ask, and whose recordings are theirs.

Keeps rule 8: each API key has its own namespace unless its line says that it shares one. The file holds hashes alone;
a key is found by its SHA-256, whose timing tells nothing of another key, and compared in constant time. Keys are 256 bits
of randomness, so a fast hash is enough. It does not know where in a request a key is sent.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from edgecache.errors import ClientError, SettingsError
from edgecache.option import option

_LINE = re.compile(
    r"(?P<name>[A-Za-z0-9._-]{1,64})[ \t]+sha256:(?P<hash>[0-9a-f]{64})"
    r"(?:[ \t]+namespace=(?P<namespace>[A-Za-z0-9._-]{1,64}))?"
)


@dataclass(frozen=True, slots=True)
class Auth:
    """API keys of clients."""

    keys_file: str | None = option(None, "A file of hashed keys; make lines for it with `edgecache keys new NAME`.")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. Recordings are theirs who have the same namespace."""

    name: str
    namespace: str


#: Who asks an edge that has no keys.
ANYONE = Caller("-", "default")


@dataclass(frozen=True, slots=True)
class Keyring:
    """Who may ask, by the hash of their key. An empty one lets anyone ask."""

    callers: Mapping[bytes, tuple[bytes, Caller]]
    open: bool = False

    def __repr__(self) -> str:
        return "<Keyring open>" if self.open else f"<Keyring {len(self.callers)} keys>"

    def admit(self, presented: str | None) -> Caller:
        """Whose key this is. ClientError 401: nobody's."""
        if self.open:
            return ANYONE
        if presented is None:
            raise ClientError(
                401, "missing_api_key", "Send your API key as `X-API-Key: KEY` or `Authorization: Bearer KEY`."
            )
        digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
        known, caller = self.callers.get(digest, (b"", ANYONE))
        if not hmac.compare_digest(known, digest):
            raise ClientError(401, "invalid_api_key", "This API key is not known here.")
        return caller

    def whose(self, namespace: str | None, api_key: str | None = None) -> str:
        """The namespace that an operator means. ClientError: the key is nobody's, or nothing was said of several."""
        if namespace is not None:
            return namespace
        if api_key is not None:
            return self.admit(api_key).namespace
        if self.open or any(caller.namespace == ANYONE.namespace for _, caller in self.callers.values()):
            return ANYONE.namespace
        raise ClientError(
            400, "no_namespace", "Each API key here has recordings of its own: say whose, such as namespace key-NAME."
        )


OPEN = Keyring(MappingProxyType({}), open=True)


class Gate:
    """The keyring that holds now. What was decided under another one has to be decided again.

    fault: why the keys file, as it was last read, was not taken over.
    """

    __slots__ = ("fault", "ring")

    def __init__(self, ring: Keyring) -> None:
        self.ring = ring
        self.fault = ""

    def __repr__(self) -> str:
        return f"<Gate {self.ring!r}>"


def presented(api_key: str | None, authorization: str | None) -> str | None:
    """The key that a request brings in `X-API-Key` or, without one, as `Authorization: Bearer`."""
    if api_key is not None:
        return api_key
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token else None


def new_key(name: str, namespace: str | None = None) -> tuple[str, str]:
    """A fresh API key, and the line for the keys file that admits it."""
    key = f"ec_{secrets.token_urlsafe(32)}"
    shared = f" namespace={namespace}" if namespace else ""
    return key, f"{name} sha256:{hashlib.sha256(key.encode()).hexdigest()}{shared}"


def read_keys(path: Path) -> Keyring:
    """The keys of a file: `NAME sha256:HEX [namespace=SHARED]` a line; `#` comments. SettingsError: all bad lines."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: can't be read: {error}") from error
    callers: dict[bytes, tuple[bytes, Caller]] = {}
    problems: list[str] = []
    names: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            problems.append(f"{path}:{number}: not `NAME sha256:HEX [namespace=NAME]`; `edgecache keys new` makes one")
        elif (digest := bytes.fromhex(match["hash"])) in callers:
            problems.append(f"{path}:{number}: this key is {callers[digest][1].name}'s already; make one for each name")
        elif match["name"] in names:
            problems.append(f"{path}:{number}: the name {match['name']} is there twice")
        else:
            names.add(match["name"])
            callers[digest] = digest, Caller(match["name"], match["namespace"] or f"key-{match['name']}")
    if not callers and not problems:
        problems.append(f"{path}: holds no keys; make one with `edgecache keys new NAME`")
    if problems:
        raise SettingsError("\n".join(problems))
    return Keyring(MappingProxyType(callers))
