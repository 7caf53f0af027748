"""Histograms on the ladder: quantiles within the stated error, sums over workers, and exact counts at what is shown."""

from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.measures.ladder import BOUNDS_S, RELATIVE_ERROR, SHOWN_S, Spread, merged, place

#: Between the ends of the ladder; beyond them the end itself is told.
times = st.floats(BOUNDS_S[0], BOUNDS_S[-1], exclude_min=True)
shares = st.sampled_from([0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0])


def spread(values: list[float]) -> Spread:
    made = Spread()
    for value in values:
        made.add(value)
    return made


def exact(values: list[float], share: float) -> float:
    return sorted(values)[max(1, ceil(share * len(values))) - 1]


def test_the_ladder_is_fine_enough_and_not_long() -> None:
    widest = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)

    assert all(low < high <= low * widest * (1 + 1e-12) for low, high in pairwise(BOUNDS_S))
    assert set(SHOWN_S) | {0.02, 0.15} <= set(BOUNDS_S)
    assert len(BOUNDS_S) < 450


@given(st.lists(times, min_size=1), shares)
def test_a_quantile_is_within_the_stated_error(values: list[float], share: float) -> None:
    told, true = spread(values).quantile(share), exact(values, share)

    assert told is not None
    assert abs(told - true) <= RELATIVE_ERROR * true * (1 + 1e-9)


@given(st.lists(st.lists(times), max_size=5), shares)
def test_workers_add_up_to_what_one_would_have_counted(workers: list[list[float]], share: float) -> None:
    together = [value for values in workers for value in values]
    whole = merged(spread(values) for values in workers)

    assert whole.buckets == spread(together).buckets
    assert whole.total_s == pytest.approx(sum(together))
    assert whole.quantile(share) == spread(together).quantile(share)


@given(st.lists(st.floats(0, 1000)), st.sampled_from(SHOWN_S))
def test_what_is_shown_is_counted_exactly(values: list[float], bound: float) -> None:
    assert spread(values).within(bound) == sum(value <= bound for value in values)


@given(st.lists(times), st.floats(0.001, 10))
def test_elsewhere_none_too_many_is_called_good(values: list[float], limit: float) -> None:
    counted = spread(values).within(limit)

    assert counted <= sum(value <= limit for value in values)
    assert counted >= sum(value <= limit * (1 - 2.1 * RELATIVE_ERROR) for value in values)


@given(st.lists(times), st.lists(times))
def test_what_came_since_is_the_difference(before: list[float], after: list[float]) -> None:
    assert spread(before + after).since(spread(before)).buckets == spread(after).buckets


@pytest.mark.parametrize(("value", "told"), [(0.0, BOUNDS_S[0]), (1e9, BOUNDS_S[-1])])
def test_beyond_the_ladder_its_end_is_told(value: float, told: float) -> None:
    assert spread([value]).quantile(0.5) == told
    assert 0 <= place(value) <= len(BOUNDS_S)


def test_of_nothing_there_is_no_quantile() -> None:
    assert Spread().quantile(0.99) is None
