"""What was counted of late: sliding windows over counts that only grow. Pure: every method is handed a monotonic `now`.

Keeps rule 7: a window keeps at most so many marks, however long it runs and however often it is asked.

Theory. Counts only grow, so what came within a window is what is counted now less what had been counted when it began. A
window keeps marks, each of them all counts as they were at one moment, a twelfth of its span apart; it begins at the newest
mark that is old enough. So it covers its span and at most a twelfth more, and less only while the process is younger.
"""

from collections import deque
from collections.abc import Mapping

from edgecache.measures.ladder import Spread

#: Marks in one window.
MARKS = 12

#: Counts by name; each is one figure or times on the ladder.
Counts = Mapping[tuple[str, ...], "float | Spread"]


class Window:
    """One window. span_s: how long it is. began_s: when counting began, with nothing counted."""

    __slots__ = ("_marks", "span_s")

    def __init__(self, span_s: float, began_s: float) -> None:
        self.span_s = span_s
        self._marks: deque[tuple[float, Counts]] = deque([(began_s, {})])

    def __repr__(self) -> str:
        return f"<Window of {self.span_s:g} s, {len(self._marks)} marks>"

    def mark(self, counts: Counts, now: float) -> None:
        """So much is counted now; kept if the last mark is long enough ago. The counts are not copied."""
        if now - self._marks[-1][0] >= self.span_s / MARKS:
            self._marks.append((now, counts))
        self._slide(now)

    def covers_s(self, now: float) -> float:
        """How far back it goes, now."""
        self._slide(now)
        return now - self._marks[0][0]

    def spread(self, name: tuple[str, ...], counts: Counts, now: float) -> Spread:
        """The times under this name that came within the window; counts: all there are now."""
        self._slide(now)
        current, before = counts.get(name), self._marks[0][1].get(name)
        if not isinstance(current, Spread):
            return Spread()
        return current.since(before) if isinstance(before, Spread) else current

    def figure(self, name: tuple[str, ...], counts: Counts, now: float) -> float:
        """The same of a figure."""
        self._slide(now)
        current, before = counts.get(name, 0.0), self._marks[0][1].get(name, 0.0)
        if isinstance(current, Spread) or isinstance(before, Spread):
            return 0.0
        return max(0.0, current - before)

    def _slide(self, now: float) -> None:
        while len(self._marks) > 1 and now - self._marks[1][0] >= self.span_s:
            self._marks.popleft()
