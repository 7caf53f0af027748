"""In which mode this edge is: whether all is well, and if not, what it can still do. Pure.

Several causes may hold at once; the mode is that of the gravest, and all of them are told. A cause has to last, and to be
gone for a while, before the mode follows: a mode that flutters tells nothing. What each means: docs/modes.md.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from edgecache.measures.holding import Holding
from edgecache.ops.families import PREFIX
from edgecache.ops.gathering import Counts


class Mode(Enum):
    """The gravest last."""

    NORMAL = "normal"
    NO_REDIS = "no-redis"  # Redis is not asked: memory alone
    STALE_ONLY = "stale-only"  # no cluster answers: what is recorded alone, fresh or not
    SHED = "shed"  # there is too much to do: some or all new fills are refused
    DRAIN = "drain"  # it goes down, or was asked to take nothing on


class Event(Enum):
    """Which of the causes that hold is the gravest."""

    WELL = "all is well"
    REDIS_LOST = "Redis is lost"
    CLUSTERS_LOST = "clusters are lost"
    PRESSED = "too much to do"
    DRAINING = "draining"


_LEADS_TO = dict(zip(Event, Mode, strict=True))
_EVENTS = {mode: event for event, mode in _LEADS_TO.items()}
#: From each to each: causes come and go as they will.
TRANSITIONS: dict[tuple[Mode, Event], Mode] = {
    (mode, event): after for mode in Mode for event, after in _LEADS_TO.items()
}

#: How long a cause has to be seen, and then to be gone, in seconds. Redis has its breaker and shedding its own patience;
#: clusters are unheard of for a moment when an edge begins.
PATIENCE_S = {Mode.NO_REDIS: (0.0, 1.0), Mode.STALE_ONLY: (1.0, 1.0), Mode.SHED: (0.0, 0.0), Mode.DRAIN: (0.0, 0.0)}
_GRAVITY = {mode: at for at, mode in enumerate(Mode)}
#: What it is called that a cause is no more.
_OVER = {
    Mode.NO_REDIS: "Redis is asked again",
    Mode.STALE_ONLY: "a cluster answers again",
    Mode.SHED: "all new fills are begun again",
    Mode.DRAIN: "this edge takes on work again",
}


@dataclass(frozen=True, slots=True)
class Change:
    """The mode is another."""

    before: Mode
    after: Mode
    reason: str

    @property
    def worse(self) -> bool:
        """Whether it got worse."""
        return _GRAVITY[self.after] > _GRAVITY[self.before]


@dataclass(slots=True)
class Modes:
    """One worker's mode over time. began_s: when it began to be told."""

    began_s: float
    mode: Mode = Mode.NORMAL
    #: Why, for each cause that holds.
    causes: Mapping[Mode, str] = field(default_factory=dict)
    _since_s: float = field(init=False)
    _holding: dict[Mode, Holding] = field(init=False)

    def __post_init__(self) -> None:
        self._since_s = self.began_s
        self._holding = {mode: Holding(rise_s, fall_s) for mode, (rise_s, fall_s) in PATIENCE_S.items()}

    def __repr__(self) -> str:
        return f"<Modes {self.mode.value}, {len(self.causes)} causes>"

    def observe(self, seen: Mapping[Mode, str], now: float) -> Change | None:
        """What is seen now, with its reason; None: the mode is as before."""
        holding = [mode for mode, each in self._holding.items() if each.observe(bool(seen.get(mode)), now)]
        self.causes = {mode: seen.get(mode) or self.causes.get(mode, "") for mode in holding}
        gravest = max(holding, key=_GRAVITY.__getitem__, default=Mode.NORMAL)
        before, self.mode = self.mode, TRANSITIONS[self.mode, _EVENTS[gravest]]
        if self.mode is before:
            return None
        self._since_s = now
        change = Change(before, self.mode, "")
        return Change(before, self.mode, self.causes[self.mode] if change.worse else _OVER[before])

    def told(self, now: float) -> Mapping[str, object]:
        """The same as a mapping, for JSON."""
        return {
            "mode": self.mode.value,
            "for_s": round(now - self._since_s, 1),
            "causes": {mode.value: why for mode, why in self.causes.items()},
        }


def one(counts: Counts) -> Counts:
    """These counts with one mode alone, the gravest that any worker is in."""
    name = PREFIX + "mode"
    found = [each[1] for each, figure in counts.items() if each[0] == name and figure]
    return (
        counts
        if not found
        else {**counts, **{(name, mode.value): float(mode.value == gravest(found)) for mode in Mode}}
    )


def gravest(modes: Iterable[str]) -> str:
    """The mode of several workers together."""
    return max((Mode(each) for each in modes), key=_GRAVITY.__getitem__, default=Mode.NORMAL).value


def of_daemon(workers: Iterable[Mapping[str, Any]]) -> dict[str, object]:
    """What the workers told, as the daemon's: the gravest, every cause in any of them, and each worker."""
    each_told = list(workers)
    return {
        "mode": gravest(each["mode"] for each in each_told),
        "causes": {name: why for each in each_told for name, why in each["causes"].items()},
        "modes": each_told,
    }
