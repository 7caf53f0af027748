"""When an upstream is left alone, for how long, and how it comes back."""

from itertools import product
from typing import get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgecache.clusters.cluster import HealthPolicy
from edgecache.clusters.health import MAX_WAIT_S, TRANSITIONS, Event, Health, Outcome, State, Ticket

POLICY = HealthPolicy(failures=3, ejected_s=2.0, ejected_max_s=60.0)
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


def tell(health: Health, outcome: Outcome, now: float) -> None:
    """Asks once, with this outcome."""
    ticket = health.admit(now)
    assert ticket is not None
    health.record(ticket, outcome, now)


def ejected(now: float = 0.0, failure: Outcome = Event.FAILED) -> Health:
    """An upstream ejected now, for the first time."""
    health = Health(POLICY)
    for _ in range(POLICY.failures):
        tell(health, failure, now)
    assert health.state is State.EJECTED
    return health


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        pytest.param("FFF", State.EJECTED, id="three failures in a row"),
        pytest.param("FF", State.UP, id="two are not enough"),
        pytest.param("FFSFF", State.UP, id="a success between clears them"),
        pytest.param("FPFPF", State.EJECTED, id="probes that answer don't hide requests that fail"),
        pytest.param("FAFAF", State.EJECTED, id="nor do orderly refusals"),
        pytest.param("FNFNF", State.EJECTED, id="nor what nobody waited for"),
        pytest.param("ppp", State.EJECTED, id="three probes in a row"),
        pytest.param("ppPpp", State.UP, id="a probe that answers clears the probes that did not"),
        pytest.param("ppSpp", State.UP, id="so does speech"),
        pytest.param("ppApp", State.UP, id="so does an orderly refusal"),
        pytest.param("FFpp", State.UP, id="probes and requests are counted apart"),
        pytest.param("AAAAAA", State.UP, id="refusing utterances is not being dead"),
    ],
)
def test_is_ejected_after_so_many_failures_in_a_row(outcomes: str, state: State) -> None:
    letters: dict[str, Outcome] = {
        "F": Event.FAILED,
        "S": Event.SUCCEEDED,
        "A": Event.ANSWERED,
        "P": Event.PROBE_OK,
        "p": Event.PROBE_FAILED,
        "N": Event.ABANDONED,
    }
    health = Health(POLICY)
    for each in outcomes:
        tell(health, letters[each], 0)
    assert health.state is state


def test_is_not_asked_until_it_has_cooled_down() -> None:
    health = ejected()
    assert (health.admit(1.99), health.standing(0.5).back_in_s) == (None, 1.5)
    assert health.standing(2.0) == health.standing(3.0)
    assert health.state is State.TRIAL


def test_comes_back_by_one_at_a_time() -> None:
    health = ejected()
    first = health.admit(2)
    assert first is not None
    assert health.admit(2) is None
    assert health.standing(2).back_in_s > 0
    health.record(first, Event.ABANDONED, 2.5)
    assert health.state is State.TRIAL
    second = health.admit(2.5)
    assert second is not None
    health.record(second, Event.SUCCEEDED, 3)
    assert (health.state, health.standing(3).back_in_s) == (State.UP, 0)


@pytest.mark.parametrize("failure", [Event.FAILED, Event.PROBE_FAILED])
def test_cools_down_twice_as_long_while_it_keeps_failing(failure: Outcome) -> None:
    health, now, waits_s = ejected(failure=failure), 0.0, []
    for _ in range(8):
        wait_s = health.standing(now).back_in_s
        waits_s.append(wait_s)
        now += wait_s
        tell(health, failure, now)
    assert waits_s == [2, 4, 8, 16, 32, 60, 60, 60]


def test_that_only_answers_probes_is_ejected_at_its_next_failure() -> None:
    health = ejected()
    tell(health, Event.PROBE_OK, 2)
    assert health.state is State.UP
    tell(health, Event.FAILED, 3)
    assert (health.state, health.standing(3).back_in_s) == (State.EJECTED, 4)


def test_that_speaks_again_has_a_clean_slate() -> None:
    health = ejected()
    tell(health, Event.SUCCEEDED, 2)
    for _ in range(2):
        tell(health, Event.FAILED, 3)
    assert health.state is State.UP
    tell(health, Event.FAILED, 3)
    assert health.standing(3).back_in_s == POLICY.ejected_s


@pytest.mark.parametrize(("up_for_s", "wait_s"), [(60, 4), (60.1, 2)])
def test_that_was_up_for_long_begins_with_the_short_cool_down(up_for_s: float, wait_s: float) -> None:
    health = ejected()
    tell(health, Event.PROBE_OK, 2)
    tell(health, Event.FAILED, 2 + up_for_s)
    assert health.standing(2 + up_for_s).back_in_s == pytest.approx(wait_s)


