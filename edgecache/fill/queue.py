"""Who waits for room at a cluster, and who is next. Pure.

Keeps: the more urgent go first, and of those as urgent the one whose deadline is soonest, and then who came first; the queue
has a bound, and past it the last in order is sent away; whoever could not be served in time is sent away at once, with the
time after which it could.
"""

from bisect import insort
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from edgecache.fill.priority import Priority

#: Nobody is told to stay away for longer.
MAX_RETRY_S = 60.0
#: A new time between two places counts for so much of the estimate.
GAIN = 0.2


@dataclass(slots=True, eq=False)
class Place:
    """One that waits. number: of its coming; it keeps it when it has to wait again."""

    priority: Priority
    deadline_s: float
    number: int

    @property
    def order(self) -> tuple[int, float, int]:
        """Sorts who goes first."""
        return int(self.priority), self.deadline_s, self.number


@dataclass(slots=True)
class Pace:
    """How often room comes free while someone waits for it, in seconds between; None: nobody knows yet."""

    between_s: float | None = None
    _freed_at_s: float | None = None

    def freed(self, now: float, *, wanted: bool) -> None:
        """Room came free; wanted: someone was waiting. Idle times say nothing."""
        if wanted and self._freed_at_s is not None:
            gap_s = max(0.0, now - self._freed_at_s)
            self.between_s = gap_s if self.between_s is None else self.between_s + GAIN * (gap_s - self.between_s)
        self._freed_at_s = now if wanted else None

    def until_s(self, ahead: int) -> float:
        """How long it takes until one with so many ahead of it is served, as far as is known."""
        return 0.0 if self.between_s is None else self.between_s * (ahead + 1)


@dataclass(frozen=True, slots=True)
class Enter:
    """It may wait. instead: whoever has to leave for it."""

    instead: Place | None = None


@dataclass(frozen=True, slots=True)
class SendAway:
    """There is no use in waiting; retry_after_s: after this there may be."""

    retry_after_s: float


@dataclass(slots=True)
class Queue:
    """All that wait, in order."""

    most: int
    pace: Pace = field(default_factory=Pace)
    _places: list[Place] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Place]:
        return iter(tuple(self._places))

    def ask(self, place: Place, now: float) -> Enter | SendAway:
        """What becomes of one that would wait; changes nothing."""
        ahead = sum(each.order < place.order for each in self._places)
        served_s = self.pace.until_s(ahead)
        if ahead >= self.most or now + served_s > place.deadline_s:
            return SendAway(self.retry_after_s(served_s, place.deadline_s - now))
        return Enter(self._places[-1] if len(self._places) >= self.most else None)

    def retry_after_s(self, served_s: float, patience_s: float) -> float:
        """After how long the queue is short enough for such patience, as far as is known; not before one has left it."""
        return min(max(1.0, self.pace.until_s(0), served_s - max(0.0, patience_s)), MAX_RETRY_S)

    def enter(self, place: Place) -> None:
        """It waits."""
        insort(self._places, place, key=lambda each: each.order)

    def leave(self, place: Place) -> None:
        """It waits no more; no harm if it has left already."""
        if place in self._places:
            self._places.remove(place)

    def hurry(self, place: Place, priority: Priority, deadline_s: float) -> None:
        """It is as urgent as this from now on."""
        waiting = place in self._places
        self.leave(place)
        place.priority, place.deadline_s = priority, deadline_s
        if waiting:
            self.enter(place)

    def by_priority(self, which: Collection[Priority] = tuple(Priority)) -> dict[str, int]:
        """How many wait, as they are told in /status."""
        return {each.word: sum(place.priority is each for place in self._places) for each in which}
