"""Whether an upstream may be asked: a circuit breaker that tells probes from requests. Pure.

Keeps: an upstream that fails `failures` times in a row is left alone for a cool-down that doubles while it keeps
failing, and so is one that fails often while enough others are up; it comes back by one probe or one request at a time,
and is then given its load little by little; a probe's word counts for less than a request's; being told to wait is not
being dead. It does not know what a request is, nor a clock: every method is handed a monotonic `now`.

Theory. Whoever asks an upstream first gets a `Ticket`. A ticket is of one epoch, and each ejection begins a new epoch,
so that late news of what was asked before an ejection changes nothing after it. Requests and probes are counted apart:
`strikes` are cleared only by a request that succeeds, so an upstream whose probes answer while its requests fail is
ejected again at its first failure.
"""

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import msgspec

from edgecache.clusters.cluster import HealthPolicy

#: An upstream that asks for more patience than this is asked again all the same.
MAX_WAIT_S = 60.0
#: What an upstream that came back is given at first, of what it may be asked.
LEAST_WARMTH = 0.1
#: When an upstream is on trial and the one ticket is taken, it is worth asking again after this.
TRIAL_TAKEN_S = 1.0


class State(Enum):
    """How an upstream stands."""

    __hash__ = object.__hash__  # without a call: a table is looked at for each

    UP = "up"
    EJECTED = "ejected"  # left alone until it has cooled down
    TRIAL = "trial"  # cooled down; one probe or request decides


class Event(Enum):
    """What happened to it. The first six are outcomes of a ticket, as they are recorded."""

    __hash__ = object.__hash__  # without a call: a table is looked at for each

    SUCCEEDED = "succeeded"  # a request ended well
    FAILED = "failed"  # a request failed by the upstream's fault
    ANSWERED = "answered"  # a request was turned down in good order: alive, but no proof that it can speak
    PROBE_OK = "probe ok"
    PROBE_FAILED = "probe failed"
    ABANDONED = "abandoned"  # nobody waited for the outcome
    STRUCK_OUT = "struck out"  # one failure too many
    COOLED = "cooled"  # the cool-down is over


Outcome = Literal[Event.SUCCEEDED, Event.FAILED, Event.ANSWERED, Event.PROBE_OK, Event.PROBE_FAILED, Event.ABANDONED]

#: An ejected upstream has no tickets of its epoch, so nothing but time can happen to it; a failure on trial is always
#: one too many.
TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.UP, Event.SUCCEEDED): State.UP,
    (State.UP, Event.FAILED): State.UP,
    (State.UP, Event.ANSWERED): State.UP,
    (State.UP, Event.PROBE_OK): State.UP,
    (State.UP, Event.PROBE_FAILED): State.UP,
    (State.UP, Event.ABANDONED): State.UP,
    (State.UP, Event.STRUCK_OUT): State.EJECTED,
    (State.EJECTED, Event.COOLED): State.TRIAL,
    (State.TRIAL, Event.SUCCEEDED): State.UP,
    (State.TRIAL, Event.ANSWERED): State.UP,
    (State.TRIAL, Event.PROBE_OK): State.UP,
    (State.TRIAL, Event.ABANDONED): State.TRIAL,
    (State.TRIAL, Event.STRUCK_OUT): State.EJECTED,
}


class Ticket(msgspec.Struct, frozen=True):
    """Leave to ask once; its outcome is recorded once."""

    epoch: int


class Standing(msgspec.Struct, frozen=True):
    """What selection needs to know. back_in_s: 0 when it may be asked now."""

    state: State
    back_in_s: float = 0.0


#: How most stand, most of the time.
WELL = Standing(State.UP)


@dataclass(slots=True)
class Lately:
    """How many requests there were, and how many failed; each counts for less the longer it is ago."""

    window_s: float
    requests: float = 0.0
    failed: float = 0.0
    _at_s: float = 0.0

    def add(self, now: float, *, failed: bool) -> None:
        """One more request."""
        self._fade(now)
        self.requests += 1
        self.failed += failed

    def rate(self, now: float) -> float:
        """The share that failed; 0 when there were none."""
        self._fade(now)
        return self.failed / self.requests if self.requests else 0.0

    def clear(self) -> None:
        """As if there had been none."""
        self.requests = self.failed = 0.0

    def _fade(self, now: float) -> None:
        left = math.exp(-max(0.0, now - self._at_s) / self.window_s)
        self.requests, self.failed, self._at_s = self.requests * left, self.failed * left, now


