"""Who is asked, and why the others are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edgecache.clusters.cluster import SelectionPolicy
from edgecache.clusters.health import Standing, State
from edgecache.clusters.selection import Candidate, Chosen, NoneLeft, Why, choose, shares

POLICY = SelectionPolicy(better_by=0.15, better_by_s=0.002)
UP = Standing(State.UP)
TRIAL = Standing(State.TRIAL)
TAKEN = Standing(State.TRIAL, 1.0)
OUT = Standing(State.EJECTED, 8.0)
SOON = Standing(State.EJECTED, 3.0)
WAIT = Standing(State.UP, 5.0)


def one(name: str, rtt_ms: float | None, standing: Standing = UP, room: int = 1) -> Candidate:
    return Candidate(name, name, standing, None if rtt_ms is None else rtt_ms / 1000, room)


def reasons(choice: Chosen | NoneLeft) -> dict[str, Why]:
    return {each.upstream: each.why for each in choice.verdicts}


SYD, SIN, FRA = one("syd", 10), one("sin", 90), one("fra", 280)
FARTHER, NEAREST, KEPT = Why.FARTHER, Why.NEAREST, Why.KEPT


@pytest.mark.parametrize(
    ("candidates", "current", "tried", "whys"),
    [
        pytest.param([FRA, SIN, SYD], None, [], [FARTHER, FARTHER, NEAREST], id="the nearest"),
        pytest.param([SYD, SIN], None, ["syd"], [Why.TRIED, NEAREST], id="the next after one was tried"),
        pytest.param([replace(SYD, standing=OUT), SIN], None, [], [Why.EJECTED, NEAREST], id="ejected"),
        pytest.param([replace(SYD, standing=WAIT), SIN], None, [], [Why.TOLD_TO_WAIT, NEAREST], id="told to wait"),
        pytest.param([replace(SYD, room=0), SIN], None, [], [Why.FULL, NEAREST], id="full"),
        pytest.param([one("syd", None), SIN], None, [], [Why.UNMEASURED, NEAREST], id="measured before unmeasured"),
        pytest.param(
            [one("a", None), one("b", None)], None, [], [Why.UNMEASURED, Why.UNMEASURED], id="configured order"
        ),
        pytest.param([replace(SYD, standing=TRIAL), SIN], None, [], [Why.TRIAL, NEAREST], id="up before on trial"),
        pytest.param([replace(SYD, standing=TRIAL), one("b", None)], None, [], [Why.TRIAL, Why.UNMEASURED], id="even"),
        pytest.param([replace(SYD, standing=TRIAL)], None, [], [Why.TRIAL], id="on trial for want of another"),
        pytest.param(
            [one("a", 20), one("b", 17.5)], "a", [], [KEPT, Why.NOT_NEARER_ENOUGH], id="not nearer by the share"
        ),
        pytest.param([one("a", 20), one("b", 16.9)], "a", [], [FARTHER, NEAREST], id="nearer by share and time"),
        pytest.param([one("a", 4), one("b", 2.5)], "a", [], [KEPT, Why.NOT_NEARER_ENOUGH], id="not nearer by the time"),
        pytest.param([one("a", 20, OUT), one("b", 19)], "a", [], [Why.EJECTED, NEAREST], id="the current is ejected"),
        pytest.param([one("a", None), one("b", 300)], "a", [], [Why.UNMEASURED, NEAREST], id="the current is stale"),
        pytest.param([one("a", 20, TRIAL), one("b", 30)], "a", [], [Why.TRIAL, NEAREST], id="the current is on trial"),
        pytest.param(
            [replace(SYD, under_way=3), one("b", 10.5)], None, [], [Why.MORE_LOADED, Why.LESS_LOADED], id="less loaded"
        ),
        pytest.param(
            [replace(SYD, under_way=3), replace(SIN, under_way=0)],
            None,
            [],
            [NEAREST, FARTHER],
            id="load moves nobody far",
        ),
        pytest.param(
            [replace(SYD, under_way=3, size=8), replace(one("b", 10.5), under_way=1, size=2)],
            *(None, [], [NEAREST, Why.MORE_LOADED]),
            id="load is by size",
        ),
        pytest.param([replace(SYD, slow=True), SIN], "syd", [], [Why.SLOW, NEAREST], id="slow to speak"),
        pytest.param([replace(SYD, slow=True)], None, [], [Why.SLOW], id="slow for want of another"),
        pytest.param([replace(SYD, drained=True), SIN], "syd", [], [Why.DRAINED, NEAREST], id="drained"),
        pytest.param([replace(SYD, barred="eu-only"), SIN], "syd", [], [Why.BARRED, NEAREST], id="barred"),
        pytest.param([SYD, SIN], "gone", [], [NEAREST, FARTHER], id="the current is no more"),
    ],
)
def test_says_why(candidates: list[Candidate], current: str | None, tried: list[str], whys: list[Why]) -> None:
    choice = choose(candidates, current, POLICY, tried)
    assert [each.why for each in choice.verdicts] == whys
    assert isinstance(choice, Chosen)
    assert reasons(choice)[choice.upstream] is choice.why


def test_the_unmeasured_are_asked_in_the_operators_order() -> None:
    choice = choose([one("b", None), one("a", None)], "a", POLICY, [])
    assert isinstance(choice, Chosen)
    assert (choice.upstream, choice.why) == ("b", Why.UNMEASURED)


@pytest.mark.parametrize(
    ("candidates", "tried", "busy", "retry_after_s"),
    [
        pytest.param([replace(SYD, standing=OUT), replace(SIN, standing=SOON)], [], False, 3, id="down"),
        pytest.param([replace(SYD, room=0), replace(SIN, room=0)], [], True, 1, id="full"),
        pytest.param([replace(SYD, standing=OUT), replace(SIN, room=0)], [], True, 1, id="down and full"),
        pytest.param([replace(SYD, standing=OUT), replace(SIN, standing=WAIT)], [], True, 5, id="down and waiting"),
        pytest.param([SYD, SIN], ["syd", "sin"], False, 1, id="all tried"),
        pytest.param([SYD, replace(SIN, standing=OUT)], ["syd"], False, 8, id="tried and down"),
        pytest.param([replace(SYD, standing=TAKEN)], [], False, 1, id="on trial"),
        pytest.param([replace(SYD, barred="eu-only"), replace(SIN, standing=SOON)], [], False, 3, id="barred and down"),
        pytest.param([replace(SYD, drained=True)], [], False, 1, id="drained"),
        pytest.param([], [], False, 1, id="no clusters at all"),
    ],
)
def test_says_when_nobody_is_left(
    candidates: list[Candidate], tried: list[str], busy: bool, retry_after_s: float
) -> None:
    choice = choose(candidates, None, POLICY, tried)
    assert isinstance(choice, NoneLeft)
    assert (choice.busy, choice.retry_after_s) == (busy, retry_after_s)
    assert len(choice.verdicts) == len(candidates)


@pytest.mark.parametrize(
    ("standing", "room", "tried", "keep_to"),
    [
        pytest.param(UP, 0, [], "a", id="full: b stands in"),
        pytest.param(UP, 1, ["a"], "a", id="tried: b stands in"),
        pytest.param(WAIT, 1, [], "a", id="told to wait: b stands in"),
        pytest.param(OUT, 1, [], "b", id="ejected: b takes over"),
        pytest.param(TRIAL, 1, [], "b", id="on trial: b takes over"),
    ],
)
def test_a_stand_in_does_not_take_over(standing: Standing, room: int, tried: list[str], keep_to: str) -> None:
    choice = choose([one("a", 20, standing, room), one("b", 21)], "a", POLICY, tried)
    assert isinstance(choice, Chosen)
    assert (choice.upstream, choice.keep_to) == ("b", keep_to)


standings = st.builds(
    Standing, st.sampled_from([State.UP, State.UP, State.EJECTED, State.TRIAL]), st.sampled_from([0.0, 0.0, 5.0])
)
fleets = st.lists(
    st.builds(
        Candidate,
        upstream=st.sampled_from("abcdefgh"),
        cluster=st.just("c"),
        standing=standings,
        rtt_s=st.none() | st.floats(0, 1),
        room=st.integers(-1, 2),
        under_way=st.integers(0, 5),
        size=st.sampled_from([0.5, 1.0, 4.0]),
        barred=st.sampled_from(["", "", "", "eu-only"]),
        drained=st.sampled_from([False, False, False, True]),
        slow=st.sampled_from([False, False, False, True]),
    ),
    max_size=8,
    unique_by=lambda each: each.upstream,
)
names = st.sampled_from("abcdefgh")


@given(fleets, st.none() | names, st.sets(names, max_size=3))
def test_never_asks_one_that_must_not_be_asked(
    candidates: list[Candidate], current: str | None, tried: set[str]
) -> None:
    open_to = {
        each.upstream: each
        for each in candidates
        if each.upstream not in tried
        and each.standing.state is not State.EJECTED
        and each.standing.back_in_s == 0
        and each.room > 0
        and not each.barred
        and not each.drained
    }
    choice = choose(candidates, current, POLICY, tried)
    assert [each.upstream for each in choice.verdicts] == [each.upstream for each in candidates]
    if not open_to:
        assert isinstance(choice, NoneLeft)
        assert choice.retry_after_s >= 0
        return
    assert isinstance(choice, Chosen)
    chosen = open_to[choice.upstream]
    if any(each.standing.state is State.UP for each in open_to.values()):
        assert chosen.standing.state is State.UP, "one that is up goes before one on trial"
    quick = [each for each in open_to.values() if each.standing.state is chosen.standing.state and not each.slow]
    assert not (chosen.slow and quick), "one that is slow is only asked for want of another"
    # Hysteresis and load cost at most a margin each.
    rivals = [
        each.rtt_s
        for each in open_to.values()
        if each.standing.state is chosen.standing.state and each.slow is chosen.slow
    ]
    nearest_s = min((rtt_s for rtt_s in rivals if rtt_s is not None), default=None)
    if nearest_s is not None:
        assert chosen.rtt_s is not None
        margin_s = max(POLICY.better_by_s, POLICY.better_by * chosen.rtt_s)
        assert chosen.rtt_s - nearest_s <= 2 * margin_s + 1e-9


@given(fleets, st.none() | names)
def test_shares_sum_to_one_and_are_of_those_that_are_asked(candidates: list[Candidate], current: str | None) -> None:
    choice, told = choose(candidates, current, POLICY, ()), shares(candidates, current, POLICY)
    if isinstance(choice, NoneLeft):
        assert set(told.values()) <= {0.0}
        return
    assert sum(told.values()) == pytest.approx(1)
    assert told[choice.upstream] > 0
    assert all(
        share == 0 for name, share in told.items() if reasons(choice)[name] in (FARTHER, Why.EJECTED, Why.BARRED)
    )


def test_those_as_near_get_work_by_their_size() -> None:
    under_way = {"a": 0, "b": 0, "far": 0}
    for _ in range(30):
        candidates = [
            replace(one("a", 20, room=99), under_way=under_way["a"], size=2.0),
            replace(one("b", 21, room=99), under_way=under_way["b"]),
            replace(one("far", 80, room=99), under_way=under_way["far"]),
        ]
        choice = choose(candidates, "a", POLICY, ())
        assert isinstance(choice, Chosen)
        under_way[choice.upstream] += 1
    assert under_way == {"a": 20, "b": 10, "far": 0}


def test_what_a_route_holds_back_is_named_when_nobody_is_left() -> None:
    choice = choose(
        [replace(SYD, barred="eu-only"), replace(SIN, barred="premium"), replace(FRA, room=0)], None, POLICY, ()
    )
    assert isinstance(choice, NoneLeft)
    assert choice.barred == ("eu-only", "premium")


#: Noise of this share on both sides stays within the margin of 15 %: (1 - 0.08) / (1 + 0.08) > 0.85.
NOISE = 0.08


@given(
    st.floats(0.001, 0.3),
    st.floats(0.001, 0.3),
    st.lists(st.tuples(st.floats(-NOISE, NOISE), st.floats(-NOISE, NOISE)), min_size=2, max_size=60),
)
def test_does_not_flap_under_noise(a_s: float, b_s: float, noises: list[tuple[float, float]]) -> None:
    current, moves = None, -1
    for a_noise, b_noise in noises:
        candidates = [
            Candidate("a", "a", UP, a_s * (1 + a_noise), 1),
            Candidate("b", "b", UP, b_s * (1 + b_noise), 1),
        ]
        choice = choose(candidates, current, POLICY, ())
        assert isinstance(choice, Chosen)
        moves += choice.upstream != current
        current = choice.keep_to
    assert moves <= 1, "it may settle once, and then stays"
