"""Smoothed durations: what RFC 6298 says of samples, and when an estimate is no longer one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.clusters.estimate import STALE_AFTER_S, Estimate


def after(*samples_ms: float) -> Estimate:
    """An estimate after these samples, one a second, the last at second 0."""
    rtt = Estimate()
    for n, sample_ms in enumerate(samples_ms):
        rtt.observe(sample_ms / 1000, n + 1 - len(samples_ms))
    return rtt


@pytest.mark.parametrize(
    ("samples_ms", "srtt_ms", "rttvar_ms"),
    [
        pytest.param([100], 100, 50, id="the first sample is taken as it is, half of it as spread"),
        pytest.param([100, 100], 100, 37.5, id="steady samples shrink the spread by a quarter"),
        pytest.param([100, 180], 110, 57.5, id="a new sample counts an eighth"),
        pytest.param([100, 180, 30], 100, 63.125, id="the spread is moved by the old average"),
    ],
)
def test_is_smoothed_as_tcp_does(samples_ms: list[float], srtt_ms: float, rttvar_ms: float) -> None:
    rtt = after(*samples_ms)
    assert rtt.value(0) == pytest.approx(srtt_ms / 1000)
    assert rtt.spread(0) == pytest.approx(rttvar_ms / 1000)


def test_is_unknown_before_the_first_sample() -> None:
    assert (Estimate().value(0), Estimate().spread(0)) == (None, None)


@pytest.mark.parametrize(("age_s", "known"), [(STALE_AFTER_S, True), (STALE_AFTER_S + 0.001, False)])
def test_is_forgotten_when_nothing_confirms_it(age_s: float, known: bool) -> None:
    rtt = after(20)
    assert (rtt.value(age_s) is not None, rtt.spread(age_s) is not None) == (known, known)


def test_begins_anew_after_it_went_stale() -> None:
    rtt = after(20, 20, 20)
    rtt.observe(0.2, STALE_AFTER_S + 1)
    assert rtt.value(STALE_AFTER_S + 1) == 0.2


def test_refuses_a_clock_that_goes_back() -> None:
    with pytest.raises(ValueError, match="no time"):
        Estimate().observe(-0.001, 0)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_stays_between_the_smallest_and_the_largest_sample(samples_s: list[float]) -> None:
    rtt = Estimate()
    for sample_s in samples_s:
        rtt.observe(sample_s, 0)
    smoothed_s, spread_s = rtt.value(0), rtt.spread(0)
    assert smoothed_s is not None
    assert spread_s is not None
    assert min(samples_s) - 1e-9 <= smoothed_s <= max(samples_s) + 1e-9
    assert spread_s >= 0


def test_one_bad_sample_hardly_moves_it() -> None:
    steady, struck = after(*[20] * 20), after(*[20] * 20, 5000)
    assert struck.straying
    assert not steady.straying
    assert struck.value(0) == pytest.approx(0.0205)


def test_two_bad_samples_are_forgotten_by_a_good_one() -> None:
    assert after(*[20] * 20, 500, 500, 20, 500, 500).value(0) == pytest.approx(0.021, abs=0.004)


@pytest.mark.parametrize(("before_ms", "behind_ms"), [(20, 80), (80, 20), (200, 201.5), (1, 300)])
def test_a_path_that_changed_is_believed_after_three_samples(before_ms: float, behind_ms: float) -> None:
    estimate = after(*[before_ms] * 20, *[behind_ms] * 3)
    if behind_ms / before_ms > 1.2 or behind_ms < before_ms:
        assert estimate.value(0) == pytest.approx(behind_ms / 1000)
        assert estimate.spread(0) == 0
    else:  # too little to be anything but noise: smoothed
        assert before_ms < (estimate.value(0) or 0) * 1000 < behind_ms


def test_strays_on_both_sides_are_noise() -> None:
    estimate = after(*[20] * 20, 200, 1, 200, 1, 200, 1)
    assert 0.015 < (estimate.value(0) or 0) < 0.03


def test_is_worth_less_while_nothing_confirms_it() -> None:
    estimate = after(20, 22, 18, 20)
    spreads_s = [estimate.spread(age * STALE_AFTER_S) or 0 for age in (0, 0.5, 0.75, 1)]
    assert [each / spreads_s[0] for each in spreads_s] == pytest.approx([1, 1, 2, 3])