@dataclass(slots=True)
class Health:
    """One upstream's health."""

    policy: HealthPolicy
    state: State = State.UP
    strikes: int = 0  # requests that failed since one succeeded
    missed: int = 0  # probes that failed in a row
    _doublings: int = 0  # how often it was ejected again since it was well
    _epoch: int = 0
    _trial_taken: bool = False
    _until_s: float = 0.0  # EJECTED: when it has cooled down
    _up_since_s: float | None = None  # None: since the start
    _wait_until_s: float | None = None
    lately: Lately = field(init=False)

    def __post_init__(self) -> None:
        self.lately = Lately(self.policy.error_window_s)

    def warmth(self, now: float) -> float:
        """Which share of its load it is given: less than 1 for a while after it came back."""
        ramp_s = self.policy.slow_start_s
        if self._up_since_s is None or self.state is not State.UP or now - self._up_since_s >= ramp_s:
            return 1.0
        return LEAST_WARMTH + (1 - LEAST_WARMTH) * (now - self._up_since_s) / ramp_s

    def standing(self, now: float) -> Standing:
        """Whether it may be asked for speech now, and if not, when."""
        if self.state is State.UP and self._wait_until_s is None:
            return WELL
        self._cool(now)
        wait_s = max(0.0, self._wait_until_s - now) if self._wait_until_s is not None else 0.0
        match self.state:
            case State.EJECTED:
                return Standing(State.EJECTED, max(self._until_s - now, wait_s))
            case State.TRIAL if self._trial_taken:
                return Standing(State.TRIAL, max(TRIAL_TAKEN_S, wait_s))
            case _:
                return Standing(self.state, wait_s)

    def admit(self, now: float) -> Ticket | None:
        """Leave to ask or to probe it once; None: it is ejected, or its one trial is under way."""
        self._cool(now)
        if self.state is State.EJECTED or self._trial_taken:
            return None
        self._trial_taken = self.state is State.TRIAL
        return Ticket(self._epoch)

    def record(self, ticket: Ticket, outcome: Outcome, now: float, *, others_up: bool = False) -> None:
        """What came of a ticket. Late news of an earlier epoch is no news.

        others_up: whether enough others are up for this one to be spared. Without them failing often is no reason to
        ask nobody; failing always is.
        """
        if ticket.epoch != self._epoch:
            return
        on_trial = self.state is State.TRIAL
        self._count(outcome, now)
        if on_trial:
            self._trial_taken = False
        failed = outcome in (Event.FAILED, Event.PROBE_FAILED)
        struck_out = max(self.strikes, self.missed) >= self.policy.failures
        if failed and (on_trial or struck_out or (others_up and self._fails_often(now))):
            self._eject(now)
            return
        self.state = TRANSITIONS[self.state, outcome]
        if on_trial and self.state is State.UP:
            self._up_since_s = now

    def told_to_wait(self, wait_s: float, now: float) -> None:
        """It asked for patience (Retry-After): it is alive, but not to be asked for speech until then."""
        until_s = now + min(max(wait_s, 0.0), MAX_WAIT_S)
        self._wait_until_s = until_s if self._wait_until_s is None else max(self._wait_until_s, until_s)

    def _fails_often(self, now: float) -> bool:
        policy, rate = self.policy, self.lately.rate(now)
        return policy.error_rate < 1 and rate >= policy.error_rate and self.lately.requests >= policy.error_requests

    def _count(self, outcome: Outcome, now: float) -> None:
        if outcome in (Event.SUCCEEDED, Event.FAILED):
            self.lately.add(now, failed=outcome is Event.FAILED)
        match outcome:
            case Event.SUCCEEDED:
                self.strikes = self.missed = self._doublings = 0
            case Event.FAILED:
                self.strikes += 1
            case Event.PROBE_FAILED:
                self.missed += 1
            case Event.PROBE_OK | Event.ANSWERED:
                self.missed = 0
            case Event.ABANDONED:
                pass

    def _eject(self, now: float) -> None:
        # Having been up for longer than the longest cool-down, it starts again with the shortest.
        if self._up_since_s is not None and now - self._up_since_s > self.policy.ejected_max_s:
            self._doublings = 0
        self.state = TRANSITIONS[self.state, Event.STRUCK_OUT]
        cool_down_s = min(self.policy.ejected_s * 2 ** min(self._doublings, 30), self.policy.ejected_max_s)
        self._until_s = now + cool_down_s
        self._doublings += 1
        self._epoch += 1
        self.lately.clear()

    def _cool(self, now: float) -> None:
        if self.state is State.EJECTED and now >= self._until_s:
            self.state = TRANSITIONS[self.state, Event.COOLED]
            self._trial_taken = False
