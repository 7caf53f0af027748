"""What an operator promises, and how a promise stands: thresholds, levels, and states that do not flutter. Pure.

An objective is a share of events within a limit: 95 % of first bytes within 100 ms is the same as p95 < 100 ms. Its state
follows the measured value at once upwards, and downwards one step at a time, after it has been well below for a while. It
does not know where the numbers come from: see `ops.slo`.
"""
# ruff: noqa: RUF009 - option() calls dataclasses.field(), which is what the rule asks for

from dataclasses import dataclass
from enum import Enum

from edgecache.option import option

#: A threshold is left downwards only where the value is this much below it.
MARGIN = 0.9
#: So many events have to be beyond a threshold: one is chance.
LEAST_BEYOND = 2


class State(Enum):
    """How an objective stands."""

    UNKNOWN = "unknown"  # too few events to tell
    MET = "met"
    MISSED = "missed"
    WARNING = "warning"
    CRITICAL = "critical"


class Event(Enum):
    """What was measured, against the thresholds; or that it has been better than the state says for long enough."""

    FEW = "too few events"
    WITHIN = "within target"
    PAST_TARGET = "past target"
    PAST_WARNING = "past warning"
    PAST_CRITICAL = "past critical"
    EASED = "eased"


_WORSE = {State.MET: 1, State.MISSED: 2, State.WARNING: 3, State.CRITICAL: 4}
_LEVELS = {
    Event.WITHIN: State.MET,
    Event.PAST_TARGET: State.MISSED,
    Event.PAST_WARNING: State.WARNING,
    Event.PAST_CRITICAL: State.CRITICAL,
}
#: Up at once, to wherever the value is; down by EASED alone. EASED can't happen to what has nothing to be eased of.
TRANSITIONS: dict[tuple[State, Event], State] = {
    **{(state, Event.FEW): State.UNKNOWN for state in State},
    **{(State.UNKNOWN, event): level for event, level in _LEVELS.items()},
    **{
        (state, event): max(state, level, key=_WORSE.__getitem__)
        for state in _WORSE
        for event, level in _LEVELS.items()
    },
    (State.MISSED, Event.EASED): State.MET,
    (State.WARNING, Event.EASED): State.MISSED,
    (State.CRITICAL, Event.EASED): State.WARNING,
}


@dataclass(frozen=True, slots=True)
class TimeGoal:
    """Thresholds of a time."""

    target_s: float = option(0.1, "What is promised.", minimum=0.0001)
    warning_s: float = option(0.25, "From here on someone should look.", minimum=0.0001)
    critical_s: float = option(0.5, "From here on users suffer.", minimum=0.0001)

    @property
    def steps(self) -> tuple[float, float, float]:
        """All three, rising."""
        return self.target_s, self.warning_s, self.critical_s


@dataclass(frozen=True, slots=True)
class ShareGoal:
    """Thresholds of a share."""

    target: float = option(0.001, "What is promised.", minimum=0.000001, maximum=1)
    warning: float = option(0.005, "From here on someone should look.", minimum=0.000001, maximum=1)
    critical: float = option(0.01, "From here on users suffer.", minimum=0.000001, maximum=1)

    @property
    def steps(self) -> tuple[float, float, float]:
        """All three, rising."""
        return self.target, self.warning, self.critical


@dataclass(frozen=True, slots=True)
class Promises:
    """What an operator promises. Definitions, with formulas: docs/slo.md."""

    first_byte: TimeGoal = option(TimeGoal, "From the request's head to the first byte of audio: p95.")
    jitter: TimeGoal = option(
        lambda: TimeGoal(0.02, 0.05, 0.1), "How long a player without a cushion waits for a piece of a stream: p99."
    )
    underruns: ShareGoal = option(ShareGoal, "The share of streams in which a player with a cushion runs dry.")
    startup: TimeGoal = option(lambda: TimeGoal(0.15, 0.5, 1.0), "To make a connection: p99.")
    cushion_s: float = option(0.1, "How much audio a player holds before it begins.", minimum=0)
    least_events: int = option(30, "With fewer events in five minutes nothing is said.", minimum=1)
    hold_s: float = option(60.0, "How long a value stays well below a threshold before its state is left.", minimum=0)


@dataclass(frozen=True, slots=True)
class Measured:
    """One objective in one window. value: None if there were no events. beyond: events past each threshold."""

    value: float | None
    good: int
    total: int
    beyond: tuple[int, int, int]


@dataclass(slots=True)
class Standing:
    """One objective over time. calm_since_s: since when the value is well below the state's own threshold."""

    steps: tuple[float, float, float]
    least_events: int
    hold_s: float
    state: State = State.UNKNOWN
    _calm_since_s: float | None = None

    def observe(self, measured: Measured, now: float) -> State:
        """The state, with what is measured now."""
        self.state = TRANSITIONS[self.state, self._event(measured)]
        if self._eased(measured, now):
            self.state = TRANSITIONS[self.state, Event.EASED]
            self._calm_since_s = now  # the next step down takes as long again
        return self.state

    def _event(self, measured: Measured) -> Event:
        if measured.value is None or measured.total < self.least_events:
            return Event.FEW
        past = [
            measured.value >= step and beyond >= LEAST_BEYOND
            for step, beyond in zip(self.steps, measured.beyond, strict=True)
        ]
        return list(_LEVELS)[max((n for n, each in enumerate(past, 1) if each), default=0)]

    def _eased(self, measured: Measured, now: float) -> bool:
        if self.state in (State.UNKNOWN, State.MET):
            self._calm_since_s = None
            return False
        own = self.steps[_WORSE[self.state] - 2]
        few = measured.beyond[_WORSE[self.state] - 2] < LEAST_BEYOND
        if not few and (measured.value is None or measured.value >= own * MARGIN):
            self._calm_since_s = None
            return False
        if self._calm_since_s is None:
            self._calm_since_s = now
        return now - self._calm_since_s >= self.hold_s
