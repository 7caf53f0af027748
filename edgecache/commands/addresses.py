"""Addresses as people type them: the URL of an edge, and HOST:PORT to listen at.

Keeps the rule that what can't be an address is said to be none before anybody is asked. It opens no connection.
"""

import errno
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from edgecache.commands.terminal import Misused
from edgecache.errors import SettingsError

_HOW = "write it as http://HOST:PORT or https://HOST"
_PORTS = range(1, 65536)
#: What people leave on a URL that they copied from a request.
_CALLS = ("/v1/tts/stream", "/v1/tts", "/v1")
_HOST_PORT = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%]+)\]|(?P<host>[^:\[\]\s/]*)):(?P<port>[0-9]{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """Where an edge is asked. prefix: the path it is found under, behind a proxy; else empty."""

    secure: bool
    host: str
    port: int
    prefix: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.secure else ''}://{host}:{self.port}{self.prefix}"


def address(url: str) -> Address:
    """The address in this URL; without a scheme it is http. Misused: there is none in it."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise Misused(f"{url!r} is no URL: it has a character that no URL has; {_HOW}")
    parts = _split(url if "://" in url else f"http://{url}")
    if parts is None or (re.match(r"https?:", url) and "://" not in url):
        raise Misused(f"{url!r} is no URL; {_HOW}")
    if parts.scheme not in ("http", "https"):
        raise Misused(f"{url!r} is neither http:// nor https://; {_HOW}")
    if not parts.hostname:
        raise Misused(f"{url!r} names no host; {_HOW}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise Misused("the URL of an edge has no user, query or fragment; an API key goes into --api-key")
    secure = parts.scheme == "https"
    prefix = parts.path.rstrip("/")
    for call in _CALLS:
        prefix = prefix.removesuffix(call)
    return Address(secure, parts.hostname, parts.port or (443 if secure else 80), prefix)


def _split(url: str) -> SplitResult | None:
    """The URL's parts; None: it is none."""
    try:
        parts = urlsplit(url)
        # Both are checked where they are read.
        return parts if parts.hostname is not None and parts.port != 0 else parts._replace(netloc="")
    except ValueError:
        return None


def listening(flag: str, section: str, spelled: str | None) -> Mapping[str, str]:
    """The variables that say what `--listen HOST:PORT` says, for `settings.load`; flags go over the environment.

    A port alone keeps the host that is configured. Misused: it is no HOST:PORT.
    """
    if spelled is None:
        return {}
    found = _HOST_PORT.fullmatch(spelled if ":" in spelled else f":{spelled}")
    if found is None or int(found["port"]) not in (0, *_PORTS):
        raise Misused(f"{flag} takes HOST:PORT, such as 127.0.0.1:8081, not {spelled!r}")
    host = found["six"] or found["host"]
    variable = f"EDGECACHE_{section.upper()}__"
    return {f"{variable}PORT": str(int(found["port"]))} | ({f"{variable}HOST": host} if host else {})


def of_flags(error: SettingsError, flags: Mapping[str, str]) -> str:
    """What is wrong with the settings, in words of the flags where they set it; at a terminal, which flag would help."""
    told = str(error)
    for variable in flags:
        told = told.replace(variable, f"--{variable.removeprefix('EDGECACHE_').partition('__')[0].lower()}")
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE and sys.stderr.isatty():
        told += f"\n   = or, for now, `edgecache serve --{told.partition(':')[0]} HOST:PORT`"
    return told
