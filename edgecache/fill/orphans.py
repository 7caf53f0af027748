"""What becomes of a fill that nobody listens to any more. Pure.

Keeps rule 4's default: it is finished and stored. It is abandoned only where finishing it helps nobody (nothing of it may be
stored), or where others wait for the room that it takes and little is lost: nobody else asked for it, and the cluster was
not asked yet, or the text is long and little of its audio is there. What was asked for ahead, to be kept, never had a
listener to lose.
"""

from dataclasses import dataclass
from enum import Enum

from edgecache.fill.limits import FillLimits
from edgecache.fill.priority import Priority


class Fate(Enum):
    """What is done with it, and why."""

    FINISH = "finish"
    NOT_STORED = "not to be stored"
    NOT_ASKED = "no cluster asked yet"
    LONG = "long, and little of it there"

    @property
    def abandoned(self) -> bool:
        """Whether it is given up."""
        return self is not Fate.FINISH


@dataclass(frozen=True, slots=True)
class Orphan:
    """One fill without listeners. others: how many joined it. asked: whether a cluster is being asked. stored: whether
    it may be. heard_bytes: of its audio, so far."""

    priority: Priority
    characters: int
    others: int
    asked: bool
    stored: bool
    heard_bytes: int


def fate(orphan: Orphan, limits: FillLimits, *, pressed: bool) -> Fate:
    """What becomes of it. pressed: others wait for room."""
    if orphan.priority >= Priority.PREFETCH:
        return Fate.FINISH
    if not orphan.stored:
        return Fate.NOT_STORED
    if not pressed or orphan.others:
        return Fate.FINISH
    if not orphan.asked:
        return Fate.NOT_ASKED
    if orphan.characters > limits.orphan_characters and orphan.heard_bytes < limits.orphan_kept_bytes:
        return Fate.LONG
    return Fate.FINISH
