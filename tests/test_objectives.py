"""Promises: thresholds, states that do not flutter, windows by a passed-in now, and who is judged by which events."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.measures.ladder import Spread
from edgecache.ops.families import PREFIX
from edgecache.ops.gathering import Counts, Figure, Name
from edgecache.ops.objectives import TRANSITIONS, Event, Measured, Promises, Standing, State
from edgecache.ops.promises import SPANS_S, Row, Watch, burning
from edgecache.ops.windows import MARKS, Window

STEPS = (0.1, 0.25, 0.5)
PLENTY = (1000, 1000, 1000)


def measured(value: float | None, total: int = 1000, beyond: tuple[int, int, int] = PLENTY) -> Measured:
    return Measured(value, 0, total, beyond)


class Seen(NamedTuple):
    """At this time this value was measured, and then the state was this."""

    at_s: float
    value: float
    state: State


STORIES = {
    "up at once, wherever the value is": [Seen(0, 0.05, State.MET), Seen(5, 0.6, State.CRITICAL)],
    "on the threshold is past it": [
        Seen(0, 0.1, State.MISSED),
        Seen(5, 0.25, State.WARNING),
        Seen(9, 0.5, State.CRITICAL),
    ],
    "down a step at a time, after a while": [
        *(Seen(0, 0.6, State.CRITICAL), Seen(5, 0.05, State.CRITICAL), Seen(64, 0.05, State.CRITICAL)),
        *(Seen(65, 0.05, State.WARNING), Seen(120, 0.05, State.WARNING), Seen(125, 0.05, State.MISSED)),
        *(Seen(185, 0.05, State.MET),),
    ],
    "just below a threshold is not well below it": [
        *(Seen(0, 0.3, State.WARNING), Seen(5, 0.24, State.WARNING), Seen(500, 0.24, State.WARNING)),
        *(Seen(505, 0.22, State.WARNING), Seen(565, 0.22, State.MISSED)),
    ],
    "a relapse begins the wait anew": [
        *(Seen(0, 0.3, State.WARNING), Seen(5, 0.05, State.WARNING), Seen(60, 0.3, State.WARNING)),
        *(Seen(65, 0.05, State.WARNING), Seen(124, 0.05, State.WARNING), Seen(125, 0.05, State.MISSED)),
    ],
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_states_follow_and_do_not_flutter(story: list[Seen]) -> None:
    standing = Standing(STEPS, least_events=30, hold_s=60.0)

    assert [standing.observe(measured(seen.value), seen.at_s) for seen in story] == [seen.state for seen in story]


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_pair_is_decided_but_easing_what_is_well(state: State, event: Event) -> None:
    nothing_to_ease = event is Event.EASED and state in (State.UNKNOWN, State.MET)
    assert ((state, event) in TRANSITIONS) is not nothing_to_ease


def test_too_few_events_say_nothing_and_one_is_chance() -> None:
    standing = Standing(STEPS, least_events=30, hold_s=60.0)

    assert standing.observe(measured(9.0, total=29), 0) is State.UNKNOWN
    assert standing.observe(measured(9.0, total=30, beyond=(1, 1, 1)), 1) is State.MET
    assert standing.observe(measured(9.0, total=30, beyond=(2, 2, 1)), 2) is State.WARNING
    assert standing.observe(measured(None, total=0), 3) is State.UNKNOWN


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1)), max_size=50))
def test_any_story_can_be_told(story: list[tuple[float, float]]) -> None:
    standing, now = Standing(STEPS, least_events=1, hold_s=60.0), 0.0
    for pause_s, value in story:
        now += pause_s
        state = standing.observe(measured(value, beyond=PLENTY), now)
        assert state is not State.UNKNOWN
        assert value < STEPS[0] or state is not State.MET
        assert value < STEPS[2] or state is State.CRITICAL


# Windows.


@given(st.lists(st.tuples(st.floats(0.1, 40), st.integers(0, 9)), min_size=1, max_size=200))
def test_a_window_covers_its_span_and_little_more(steps: list[tuple[float, int]]) -> None:
    window, now, total = Window(120.0, 0.0), 0.0, 0.0
    arrived: list[tuple[float, int]] = []
    for pause_s, more in steps:
        now += pause_s
        total += more
        arrived.append((now, more))
        counts: Counts = {("n",): total}
        window.mark(counts, now)
        told = window.figure(("n",), counts, now)
        # What is not older than the span is in it; what is older than span, mark and pause together is not.
        assert told >= sum(many for at, many in arrived if at > now - 120.0)
        assert told <= sum(many for at, many in arrived if at >= now - 120.0 - 120.0 / MARKS - 40.0)
        assert len(window._marks) <= MARKS + 2


def test_a_count_that_became_less_is_not_counted_backwards() -> None:
    window = Window(10.0, 0.0)
    window.mark({("n",): 5.0}, 10.0)

    assert window.figure(("n",), {("n",): 3.0}, 20.0) == 0.0


# Who is judged.


def spread(**values: int) -> Spread:
    """Times in milliseconds, by how many there are: `ms50=3`."""
    made = Spread()
    for name, many in values.items():
        for _ in range(many):
            made.add(float(name.removeprefix("ms")) / 1000)
    return made


def rows(counts: dict[Name, Figure], promises: Promises | None = None) -> dict[tuple[str, str], Row]:
    watch = Watch(promises or Promises(least_events=1), 0.0)
    return {(row.slo, row.subject): row for row in watch.observe(counts, 1.0)}


def test_first_bytes_are_judged_by_what_the_cache_did_and_clusters_by_their_own() -> None:
    told = rows(
        {
            (PREFIX + "http_time_to_first_byte_seconds", "/v1/tts", "hit_memory"): spread(ms1=90),
            (PREFIX + "http_time_to_first_byte_seconds", "/v1/tts", "hit_redis"): spread(ms5=10),
            (PREFIX + "http_time_to_first_byte_seconds", "/v1/tts", "miss"): spread(ms300=10),
            (PREFIX + "http_time_to_first_byte_seconds", "/v1/tts", "error"): spread(ms9000=10),
            (PREFIX + "cluster_first_audio_seconds", "syd"): spread(ms50=19, ms90=1),
        }
    )

    assert set(told) == {("first_byte", each) for each in ("hit", "miss", "cluster:syd")}
    assert [told["first_byte", each].state for each in ("hit", "miss", "cluster:syd")] == [
        *(State.MET, State.WARNING, State.MET),
    ]
    assert told["first_byte", "hit"].total == told["first_byte", "hit"].good == 100
    assert told["first_byte", "miss"].burning["5m"] == pytest.approx(20.0)


def test_a_late_piece_is_held_against_whose_fault_it_is() -> None:
    name = PREFIX + "stream_jitter_seconds"
    told = rows(
        {
            (name, "syd", "miss", "none"): spread(ms0=80),
            (name, "syd", "miss", "cluster"): spread(ms200=10),
            (name, "syd", "miss", "edge"): spread(ms1=5),
            (name, "syd", "miss", "client"): spread(ms60=5),
        }
    )

    assert {subject: row.state for (_, subject), row in told.items()} == {
        "miss": State.CRITICAL,
        "cluster:syd": State.CRITICAL,
        "edge": State.MET,
        "client": State.WARNING,
    }
    assert {row.total for row in told.values()} == {100}


def test_under_runs_are_a_share_of_streams() -> None:
    told = rows(
        {
            (PREFIX + "streams", "syd", "miss"): 1000.0,
            (PREFIX + "stream_underruns", "syd", "miss", "cluster"): 6.0,
            (PREFIX + "stream_underruns", "syd", "miss", "edge"): 1.0,
        }
    )
    value = {subject: row.windows["5m"].value for (_, subject), row in told.items()}

    assert value == {"miss": 0.007, "cluster:syd": 0.006, "edge": 0.001, "client": 0.0}
    assert told["underruns", "cluster:syd"].state is State.WARNING
    assert told["underruns", "edge"].state is State.MET, "one is chance"
    assert told["underruns", "cluster:syd"].burning["5m"] == pytest.approx(6.0)


def test_each_window_forgets_in_its_own_time() -> None:
    watch = Watch(Promises(), 0.0)
    name = (PREFIX + "http_time_to_first_byte_seconds", "/v1/tts", "hit_memory")
    counts: dict[Name, Figure] = {name: spread(ms200=100)}
    now, last = 0.0, []
    while now < 4000:
        now += 10.0
        if now > 100:
            counts = {name: spread(ms200=100, ms1=100)}
        last = list(watch.observe(counts, now))

    assert {span: each.total for span, each in last[0].windows.items()} == {"5m": 0, "1h": 0, "6h": 200, "3d": 200}
    assert last[0].burning["5m"] is None
    assert last[0].burning["6h"] == pytest.approx(10.0)
    assert set(SPANS_S) == set(last[0].windows)


@pytest.mark.parametrize(
    ("good", "total", "share", "told"),
    [(95, 100, 0.95, 1.0), (100, 100, 0.95, 0.0), (90, 100, 0.95, 2.0), (999, 1000, 0.999, 1.0), (0, 0, 0.9, None)],
)
def test_burning_at_one_spends_the_budget_exactly(good: int, total: int, share: float, told: float | None) -> None:
    assert burning(Measured(0.1, good, total, (0, 0, 0)), share) == (None if told is None else pytest.approx(told))
