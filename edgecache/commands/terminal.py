"""What the command line says, where, and how it ends: stdout is for data, stderr for talk.

Keeps the rule that a mistake of the user's is told in words and an exit code, never in a traceback. It does not know any
command.
"""

import errno
import os
import sys
from typing import TextIO

FAILED, USAGE, UNREACHABLE, PARTIAL, INTERRUPTED = 1, 2, 3, 4, 130
#: What a place that takes no more says; any other error of the system's is ours to foresee.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

#: SGR parameters (ECMA-48 §8.3.117) by the word that has the colour.
_COLOURS = {
    **dict.fromkeys(("HIT", "ok"), "32"),
    **dict.fromkeys(("JOIN", "STALE", "warning"), "33"),
    "error": "31",
}


class Ended(Exception):
    """The command could not do what it was asked; the message is ready to print."""

    code = FAILED


class Misused(Ended):
    """It was asked for something that can't be: the user is at fault."""

    code = USAGE


class Unreachable(Ended):
    """No edge answers there."""

    code = UNREACHABLE


class Refused(Ended):
    """The edge answered with an error, or broke off."""


class Unheard(Ended):
    """Whoever read stdout has left; there is nobody to tell."""


def talk(line: str) -> None:
    """A line for people; no data."""
    print(line, file=sys.stderr, flush=True)


def complain(message: str) -> None:
    """An error, marked as one once; nothing if there is nothing to say."""
    if message:
        talk(message if message.startswith("error") else f"error: {message}")


def painted(word: str, stream: TextIO, width: int = 0) -> str:
    """The word in its colour if this is a terminal that shows colours (https://no-color.org)."""
    padded = word.ljust(width)
    shows = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{_COLOURS[word]}m{padded}\x1b[0m" if shows and word in _COLOURS else padded


def counted(count: int, noun: str) -> str:
    """`1 cluster`, `2 clusters`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
