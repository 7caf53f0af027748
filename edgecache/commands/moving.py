"""`edgecache export` and `edgecache import`: recordings of one edge in a file, and into another.

Keeps the rule that a file of the name that was asked for is an export to its end: until then it is called FILE.part. What is
missing is told, in words and in the exit code. It knows the stream's parts, and nothing of what is in a recording.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode

from edgecache.cache.shipment import Broken, Kind, Part, Reader
from edgecache.commands.asking import Target
from edgecache.commands.terminal import FAILED, PARTIAL, Misused, Refused, Unheard, counted, painted, talk

STDIO = "-"
#: An import is answered when all of it was read; a page that Redis has to write may take its time.
PATIENCE_S = 600.0


@dataclass(slots=True)
class Passing:
    """An export as it goes by: written down, and counted."""

    write: Callable[[bytes], object]
    recordings: int = 0
    size_bytes: int = 0
    broken: bool = False
    ending: Mapping[str, Any] = field(default_factory=dict)
    _reader: Reader = field(default_factory=Reader)

    def hear(self, content: bytes) -> None:
        """More of it."""
        self.size_bytes += len(content)
        self.write(content)
        for found in self._reader.feed(content):
            match found:
                case Broken():
                    self.broken = True
                case Part(kind=Kind.RECORDING):
                    self.recordings += 1
                case Part(kind=Kind.ENDING):
                    self.ending = found.words
                case _:
                    pass

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.broken and bool(self.ending.get("complete")) and self.ending["recordings"] == self.recordings


def export(target: Target, file: str, only: Mapping[str, str | None], *, redis: bool, as_json: bool) -> int:
    """Writes what the edge has; the exit code."""
    query = {name: each for name, each in only.items() if each is not None} | ({"redis": "1"} if redis else {})
    path = "/export" + (f"?{urlencode(query)}" if query else "")
    with _written(file) as write:
        passing = Passing(write)
        said = replace(target, keeps=False).ask("GET", path, hear=passing.hear)
        if said.status != 200:
            raise Refused(said.problem)
        if not passing.ending and not passing.recordings:
            raise Refused("what answers there exports nothing; is --admin an admin listener?")
    told = {
        "file": file,
        "recordings": passing.recordings,
        "bytes": passing.size_bytes,
        "left_out": passing.ending.get("left_out", 0),
        "complete": passing.complete,
        "why": passing.ending.get("why", "") if passing.ending else "the end is missing",
    }
    stream_told = sys.stderr if file == STDIO else sys.stdout
    print(json.dumps(told) if as_json else _exported(told), file=stream_told)
    return 0 if passing.complete else PARTIAL


@contextmanager
def _written(file: str) -> Iterator[Callable[[bytes], object]]:
    """Where it goes. What can't be had whole stays beside, under a name that says so."""
    if file == STDIO:
        if sys.stdout.isatty():
            raise Misused("recordings are not for a terminal; name a FILE, or send them through a pipe")
        yield _to_stdout
        return
    part = Path(f"{file}.part")
    try:
        with part.open("wb") as stream:
            yield stream.write
        part.replace(file)
    except OSError as error:
        raise Misused(f"{file} can't be written: {error.strerror}") from error
    finally:
        if part.exists() and not part.stat().st_size:
            part.unlink()


def _to_stdout(content: bytes) -> None:
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError as error:
        raise Unheard from error


def _exported(told: Mapping[str, Any]) -> str:
    said = f"{counted(told['recordings'], 'recording')}, {told['bytes'] / 1e6:.1f} MB -> {told['file']}"
    left_out = f"; {told['left_out']} left out" if told["left_out"] else ""
    return said + left_out + ("" if told["complete"] else f"; not all of it: {told['why'] or 'some are too large'}")


def import_(target: Target, file: str, *, as_json: bool) -> int:
    """Hands the file to the edge; the exit code."""
    target.ask_admin("GET", "/workers")  # whoever may not is told before gigabytes are on their way
    with _opened(file) as stream:
        _, told = replace(target, timeout_s=PATIENCE_S).ask_admin("POST", "/import", stream)
    if as_json:
        print(json.dumps(told))
    else:
        print(_imported(told))
        for each in told["faults"]:
            where = "a recording" if each["at_byte"] is None else f"{file}, byte {each['at_byte']}"
            talk(f"{painted('warning', sys.stderr)} {where}: {each['why']}")
    return 0 if told["complete"] else PARTIAL if told["imported"] or told["newer_here"] else FAILED


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == STDIO:
        yield sys.stdin.buffer
        return
    try:
        stream = Path(file).open("rb")  # noqa: SIM115 - its own errors are told, and no others
    except OSError as error:
        raise Misused(f"{file} can't be read: {error.strerror}") from error
    with stream:
        yield stream


_BECAME = {
    "newer_here": "are here in a newer take",
    "purged": "were purged here since",
    "other_revision": "are of another revision of their voice",
    "too_old": "are too old",
    "refused": "refused",
    "unanswered": "got lost: no worker answered",
}


def _imported(told: Mapping[str, Any]) -> str:
    parts = [f"{told['imported']} of {counted(told['recordings'], 'recording')} imported into {told['given_to']}"]
    parts += [f"{told[name]} {words}" for name, words in _BECAME.items() if told[name]]
    parts += [f"the file is broken in {counted(told['broken'], 'place')}"] if told["broken"] else []
    parts += ["its end is missing"] if told["exported"] is None else []
    missing = (told["exported"] or 0) - told["recordings"]
    parts += [f"{missing} of those exported are missing"] if missing > 0 else []
    parts += ["it was not a whole export to begin with"] if told["exported"] and not told["export_was_complete"] else []
    parts += ["keys are made otherwise here"] if told["named_anew"] else []
    return ", ".join(parts)
