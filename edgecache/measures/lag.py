"""How late the event loop is, by a beat that ought to come at even times. Pure: it is told when each beat came.

A loop that is late is late for everything: what is measured here is in every first byte, and in every gap that is this
edge's own fault.
"""

from edgecache.measures.ladder import Spread


class Lag:
    """What the beats were late. total_s: in all; spread: each beat; last_s: the last one; worst: of late."""

    __slots__ = ("_worst_at_s", "_worst_s", "last_s", "spread", "total_s")

    def __init__(self) -> None:
        self.spread = Spread()
        self.total_s = self.last_s = 0.0
        self._worst_s = self._worst_at_s = 0.0

    def __repr__(self) -> str:
        return f"<Lag {self.total_s * 1000:.1f} ms in {self.spread.count} beats>"

    def beat(self, due_s: float, now: float) -> None:
        """A beat that was due then has come now."""
        late_s = max(0.0, now - due_s)
        self.spread.add(late_s)
        self.total_s += late_s
        self.last_s = late_s
        if late_s >= self.recent_s(now):
            self._worst_s, self._worst_at_s = late_s, now

    def recent_s(self, now: float, within_s: float = 5.0) -> float:
        """The worst that was seen within so long."""
        return self._worst_s if now - self._worst_at_s <= within_s else 0.0
