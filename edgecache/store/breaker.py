"""Whether Redis is to be asked at all, from how its last answers went. Pure.

Keeps rule 6: after some faults in a row Redis is left alone for a while; then one single question finds out whether it is
back. It does not know Redis, only answers and faults.

An outcome counts only for the state in which its question was admitted. So a fault that arrives late can neither open a
breaker that has closed again, nor be taken for the probe's. And faults are in a row only if each question was asked after
the fault before it: a hundred questions that fail together are one fault, for they tell no more than one.
"""

from enum import Enum
from typing import NamedTuple


class Permit(NamedTuple):
    """Leave to ask once; its outcome is told with it. change, fault: how far the breaker was."""

    change: int
    fault: int


class BreakerState(Enum):
    """Closed: every question is let through. Open: none. Half-open: one is on its way."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerEvent(Enum):
    """What moves the breaker."""

    TRIP = "trip"
    PROBE = "probe"
    ANSWER = "answer"
    FAULT = "fault"


TRANSITIONS: dict[tuple[BreakerState, BreakerEvent], BreakerState] = {
    (BreakerState.CLOSED, BreakerEvent.TRIP): BreakerState.OPEN,
    (BreakerState.OPEN, BreakerEvent.PROBE): BreakerState.HALF_OPEN,
    (BreakerState.HALF_OPEN, BreakerEvent.ANSWER): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, BreakerEvent.FAULT): BreakerState.OPEN,
}


class Breaker:
    """One breaker. failures: faults in a row that open it. open_s: how long it stays open before a probe."""

    __slots__ = ("_changes", "_failures", "_open_s", "_opened_at", "faults_in_a_row", "standing", "state")

    def __init__(self, failures: int, open_s: float) -> None:
        self._failures = failures
        self._open_s = open_s
        self._opened_at = 0.0
        self._changes = 0
        self.state = BreakerState.CLOSED
        self.faults_in_a_row = 0
        #: What everybody gets while it is closed; None: `admit` says.
        self.standing: Permit | None = Permit(0, 0)

    def __repr__(self) -> str:
        return f"<Breaker {self.state.value}, {self.faults_in_a_row} faults in a row>"

    @property
    def steady(self) -> bool:
        """Closed, and the last answer was none of the faults."""
        return self.state is BreakerState.CLOSED and not self.faults_in_a_row

    def admit(self, now: float) -> Permit | None:
        """Leave to ask, or None: don't. Whoever gets a permit tells `answered` or `failed` in the end."""
        if self.standing is not None:
            return self.standing
        if self.state is BreakerState.OPEN and now - self._opened_at >= self._open_s:
            self._move(BreakerEvent.PROBE)
        else:
            return None
        return Permit(self._changes, self.faults_in_a_row)

    def answered(self, permit: Permit) -> None:
        """Redis answered."""
        if permit.change != self._changes or self.steady:
            return
        self.faults_in_a_row = 0
        if self.state is BreakerState.HALF_OPEN:
            self._move(BreakerEvent.ANSWER)
        self._stand()

    def failed(self, permit: Permit, now: float) -> None:
        """Redis did not answer, or nothing of use."""
        if permit.change != self._changes or permit.fault < self.faults_in_a_row:
            return
        self.faults_in_a_row += 1
        if self.state is BreakerState.HALF_OPEN:
            self._move(BreakerEvent.FAULT)
            self._opened_at = now
        elif self.faults_in_a_row >= self._failures:
            self._move(BreakerEvent.TRIP)
            self._opened_at = now
        self._stand()

    def _stand(self) -> None:
        self.standing = Permit(self._changes, self.faults_in_a_row) if self.state is BreakerState.CLOSED else None

    def _move(self, event: BreakerEvent) -> None:
        self.state = TRANSITIONS[self.state, event]
        self._changes += 1
