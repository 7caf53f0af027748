"""By when an answer has to come, and each part of its body. Pure: it is told the time. It does not know connections."""

from edgecache.clusters.cluster import Timeouts
from edgecache.clusters.fault import Fault


class Deadlines:
    """One exchange's, on the event loop's clock. due_at: by then the next part has to be there, first of all its head."""

    __slots__ = ("_between_s", "_first", "_total_at", "due_at")

    def __init__(self, timeouts: Timeouts, began_at: float) -> None:
        self._between_s = timeouts.between_bytes_s
        self._total_at = began_at + timeouts.total_s
        self._first = True
        self.due_at = min(began_at + timeouts.first_byte_s, self._total_at)

    def __repr__(self) -> str:
        return f"<Deadlines {'first' if self._first else 'next'} due at {self.due_at:.3f}>"

    def came(self, now: float) -> float:
        """A part of the body came, or the reader asks for the next only now: by when that has to be there."""
        self._first = False
        next_at, total_at = now + self._between_s, self._total_at
        self.due_at = next_at if next_at < total_at else total_at
        return self.due_at

    def over(self, now: float) -> bool:
        """Whether the whole answer ought to be there, however much of it still comes."""
        return now > self._total_at

    def missed(self) -> tuple[Fault, str]:
        """What it is called that nothing came by then. Not asked of the clock: timers may come a tick too soon."""
        if self.due_at >= self._total_at:
            return Fault.TOTAL_TIMEOUT, "the whole answer took too long"
        if self._first:
            return Fault.FIRST_BYTE_TIMEOUT, "no first byte in time"
        return Fault.STALLED, "stalled in mid-body"
