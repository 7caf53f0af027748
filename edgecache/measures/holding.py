"""Whether something holds, told without fluttering: it has to be seen for a while, and to be gone for a while. Pure.

What is seen once may be chance, and what is gone for a moment will be back. Whoever observes says what is seen.
"""

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """How far it is."""

    __hash__ = object.__hash__  # without a call: a table is looked at for each

    CLEAR = "clear"
    SUSPECTED = "suspected"  # seen, but not for long enough
    HOLDS = "holds"
    EASING = "easing"  # gone, but not for long enough: it still holds


class Event(Enum):
    """What was observed; or that the state has lasted for its time."""

    __hash__ = object.__hash__  # without a call: a table is looked at for each

    SEEN = "seen"
    GONE = "gone"
    LASTED = "lasted"


#: What is clear, or holds, is so for any time: neither can have lasted.
TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.CLEAR, Event.SEEN): State.SUSPECTED,
    (State.CLEAR, Event.GONE): State.CLEAR,
    (State.SUSPECTED, Event.SEEN): State.SUSPECTED,
    (State.SUSPECTED, Event.GONE): State.CLEAR,
    (State.SUSPECTED, Event.LASTED): State.HOLDS,
    (State.HOLDS, Event.SEEN): State.HOLDS,
    (State.HOLDS, Event.GONE): State.EASING,
    (State.EASING, Event.SEEN): State.HOLDS,
    (State.EASING, Event.GONE): State.EASING,
    (State.EASING, Event.LASTED): State.CLEAR,
}


@dataclass(slots=True)
class Holding:
    """One condition. rise_s: seen for so long, it holds; fall_s: gone for so long, it holds no more."""

    rise_s: float
    fall_s: float
    state: State = State.CLEAR
    #: Since when it is in this state.
    _since_s: float = 0.0
    #: Since when it holds.
    _held_since_s: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether it does."""
        return self.state in (State.HOLDS, State.EASING)

    def observe(self, seen: bool, now: float) -> bool:
        """Whether it holds, with what is seen now."""
        if not seen and self.state is State.CLEAR:  # as the table has it; nearly always so
            return False
        self._move(Event.SEEN if seen else Event.GONE, now)
        needed_s = {State.SUSPECTED: self.rise_s, State.EASING: self.fall_s}.get(self.state)
        if needed_s is not None and now - self._since_s >= needed_s:
            self._move(Event.LASTED, now)
        return self.holds

    def lasted_s(self, now: float) -> float:
        """For how long it has held; 0 if it does not."""
        return now - self._held_since_s if self.holds else 0.0

    def _move(self, event: Event, now: float) -> None:
        before, self.state = self.state, TRANSITIONS[self.state, event]
        if self.state is not before:
            self._since_s = now
            if before is State.SUSPECTED:
                self._held_since_s = now
