"""What must hold before this process may serve: libraries without known holes, a C parser, randomised hashes."""

import re
import resource
import sys
from contextlib import suppress

import aiohttp
from aiohttp import http_parser

from edgecache.errors import SettingsError

#: 3.14.2 closed request smuggling by upgrade (CVE-2026-69243), 3.14.3 an over-read in the response parser (CVE-2026-69244).
AIOHTTP_FLOOR = (3, 14, 3)


def check(version: str = aiohttp.__version__, parser: type | None = None) -> None:
    """SettingsError: this installation may not serve; the message has the remedy."""
    parser = http_parser.HttpRequestParser if parser is None else parser
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if numbers < AIOHTTP_FLOOR:
        raise SettingsError(
            f"aiohttp {version} has known holes; edgecache needs 3.14.3 or newer: pip install -U 'aiohttp>=3.14.3'"
        )
    if parser is getattr(http_parser, "HttpRequestParserPy", None):
        raise SettingsError(
            "aiohttp runs without its C parser; unset AIOHTTP_NO_EXTENSIONS, or reinstall aiohttp from a wheel"
        )
    if not sys.flags.hash_randomization:
        raise SettingsError("PYTHONHASHSEED=0 lets clients slow down dictionaries; unset it")


def descriptors() -> int:
    """How many files and sockets this process may have open: as many as the system lets it, from now on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # some systems have a bound of their own below it
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
