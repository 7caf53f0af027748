"""What a warm-up leaves on disk: what was done, so that it can go on, and what failed, so that it can be retried.

Keeps rule 8: the state holds marks and no text. The retry file holds texts, as the file it came from does.
"""

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecache.commands.terminal import Misused, Refused
from edgecache.commands.warm_set import FAILED, Wanted

_HEADING = "edgecache warm state 1"
#: What was done before this is not believed to be there any more: a recording is fresh for a day by default.
BELIEVED_S = 24 * 3600.0


class State:
    """Which utterances were done, a mark a line. path: None: nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.done: set[str] = set()
        self._fd: int | None = None

    def __repr__(self) -> str:
        return f"<State {self.path}, {len(self.done)} done>"

    def open(self, *, anew: bool) -> None:
        """Reads what an interrupted warm-up left; anew, or if that is too old: begins without. Misused: it can't."""
        if self.path is None:
            return
        try:
            if not anew and self.path.exists():
                self.done = self._left_behind(self.path)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (0 if self.done else os.O_TRUNC)
            self._fd = os.open(self.path, flags, 0o600)
            if not self.done:
                self._write(_HEADING)
        except OSError as error:
            raise Misused(f"--state: {self.path} can't be written: {error.strerror}") from error

    def _left_behind(self, path: Path) -> set[str]:
        heading, *marks = path.read_text("ascii", "replace").split("\n")
        if heading != _HEADING:
            raise Misused(f"--state: {path} is no state of a warm-up; name another file")
        old = time.time() - path.stat().st_mtime > BELIEVED_S
        return set() if old else set(marks[:-1])  # behind the last end of a line is nothing, or half a mark

    def add(self, mark: str) -> None:
        """This one is done. Refused: it can't be written down."""
        self.done.add(mark)
        try:
            self._write(mark)
        except OSError as error:
            raise Refused(f"--state: {self.path} can't be written: {error.strerror}") from error

    def close(self, *, forget: bool) -> None:
        """Keeps it for the next time, or not."""
        if self._fd is not None and self.path is not None:
            os.close(self._fd)
            self._fd = None
            if forget:
                self.path.unlink(missing_ok=True)

    def _write(self, line: str) -> None:
        if self._fd is not None:
            os.write(self._fd, f"{line}\n".encode())


@dataclass(frozen=True, slots=True)
class Failure:
    """An utterance that was not had, and why. status: 0 if there was no answer."""

    wanted: Wanted
    status: int
    code: str
    why: str

    def told(self) -> dict[str, Any]:
        """As a retry file and a summary have it; no text."""
        return {"line": self.wanted.where, "status": self.status, "code": self.code, "message": self.why}


def check_writable(path: Path | None, option: str) -> None:
    """Before anybody is asked. Misused: nothing can be written there."""
    if path is not None and (path.is_dir() or not path.parent.is_dir() or not _writable(path)):
        raise Misused(f"{option}: {path} can't be written")


def _writable(path: Path) -> bool:
    return os.access(path if path.exists() else path.parent, os.W_OK)


def save_failures(path: Path, failures: Iterable[Failure]) -> None:
    """What failed, as a file that `warm` takes. It is there whole, or as it was before."""
    lines = [json.dumps({**each.wanted.fields, FAILED: each.told()}, ensure_ascii=False) for each in failures]
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        beside.replace(path)
    except OSError as error:
        raise Refused(f"--retry-file: {path} can't be written: {error.strerror}") from error
