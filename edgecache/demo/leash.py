"""Ties a process to the one that started it: when that is gone, however it went, this one is told to end.

The other end of the leash is our standard input, a pipe that only our parent holds: a parent that was killed can't tell
us anything, but its pipe ends. It does not know what either process does.
"""

import os
import signal
import sys
import threading

#: How a tied process is started: `python -c TIED serve ...`. The command line is not imported here: it is above us.
TIED = "from edgecache.demo import leash; leash.tie(); from edgecache.cli import main; main()"


def tie() -> None:
    """From now on the end of standard input is a SIGTERM to this process."""
    threading.Thread(target=_hold, name="leash", daemon=True).start()


def tied(*arguments: str) -> list[str]:
    """The command that runs `edgecache` with these arguments on a leash."""
    return [sys.executable, "-c", TIED, *arguments]


def _hold() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