@pytest.mark.parametrize("late", OUTCOMES, ids=lambda each: each.value)
def test_late_news_from_before_the_ejection_changes_nothing(late: Outcome) -> None:
    health = Health(POLICY)
    slow = health.admit(0)
    assert slow is not None
    for _ in range(3):
        tell(health, Event.FAILED, 0)
    before = (health.state, health.standing(1))
    health.record(slow, late, 1)
    assert (health.state, health.standing(1)) == before
    trial = health.admit(2)
    health.record(slow, late, 2)
    assert (health.state, health.admit(2)) == (State.TRIAL, None), "the trial is still someone else's"
    assert trial is not None


@pytest.mark.parametrize(
    ("asked_s", "waits_s"), [(5, 5), (0, 0), (-3, 0), (3600, MAX_WAIT_S)], ids=["as asked", "none", "past", "bounded"]
)
def test_that_asks_for_patience_is_not_asked_but_not_dead(asked_s: float, waits_s: float) -> None:
    health = Health(POLICY)
    health.told_to_wait(asked_s, 10)
    assert (health.state, health.standing(10).back_in_s) == (State.UP, waits_s)
    assert health.standing(10 + MAX_WAIT_S).back_in_s == 0
    assert health.admit(10) is not None, "it may still be probed"


def test_that_asks_twice_is_left_alone_for_the_longer() -> None:
    health = Health(POLICY)
    health.told_to_wait(30, 0)
    health.told_to_wait(1, 1)
    assert health.standing(1).back_in_s == 29


OFTEN = HealthPolicy(failures=100, error_rate=0.5, error_requests=10, error_window_s=10.0, slow_start_s=10.0)


def half_failing(*, others_up: bool, every_s: float = 0.1, requests: int = 40, policy: HealthPolicy = OFTEN) -> Health:
    health = Health(policy)
    for number in range(requests):
        ticket = health.admit(number * every_s)
        if ticket is None:
            break
        outcome: Outcome = Event.FAILED if number % 2 else Event.SUCCEEDED
        health.record(ticket, outcome, number * every_s, others_up=others_up)
    return health


@pytest.mark.parametrize(
    ("health", "state"),
    [
        pytest.param(half_failing(others_up=True), State.EJECTED, id="half of them"),
        pytest.param(half_failing(others_up=False), State.UP, id="but there is no other"),
        pytest.param(half_failing(others_up=True, requests=8), State.UP, id="too few to tell"),
        pytest.param(half_failing(others_up=True, every_s=5), State.UP, id="too long ago to tell"),
        pytest.param(half_failing(others_up=True, policy=HealthPolicy(failures=100, error_rate=1)), State.UP, id="off"),
    ],
)
def test_that_often_fails_is_ejected_if_enough_others_are_up(health: Health, state: State) -> None:
    assert health.state is state


def test_that_comes_back_is_given_its_load_little_by_little() -> None:
    health = ejected()
    assert Health(POLICY).warmth(0) == 1, "at the start nothing was lost"
    tell(health, Event.PROBE_OK, 2)
    warmths = [health.warmth(2 + at_s) for at_s in (0, 5, 9.99, 10, 100)]
    assert warmths == pytest.approx([0.1, 0.55, 0.9991, 1, 1])


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)), ids=lambda each: each.value)
def test_every_pair_is_a_transition_or_cannot_happen(state: State, event: Event) -> None:
    impossible = {
        *((State.EJECTED, each) for each in Event if each is not Event.COOLED),  # nobody holds a ticket of that epoch
        (State.UP, Event.COOLED),
        (State.TRIAL, Event.COOLED),
        (State.TRIAL, Event.FAILED),  # always one too many
        (State.TRIAL, Event.PROBE_FAILED),
    }
    assert ((state, event) in TRANSITIONS) != ((state, event) in impossible)


class Life(RuleBasedStateMachine):
    """Any order of events: no pair is missing, trials are single, cool-downs are within the policy."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.health = Health(POLICY)
        self.open: list[tuple[Ticket, State]] = []

    @rule(by_s=st.floats(0, 70))
    def time_passes(self, by_s: float) -> None:
        self.now += by_s

    @rule()
    def admit(self) -> None:
        ticket = self.health.admit(self.now)
        assert (ticket is None) == (
            self.health.state is State.EJECTED
            or (
                any(state is State.TRIAL and each.epoch == self.health._epoch for each, state in self.open)
                and self.health.state is State.TRIAL
            )
        )
        if ticket is not None:
            self.open.append((ticket, self.health.state))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 100), outcome=st.sampled_from(OUTCOMES))
    def record(self, which: int, outcome: Outcome) -> None:
        ticket, _ = self.open.pop(which % len(self.open))
        self.health.record(ticket, outcome, self.now)

    @rule(wait_s=st.floats(-5, 500))
    def told_to_wait(self, wait_s: float) -> None:
        self.health.told_to_wait(wait_s, self.now)

    @invariant()
    def is_never_away_for_longer_than_the_policy_says(self) -> None:
        assert 0 <= self.health.standing(self.now).back_in_s <= POLICY.ejected_max_s + 1e-6


Life.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestLife = Life.TestCase
