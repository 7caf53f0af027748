"""Speech to the loudspeaker, by whatever player is installed.

Keeps the rule that a player that is missing, or that fails, is told in words. It does not know where speech comes from.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from edgecache.commands.terminal import Misused, Refused

#: What plays what comes on stdin, the best first.
PLAYERS = {
    "ffplay": ("-nodisp", "-autoexit", "-loglevel", "error", "-i", "-"),
    "play": ("-q", "-t", "wav", "-"),
    "aplay": ("-q", "-"),
}
#: Of what a player says of itself when it fails.
_QUOTED_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Player:
    """A player under way."""

    name: str
    stdin: IO[bytes]

    def hear(self, content: bytes) -> None:
        """More of the sound. Refused: the player does not take it."""
        try:
            self.stdin.write(content)
            self.stdin.flush()
        except OSError as error:
            raise Refused(f"{self.name} stopped playing before the end") from error


@contextmanager
def playing() -> Iterator[Player]:
    """A player; left when all was played. Misused: none is installed. Refused: it could not play."""
    name = next((each for each in PLAYERS if shutil.which(each)), None)
    if name is None:
        raise Misused("--play needs a player: install ffmpeg (ffplay), sox (play) or alsa-utils (aplay)")
    process = subprocess.Popen((name, *PLAYERS[name]), stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    try:
        yield Player(name, process.stdin)
        _, complaint = process.communicate()
    except BaseException:
        process.kill()
        process.communicate()
        raise
    if process.returncode != 0:
        said = complaint.decode("utf-8", "replace").strip()[:_QUOTED_CHARACTERS]
        raise Refused(f"{name} could not play it: {said or f'it ended with status {process.returncode}'}")
