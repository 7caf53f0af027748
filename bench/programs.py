"""Programs that the benchmark runs and does not bring: which are there, how to get the others, and what is compiled."""

import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
#: What to install for each, on Debian. bodyaccess is in varnish-modules.
PACKAGES = {
    "wrk": "wrk",
    "nginx": "nginx",
    "varnishd": "varnish varnish-modules",
    "gcc": "gcc libc6-dev",
    "redis-server": "redis-server",
}
_VERSION = {"wrk": "-v", "nginx": "-v", "varnishd": "-V", "gcc": "--version", "redis-server": "--version"}


class Unable(Exception):
    """This machine lacks something, and what to do about it."""


def missing(programs: Iterable[str]) -> list[str]:
    """Those that are not there."""
    return [each for each in programs if shutil.which(each) is None]


def remedy(programs: Iterable[str]) -> str:
    """What to do about missing ones."""
    return "apt-get install " + " ".join(PACKAGES[each] for each in programs)


def compiled(source: str, directory: Path) -> Path:
    """The program made of this file of `peers`, once. Unable: the compiler's own words."""
    made = directory / source.removesuffix(".c")
    if made.exists():
        return made
    command = ["gcc", "-O2", "-Wall", "-o", str(made), str(PEERS / source), "-lm"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise Unable(f"{source} can't be compiled:\n{ran.stderr.strip()}")
    return made


def filled(template: str, words: Mapping[str, str]) -> str:
    """A configuration of `peers` with the words between @ replaced."""
    text = (PEERS / template).read_text()
    for name, word in words.items():
        text = text.replace(f"@{name}@", word)
    return text


def machine() -> dict[str, str]:
    """What the figures were made with."""
    told = {"python": platform.python_version(), "system": platform.platform(), "processor": _processor()}
    told |= {name: version(name) for name in ("aiohttp", "uvloop", "redis", "hiredis")}
    for program in set(_VERSION) - set(missing(_VERSION)):
        ran = subprocess.run([program, _VERSION[program]], capture_output=True, text=True, check=False)
        told[program] = (ran.stdout + ran.stderr).strip().partition("\n")[0]
    return told


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
