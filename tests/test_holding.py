"""A condition that has to last before it holds, and to be gone for a while before it does not."""

import pytest

from edgecache.measures.holding import TRANSITIONS, Event, Holding, State

#: What is seen at each tenth of a second, and whether it holds then; it rises in 0.2 s and falls in 0.3 s.
TRACES = {
    "once is chance": ("x.....", "......"),
    "it has to be seen again and again": ("x.x.x.", "......"),
    "it lasts": ("xxx", "..h"),
    "gone for a moment": ("xxx.xx.x", "..hhhhhh"),
    "gone for long": ("xxx....", "..hhhh."),
    "and back again": ("xxx....xxx", "..hhhh...h"),
}


@pytest.mark.parametrize(("seen", "holds"), TRACES.values(), ids=TRACES)
def test_what_holds(seen: str, holds: str) -> None:
    holding = Holding(rise_s=0.2, fall_s=0.3)
    told = [holding.observe(each == "x", at / 10 + 1e-9 * at) for at, each in enumerate(seen)]
    assert "".join("h" if each else "." for each in told) == holds


def test_without_patience_it_follows_at_once() -> None:
    holding = Holding(0.0, 0.0)
    assert [holding.observe(each, 1.0) for each in (True, False, True)] == [True, False, True]


def test_it_knows_for_how_long_it_has_held() -> None:
    holding = Holding(0.0, 10.0)
    assert holding.lasted_s(5.0) == 0
    holding.observe(True, 5.0)
    holding.observe(False, 7.0)
    assert holding.lasted_s(9.0) == 4.0


def test_what_is_clear_or_holds_has_no_time_to_be_over() -> None:
    absent = {(state, event) for state in State for event in Event} - set(TRANSITIONS)
    assert absent == {(State.CLEAR, Event.LASTED), (State.HOLDS, Event.LASTED)}
