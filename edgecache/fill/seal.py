"""Whether a rendering that ended may be stored. Pure.

Keeps rules 2 and 3: only what is proven whole is a recording, and what is proven cut is not given a clean end.
"""

from dataclasses import dataclass

from edgecache.speech.formats import Measured


@dataclass(frozen=True, slots=True)
class Seal:
    """Whole: store it."""


@dataclass(frozen=True, slots=True)
class EndUnstored:
    """Over, but for this reason not to be stored."""

    reason: str


@dataclass(frozen=True, slots=True)
class BreakOff:
    """The upstream's end is not to be believed: the audio says that it is cut."""

    reason: str


Ending = Seal | EndUnstored | BreakOff


def ending(*, framed: bool, measured: Measured, wanted: bool, findable: bool = True) -> Ending:
    """How a flight ends whose upstream's body is over.

    framed: HTTP itself said where the body ends (a close-delimited body looks the same when it is cut). wanted: nobody
    asked for it not to be stored. findable: all its tags can be kept, so that a purge by one of them would find it.
    """
    if not framed:
        return EndUnstored("unframed") if measured.complete else BreakOff(measured.why)
    if not measured.complete:
        return EndUnstored(measured.why)
    if not wanted:
        return EndUnstored("no-store")
    return Seal() if findable else EndUnstored("too-many-tags")
