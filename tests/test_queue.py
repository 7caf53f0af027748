"""Who waits for room, who is next, and who is sent away."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgecache.fill.priority import Priority
from edgecache.fill.queue import MAX_RETRY_S, Enter, Pace, Place, Queue, SendAway

NOW, LATER, SOON, WARM = Priority.INTERACTIVE, Priority.PREFETCH, Priority.LOOK_AHEAD, Priority.WARM_UP


def test_the_more_urgent_then_the_sooner_deadline_then_who_came_first() -> None:
    queue = Queue(10)
    places = {
        "warm": Place(WARM, 1.0, 1),
        "later": Place(LATER, 1.0, 2),
        "late": Place(NOW, 9.0, 3),
        "second": Place(NOW, 5.0, 5),
        "first": Place(NOW, 5.0, 4),
        "ahead": Place(SOON, 1.0, 6),
    }
    for each in places.values():
        queue.enter(each)
    named = {id(place): name for name, place in places.items()}
    assert [named[id(each)] for each in queue] == ["first", "second", "late", "ahead", "later", "warm"]
    queue.hurry(places["warm"], NOW, 1.0)
    assert next(iter(queue)) is places["warm"]
    assert queue.by_priority() == {"interactive": 4, "look-ahead": 1, "prefetch": 1, "warm-up": 0}


def filled(*priorities: Priority, most: int, between_s: float | None = None) -> Queue:
    queue = Queue(most, Pace(between_s))
    for number, each in enumerate(priorities):
        queue.enter(Place(each, 10.0, number))
    return queue


@pytest.mark.parametrize(
    ("queue", "place", "becomes"),
    [
        pytest.param(filled(most=1), Place(WARM, 12.0, 9), Enter(), id="there is room to wait"),
        pytest.param(filled(NOW, most=1), Place(NOW, 20.0, 9), SendAway(1.0), id="all ahead are as urgent"),
        pytest.param(filled(NOW, NOW, most=5, between_s=1.0), Place(NOW, 12.0, 9), SendAway(1.0), id="not in time"),
        pytest.param(filled(NOW, NOW, most=5, between_s=1.0), Place(NOW, 13.0, 9), Enter(), id="just in time"),
        pytest.param(
            filled(*[NOW] * 4, most=4, between_s=5.0), Place(NOW, 12.0, 9), SendAway(23.0), id="an honest wait"
        ),
        pytest.param(
            filled(*[NOW] * 99, most=99, between_s=5.0), Place(NOW, 11.0, 9), SendAway(MAX_RETRY_S), id="bound"
        ),
        pytest.param(filled(most=0), Place(NOW, 11.0, 9), SendAway(1.0), id="nobody may wait"),
    ],
)
def test_who_may_wait(queue: Queue, place: Place, becomes: object) -> None:
    assert queue.ask(place, 10.0) == becomes


def test_the_least_urgent_leaves_for_one_that_is_more_urgent() -> None:
    queue = filled(LATER, WARM, most=2)
    *_, last = queue
    assert queue.ask(Place(NOW, 20.0, 9), 10.0) == Enter(last)
    assert len(queue) == 2, "asking changes nothing"


def test_the_pace_is_of_times_when_someone_waits() -> None:
    pace = Pace()
    assert pace.until_s(5) == 0.0, "nobody knows yet"
    for at_s, wanted in ((0.0, True), (0.5, True), (1.0, True), (90.0, False), (100.0, True), (100.5, True)):
        pace.freed(at_s, wanted=wanted)
    assert pace.between_s == pytest.approx(0.5)
    assert pace.until_s(3) == pytest.approx(2.0)


@given(st.lists(st.tuples(st.sampled_from(Priority), st.floats(0, 100)), max_size=40))
def test_the_order_is_that_of_urgency_and_then_of_deadlines(given_places: list[tuple[Priority, float]]) -> None:
    queue = Queue(100)
    for number, (priority, deadline_s) in enumerate(given_places):
        queue.enter(Place(priority, deadline_s, number))
    orders = [(each.priority, each.deadline_s, each.number) for each in queue]
    assert orders == sorted(orders)
    assert len(orders) == len(given_places)


class Life(RuleBasedStateMachine):
    """Any coming and going: the bound holds, the order holds, and nobody is sent away for one that is less urgent."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue(3, Pace(0.5))
        self.number = 0

    @rule(priority=st.sampled_from(Priority), patience_s=st.floats(0, 5))
    def comes(self, priority: Priority, patience_s: float) -> None:
        self.number += 1
        place = Place(priority, 10.0 + patience_s, self.number)
        match self.queue.ask(place, 10.0):
            case Enter(instead):
                if instead is not None:
                    assert instead.order > place.order
                    self.queue.leave(instead)
                self.queue.enter(place)
            case SendAway(retry_after_s):
                assert 1 <= retry_after_s <= MAX_RETRY_S

    @precondition(lambda self: len(self.queue) > 0)
    @rule(which=st.integers(0, 9), priority=st.sampled_from(Priority))
    def hurries(self, which: int, priority: Priority) -> None:
        places = list(self.queue)
        self.queue.hurry(places[which % len(places)], priority, 10.0)

    @precondition(lambda self: len(self.queue) > 0)
    @rule(which=st.integers(0, 9))
    def leaves(self, which: int) -> None:
        places = list(self.queue)
        self.queue.leave(places[which % len(places)])

    @invariant()
    def holds(self) -> None:
        assert len(self.queue) <= 3
        orders = [each.order for each in self.queue]
        assert orders == sorted(orders)


Life.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestLife = Life.TestCase
