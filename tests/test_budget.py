"""What may be spent on asking again: never more than a share of what was asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.fill.budget import Budget


def test_a_tenth_of_fills_and_no_more() -> None:
    budget = Budget(0.1, burst=1.0, per_second=0.0)
    spent = 0
    for _ in range(1000):
        budget.earn(0.0)
        spent += budget.spend(0.0)
    assert spent == budget.spent
    assert 100 <= spent <= 101
    assert budget.refused == 1000 - spent


@pytest.mark.parametrize(
    ("share", "passes_s", "may"),
    [
        pytest.param(0.1, 0.0, 10, id="at once, what the bucket holds"),
        pytest.param(0.1, 3.0, 13, id="and one for each second"),
        pytest.param(0.0, 100.0, 0, id="a share of nothing is none"),
    ],
)
def test_what_a_quiet_edge_may_spend(share: float, passes_s: float, may: int) -> None:
    budget = Budget(share)
    spent = sum(budget.spend(0.0) for _ in range(30))
    spent += sum(budget.spend(passes_s) for _ in range(30))
    assert spent == may


def test_what_was_not_needed_may_be_spent_again() -> None:
    budget = Budget(0.1, burst=1.0, per_second=0.0)
    assert budget.spend(0.0)
    budget.give_back()
    assert (budget.spend(0.0), budget.spend(0.0), budget.spent) == (True, False, 1)


steps = st.lists(st.tuples(st.sampled_from(["earn", "spend", "give back"]), st.floats(0, 2)), max_size=200)


@given(st.floats(0, 1), st.floats(0, 20), st.floats(0, 3), steps)
def test_is_never_exceeded(share: float, burst: float, per_second: float, given_steps: list[tuple[str, float]]) -> None:
    budget, now, earned, spent = Budget(share, burst, per_second), 100.0, 0, 0
    for what, later_s in given_steps:
        now += later_s
        if what == "earn":
            budget.earn(now)
            earned += 1
        elif what == "spend":
            spent += budget.spend(now)
        elif spent:
            budget.give_back()
            spent -= 1
        assert spent == budget.spent
        assert spent <= burst + share * earned + per_second * (now - 100.0) + 1e-6
