"""When something is late."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.clusters.recent import ENOUGH, KEPT, Recent


@pytest.mark.parametrize(
    ("samples", "late"),
    [
        pytest.param([0.1] * (ENOUGH - 1), None, id="too few to tell"),
        pytest.param([0.1] * ENOUGH, 0.1, id="all the same"),
        pytest.param([n / 100 for n in range(1, 101)], 0.95, id="all but five of a hundred"),
        pytest.param([9.0] * KEPT + [n / 100 for n in range(1, 101)], 0.95, id="only the last are remembered"),
        pytest.param([0.1] * 95 + [5.0] * 5, 0.1, id="what is rare does not move it"),
        pytest.param([0.1] * 90 + [5.0] * 10, 5.0, id="what is not rare does"),
    ],
)
def test_the_95th_percentile(samples: list[float], late: float | None) -> None:
    recent = Recent(300.0)
    for each in samples:
        recent.observe(each, 0.0)
    assert recent.beyond(0.05, 1.0) == (None if late is None else pytest.approx(late))


def test_what_is_long_ago_is_forgotten() -> None:
    recent = Recent(300.0)
    for _ in range(ENOUGH):
        recent.observe(0.1, 0.0)
    assert recent.beyond(0.05, 300.0) == 0.1
    assert recent.beyond(0.05, 300.1) is None


@given(st.lists(st.floats(0, 10), min_size=ENOUGH, max_size=KEPT))
def test_at_most_that_share_is_beyond(samples: list[float]) -> None:
    recent = Recent(300.0)
    for each in samples:
        recent.observe(each, 0.0)
    late_s = recent.beyond(0.05, 0.0)
    assert late_s is not None
    assert sum(each > late_s for each in samples) <= 0.05 * len(samples)
