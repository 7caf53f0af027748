"""What is refused when there is more to do than can be done well, and in which order. Pure.

Keeps rule 7: past a bound new work gets a clear answer at once, so that what is under way, and hits, stay quick. New fills
that nobody waits to hear go first, then those that somebody does. Who joins a fill costs nearly nothing, and is never
refused; hits do not come here. It does not know requests: `fills` asks before each new fill.

Theory. A loop that is late once (a pause, a suspended machine, one large text) has no more to do than before; one that is
late at each beat has a queue that does not get shorter (CoDel, RFC 8289: it is the least delay that tells, not the
largest). So lateness counts only if every beat was late for a while. Bytes that are held are there or not: they count at
once, and are over at once.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from edgecache.errors import NodeError
from edgecache.fill.priority import Priority
from edgecache.measures.holding import Holding, State
from edgecache.option import option

#: What was past a threshold is past it until it is this much below.
MARGIN = 0.8
#: Nobody is told to stay away for longer.
MAX_RETRY_S = 30


@dataclass(frozen=True, slots=True)
class Shed:
    """When new work is refused. `later`: what nobody waits to hear, which is look-ahead, prefetch and warm-up."""

    lag_later_s: float = option(
        0.1,
        "The event loop is late by so much, at each beat for `after`: fills for later are refused ...",
        minimum=0.01,
    )
    lag_s: float = option(0.5, "... and by so much: all new fills. Hits and joins never are.", minimum=0.01)
    held_later: float = option(
        0.5, "The share of `fills.max_held` in use from which on fills for later are refused ...", minimum=0, maximum=1
    )
    held: float = option(
        0.85, "... and all new fills, so that there is room for those under way.", minimum=0, maximum=1
    )
    after_s: float = option(0.5, "How long the event loop has to be late.", minimum=0)
    ease_s: float = option(
        1.0, "How long it has to be well below a threshold (a fifth) before fills are begun again.", minimum=0
    )


class Reason(Enum):
    """Why a fill was refused, in the words of the metrics."""

    LAG = "lag"
    HELD = "held"
    FLIGHTS = "flights"


class Level(Enum):
    """What is refused."""

    NOTHING = "nothing"
    LATER = "fills for later"
    ALL = "all new fills"


@dataclass(slots=True)
class _Measure:
    """One thing that is measured, against its two thresholds."""

    later: float
    all: float
    held_later: Holding
    held_all: Holding
    value: float = 0.0

    @property
    def clear(self) -> bool:
        """Whether neither threshold is reached, or was of late."""
        return self.held_later.state is self.held_all.state is State.CLEAR

    def observe(self, value: float, now: float) -> None:
        """It is so much now."""
        self.value = value
        for threshold, holding in ((self.later, self.held_later), (self.all, self.held_all)):
            holding.observe(value >= (threshold * MARGIN if holding.holds else threshold), now)

    def refuses(self, priority: Priority) -> Holding | None:
        """What keeps a fill of this priority from being begun."""
        if self.held_all.holds:
            return self.held_all
        return self.held_later if priority > Priority.INTERACTIVE and self.held_later.holds else None


class Shedding:
    """What is refused now. max_held_bytes: what may be held in all."""

    def __init__(self, settings: Shed, max_held_bytes: int) -> None:
        self._max_held_bytes = max_held_bytes
        #: From so many on, thresholds are looked at.
        self._uneasy_bytes = min(settings.held_later, settings.held) * max_held_bytes
        self._lag, self._held = (
            _Measure(later, all_, Holding(after_s, ease_s), Holding(after_s, ease_s))
            for later, all_, after_s, ease_s in (
                (settings.lag_later_s, settings.lag_s, settings.after_s, settings.ease_s),
                (settings.held_later, settings.held, 0.0, 0.0),
            )
        )
        #: How many were refused, by reason and priority.
        self.refused: Counter[tuple[Reason, Priority]] = Counter()

    def __repr__(self) -> str:
        return f"<Shedding {self.level.value}>"

    @property
    def level(self) -> Level:
        """What is refused now."""
        measures = (self._lag, self._held)
        if any(each.held_all.holds for each in measures):
            return Level.ALL
        return Level.LATER if any(each.held_later.holds for each in measures) else Level.NOTHING

    def told(self) -> Mapping[str, int]:
        """How many were refused, by reason; for `/status`."""
        return {reason.value: sum(self.refused[reason, each] for each in Priority) for reason in Reason}

    def beat(self, late_s: float, now: float) -> None:
        """A beat of the event loop came so late."""
        self._lag.observe(late_s, now)

    def hold(self, held_bytes: int, now: float) -> None:
        """So many bytes are held."""
        self._held.observe(held_bytes / self._max_held_bytes, now)

    def why(self) -> str:
        """What is refused, and why; empty: nothing is."""
        if self.level is Level.NOTHING:
            return ""
        reasons = []
        if self._lag.held_later.holds or self._lag.held_all.holds:
            reasons.append("the event loop is late")
        if self._held.held_later.holds or self._held.held_all.holds:
            reasons.append(f"{self._held.value:.0%} of fills.max_held is in use")
        return f"{self.level.value} are refused: {' and '.join(reasons)}"

    def at_ease(self, held_bytes: int) -> bool:
        """Whether nothing is refused, nor would be with so many bytes held; nearly always so."""
        return self._lag.clear and self._held.clear and held_bytes < self._uneasy_bytes

    def admit(self, priority: Priority, now: float) -> None:
        """NodeError: no new fill of this priority is begun now."""
        for reason, measure in ((Reason.LAG, self._lag), (Reason.HELD, self._held)):
            holding = measure.refuses(priority)
            if holding is not None:
                raise self.refuse(reason, priority, self._retry_after_s(holding, now))

    def refuse(self, reason: Reason, priority: Priority, retry_after_s: int = 1) -> NodeError:
        """What a client is told, counted."""
        self.refused[reason, priority] += 1
        return NodeError(503, "busy", _TOLD[reason], retry_after_s=retry_after_s)

    def _retry_after_s(self, holding: Holding, now: float) -> int:
        """It takes its patience to end at the least; and what has lasted for long will hardly be over at once."""
        return min(max(1, math.ceil(max(holding.fall_s, holding.lasted_s(now)))), MAX_RETRY_S)


_TOLD = {
    Reason.LAG: "This edge has too much to do for new speech; what it has recorded it still tells.",
    Reason.HELD: "This edge holds as much unfinished audio as it may.",
    Reason.FLIGHTS: "This edge has too many syntheses under way.",
}
