"""The breaker in front of Redis, as a machine."""

import pytest

from edgecache.store.breaker import TRANSITIONS, Breaker, BreakerEvent, BreakerState


@pytest.mark.parametrize(("state", "event"), [(state, event) for state in BreakerState for event in BreakerEvent])
def test_the_breaker_has_these_transitions_and_no_others(state: BreakerState, event: BreakerEvent) -> None:
    expected = {
        ("closed", "trip"): "open",
        ("open", "probe"): "half_open",
        ("half_open", "answer"): "closed",
        ("half_open", "fault"): "open",
    }
    after = TRANSITIONS.get((state, event))
    assert (after.value if after else None) == expected.get((state.value, event.value))


def opened(at: float) -> Breaker:
    breaker = Breaker(failures=3, open_s=1.0)
    for _ in range(3):
        permit = breaker.admit(at)
        assert permit is not None
        breaker.failed(permit, at)
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_only_faults_in_a_row_open_the_breaker() -> None:
    breaker = Breaker(failures=3, open_s=1.0)
    for n in range(20):
        permit = breaker.admit(0.0)
        assert permit is not None
        if n % 3 == 2:
            breaker.answered(permit)
        else:
            breaker.failed(permit, 0.0)
    assert breaker.state is BreakerState.CLOSED


def test_questions_that_fail_together_are_one_fault() -> None:
    breaker = Breaker(failures=3, open_s=1.0)
    for n in range(1, 4):
        permits = [breaker.admit(0.0) for _ in range(100)]
        for permit in permits:
            assert permit is not None
            breaker.failed(permit, 0.0)
        assert breaker.faults_in_a_row == n
    assert breaker.state is BreakerState.OPEN


def test_an_open_breaker_lets_one_probe_through_after_a_while() -> None:
    breaker = opened(at=10.0)
    assert breaker.admit(10.9) is None
    probe = breaker.admit(11.0)
    assert probe is not None
    assert breaker.admit(11.0) is None
    breaker.failed(probe, 11.5)
    assert breaker.admit(12.4) is None
    probe = breaker.admit(12.5)
    assert probe is not None
    breaker.answered(probe)
    assert breaker.state is BreakerState.CLOSED


def test_a_late_outcome_is_not_the_probes() -> None:
    breaker = Breaker(failures=1, open_s=1.0)
    early, late = breaker.admit(0.0), breaker.admit(0.0)
    assert early is not None
    assert late is not None
    breaker.failed(early, 0.0)
    probe = breaker.admit(1.0)
    assert probe is not None
    breaker.answered(late)
    assert repr(breaker) == "<Breaker half_open, 1 faults in a row>"
    breaker.answered(probe)
    breaker.failed(late, 1.0)
    assert breaker.state is BreakerState.CLOSED
