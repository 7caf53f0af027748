"""Many questions on one connection: each gets its own reply or none, in its time, whatever happens to the connection."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache.store.connections import MOMENT_S
from edgecache.store.pipeline import GRAIN_S, MAX_QUESTIONS
from tests.pipeline_rig import CONNECT_TIMEOUT_S, MAX_VALUE_BYTES, REPLY_BYTES, Act, Rig, Script, played
from tests.redis_server import bulk


async def proven(rig: Rig) -> None:
    """There is a connection, and it has replied."""
    rig.ask("first")
    await rig.at(5)
    assert rig.outcomes == ["its own"]


# Whatever happens.

milliseconds = st.integers(0, 30).map(lambda each: each / 1000)
acts = st.one_of(st.integers(1, 400), st.sampled_from(Act))
scripts = st.builds(
    Script,
    st.lists(st.tuples(milliseconds, acts), max_size=8),
    milliseconds,
    st.sampled_from([False, False, False, True]),
)


@given(
    st.lists(scripts, max_size=5),
    st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from("abcdef"), st.sampled_from([20, 20, 20, 3, 50])),
        min_size=1,
        max_size=25,
    ),
)
@settings(max_examples=400, deadline=None)
def test_rule_6_each_gets_its_own_reply_or_none_and_in_time(
    scripts: list[Script], asking: list[tuple[int, str, int]]
) -> None:
    async def play(rig: Rig) -> None:
        for at_ms, name, budget_ms in sorted(asking):
            await rig.at(at_ms)
            rig.ask(name, budget_ms / 1000)
        await rig.at(120)

    rig = played(play, *scripts)
    assert "ANOTHER'S" not in rig.outcomes
    assert all(asked.ms <= (asked.budget_s + GRAIN_S) * 1000 for asked in rig.asked)
    sent = sum(len(connection.names) for connection in rig.peer.connections)
    assert sent <= 2 * len(rig.asked)


# Late.


def test_rule_6_who_asked_later_does_not_pay_for_what_comes_too_late() -> None:
    """Both replies come after 25 ms: too late for the first, and not for the second. A third is asked elsewhere."""

    async def play(rig: Rig) -> None:
        rig.ask("old")
        await rig.at(15)
        rig.ask("young")
        await rig.at(22)
        rig.ask("new")
        assert not rig.peer.connections[0].is_closing()
        await rig.at(25.1)
        assert rig.peer.connections[0].is_closing()

    rig = played(play, Script([(0.024, Act.ALL)]))
    assert [(asked.outcome, asked.ms) for asked in rig.asked] == [("late", 20), ("its own", 10), ("its own", 1)]
    assert [connection.names for connection in rig.peer.connections] == [["old", "young"], ["new"]]


@pytest.mark.parametrize("sent", range(1, REPLY_BYTES, 7))
def test_a_reply_that_is_in_the_middle_when_its_time_is_over_is_read_to_its_end_for_nobody(sent: int) -> None:
    async def play(rig: Rig) -> None:
        rig.ask("old")
        await rig.at(15)
        rig.ask("young")
        await rig.at(31)

    rig = played(play, Script([(0.010, sent), (0.019, Act.ALL)]))
    assert [(asked.outcome, asked.ms) for asked in rig.asked] == [("late", 20), ("its own", 15)]


def test_a_connection_is_dropped_with_the_last_who_waits_on_it() -> None:
    async def play(rig: Rig) -> None:
        for at_ms in (0, 8, 16):
            await rig.at(at_ms)
            rig.ask(f"at {at_ms}")
        await rig.at(35.9)
        assert not rig.peer.connections[0].is_closing()
        await rig.at(36.1)
        assert rig.peer.connections[0].is_closing()

    rig = played(play, Script([(0, Act.SILENCE)]))
    assert [(asked.outcome, asked.ms) for asked in rig.asked] == [("late", 20)] * 3
    assert rig.peer.connects == 1


def test_a_stall_is_got_over() -> None:
    async def play(rig: Rig) -> None:
        for at_ms in range(0, 100, 5):
            await rig.at(at_ms)
            rig.ask(f"at {at_ms}")
        await rig.at(120)

    rig = played(play, Script([(0.002, Act.ALL), (0.040, Act.ALL)]))
    assert rig.outcomes == ["its own", *["late"] * 4, *["its own"] * 15]


def test_one_timer_watches_all() -> None:
    async def play(rig: Rig) -> None:
        await proven(rig)
        before = rig.loop.timers
        for n in range(1000):
            rig.ask(f"{n}")
        await rig.at(6)
        assert rig.loop.timers - before <= 3

    assert set(played(play).outcomes) == {"its own"}


def test_a_question_that_was_asked_again_keeps_its_own_time() -> None:
    """It comes behind one that has more time left, and does not wait for that one's."""

    async def play(rig: Rig) -> None:
        await proven(rig)
        await rig.at(20)
        for at_ms, name in [(20, "late"), (35, "asked again"), (41, "has more time")]:
            await rig.at(at_ms)
            rig.ask(name)
        await rig.at(70)

    rig = played(play, Script([(0.002, Act.ALL), (0.045, Act.RESET)]), Script([(0, Act.SILENCE)]))
    assert [(asked.outcome, asked.ms) for asked in rig.asked[1:]] == [("late", 20)] * 3
    assert rig.peer.connections[1].names == ["has more time", "asked again"]


# Late ourselves.


@pytest.mark.parametrize(
    ("replied_after_ms", "outcomes"),
    [(1, ["its own", "its own"]), (MOMENT_S * 1000 - 1, ["its own", "its own"]), (200, ["late", "late"])],
    ids=["a reply that lay there", "a reply in the last moment", "no reply"],
)
def test_redis_is_not_blamed_for_our_standing_still(replied_after_ms: float, outcomes: list[str]) -> None:
    async def play(rig: Rig) -> None:
        await proven(rig)
        rig.ask("before")
        await rig.at(15)
        rig.ask("just before")
        rig.loop.stand_still(0.1)
        await rig.at(400)

    rig = played(play, Script([(0.003, Act.ALL), (0.111 + replied_after_ms / 1000, Act.ALL)]))
    assert rig.outcomes[1:] == outcomes
    assert max(asked.ms for asked in rig.asked) <= 110 + MOMENT_S * 1000 + 1


def test_nothing_cuts_short_the_moment_that_is_given_when_we_stood_still() -> None:
    async def play(rig: Rig) -> None:
        await proven(rig)
        rig.ask("before")
        rig.loop.stand_still(0.1)
        await rig.at(106)
        rig.ask("impatient", budget_s=0.002)
        await rig.at(130)

    rig = played(play, Script([(0.003, Act.ALL), (0.110, Act.ALL)]))
    assert rig.outcomes == ["its own"] * 3


# A connection that ends.

#: What the first connection does, and what becomes of the question that proves it, of three asked at 10 ms, and how often
#: each was asked.
ENDS: list[tuple[str, list[tuple[float, Act | int]], list[str]]] = [
    ("reset before all", [(0.002, Act.RESET)], ["connection lost: ConnectionResetError", *["its own"] * 3]),
    ("ended before all", [(0.002, Act.END)], ["connection lost: closed by Redis", *["its own"] * 3]),
    ("noise before all", [(0.002, Act.NOISE)], ["neither a string nor an error", *["its own"] * 3]),
    ("reset while idle", [(0.002, Act.ALL), (0.005, Act.RESET)], ["its own"] * 4),
    ("reset when it is used again", [(0.002, Act.ALL), (0.008, Act.RESET)], ["its own"] * 4),
    ("ended when it is used again", [(0.002, Act.ALL), (0.008, Act.END)], ["its own"] * 4),
    ("reset after one reply of three", [(0.002, Act.ALL), (0.008, REPLY_BYTES), (0, Act.RESET)], ["its own"] * 4),
    (
        "reset in the middle of a reply",
        [(0.002, Act.ALL), (0.008, REPLY_BYTES + 50), (0.003, Act.RESET)],
        ["its own"] * 4,
    ),
    (
        "noise after a reply",
        [(0.002, Act.ALL), (0.008, REPLY_BYTES), (0, Act.NOISE)],
        ["its own", "its own", "neither a string nor an error", "its own"],
    ),
]


@pytest.mark.parametrize(("acts", "outcomes"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS])
def test_who_waits_on_a_connection_that_was_good_is_asked_once_more(
    acts: list[tuple[float, Act | int]], outcomes: list[str]
) -> None:
    async def play(rig: Rig) -> None:
        rig.ask("0")
        await rig.at(10)
        for name in "123":
            rig.ask(name)
        await rig.at(40)

    rig = played(play, Script(acts))
    assert rig.outcomes == outcomes
    assert len(rig.peer.connections) == 2


def test_nobody_is_asked_a_third_time() -> None:
    async def play(rig: Rig) -> None:
        await proven(rig)
        for name in "123":
            rig.ask(name)
        await rig.at(40)

    rig = played(play, Script([(0.002, Act.ALL), (0.005, Act.RESET)]), Script([(0.001, REPLY_BYTES), (0, Act.RESET)]))
    lost = "connection lost: ConnectionResetError"
    assert rig.outcomes == ["its own", "its own", lost, lost]
    assert [connection.names for connection in rig.peer.connections] == [["first", *"123"], [*"123"]]


# Replies out of turn, or beyond all bounds.


@pytest.mark.parametrize("act", [Act.UNASKED, Act.HALF_UNASKED], ids=str)
def test_rule_1_a_reply_that_nobody_asked_for_is_nobodys(act: Act) -> None:
    async def play(rig: Rig) -> None:
        await proven(rig)
        await rig.at(10)
        assert rig.peer.connections[0].gone
        rig.ask("next")
        await rig.at(15)

    rig = played(play, Script([(0.002, Act.ALL), (0.005, act)]))
    assert rig.outcomes == ["its own", "its own"]


@pytest.mark.parametrize("more", [bulk(b"unasked"), b"$", b"-OOM\r\n"], ids=repr)
def test_rule_1_nor_one_that_comes_with_another(more: bytes) -> None:
    async def play(rig: Rig) -> None:
        rig.peer.replies["first"] = rig.peer.reply("first") + more
        await proven(rig)
        rig.ask("next")
        await rig.at(10)

    rig = played(play)
    assert rig.outcomes == ["its own", "its own"]
    assert len(rig.peer.connections) == 2


def test_rule_7_a_value_beyond_the_bound_ends_the_connection_and_nobody_else_pays() -> None:
    async def play(rig: Rig) -> None:
        rig.peer.replies["large"] = bulk(bytes(MAX_VALUE_BYTES + 1))
        await proven(rig)
        for name in ("before", "large", "after"):
            rig.ask(name)
        await rig.at(30)

    rig = played(play)
    assert rig.outcomes[1:] == ["its own", "a value beyond the bound", "its own"]
    assert [connection.names for connection in rig.peer.connections] == [
        ["first", "before", "large", "after"],
        ["after"],
    ]


# Connecting.


def test_a_connection_that_takes_longer_than_the_budget_comes_about_all_the_same() -> None:
    async def play(rig: Rig) -> None:
        for at_ms in (0, 10, 31, 45):
            await rig.at(at_ms)
            rig.ask(f"at {at_ms}")
        await rig.at(60)

    rig = played(play, Script(connect_s=0.05))
    assert [(asked.outcome, asked.ms) for asked in rig.asked] == [
        ("late", 20),
        ("late", 20),
        ("its own", 19),
        ("its own", 5),
    ]
    assert rig.peer.connections[0].names == ["at 31", "at 45"]


def test_a_connection_that_never_comes_about_is_given_up_and_tried_anew() -> None:
    async def play(rig: Rig) -> None:
        rig.ask("hung")
        await rig.at(CONNECT_TIMEOUT_S * 1000 - 5)
        rig.ask("nearly")
        await rig.at(CONNECT_TIMEOUT_S * 1000 + 5)
        rig.ask("next")
        await rig.at(CONNECT_TIMEOUT_S * 1000 + 20)

    rig = played(play, Script(connect_s=3600.0))
    assert [(asked.outcome, asked.ms) for asked in rig.asked] == [("late", 20), ("late", 5), ("its own", 1)]
    assert rig.peer.connects == 2


def test_all_who_wait_are_told_at_once_that_there_is_no_connection() -> None:
    async def play(rig: Rig) -> None:
        rig.ask("a")
        rig.ask("b")
        await rig.at(5)
        rig.ask("c")
        await rig.at(10)

    rig = played(play, Script(connect_s=0.002, fails=True))
    refused = "not connected: ConnectionError: refused"
    assert [(asked.outcome, asked.ms) for asked in rig.asked] == [(refused, 2), (refused, 2), ("its own", 1)]


# Bounds, and the end.


@pytest.mark.parametrize("connected", [True, False], ids=["on a connection", "waiting for one"])
def test_rule_7_more_questions_than_could_ever_be_answered_are_refused_at_once(*, connected: bool) -> None:
    async def play(rig: Rig) -> None:
        if connected:
            await proven(rig)
        for n in range(MAX_QUESTIONS + 2):
            rig.ask(f"{n}")
        assert not any(asked.told for asked in rig.asked[-3:])  # nobody is told before he has asked
        await rig.at(50)

    rig = played(play, Script(connect_s=0.001))
    assert [(asked.outcome, asked.ms) for asked in rig.asked[-2:]] == [("too many questions", 0)] * 2
    assert set(rig.outcomes[:-2]) == {"its own"}


@pytest.mark.parametrize(
    ("script", "asked_ms"),
    [
        (Script(connect_s=10.0), [0]),
        (Script([(0, Act.SILENCE)]), [0, 2]),
        (Script([(0.001, Act.ALL), (0, Act.SILENCE)]), [0, 4, 5]),
        (Script([(0, Act.SILENCE)]), [0, 15, 22]),
    ],
    ids=["while connecting", "unanswered", "on a connection that was good", "on two connections"],
)
def test_close_tells_everybody_and_leaves_nothing(script: Script, asked_ms: list[float]) -> None:
    """What is left is looked for in `played`."""

    async def play(rig: Rig) -> None:
        for at_ms in asked_ms:
            await rig.at(at_ms)
            rig.ask(f"at {at_ms}")
        await rig.pipeline.close()
        rig.ask("after the end")

    rig = played(play, script, Script([(0, Act.SILENCE)]))
    assert rig.outcomes[-1] == "closed"
    assert rig.outcomes[-2].endswith("closed")
    assert rig.loop.time() - rig.began_s < 0.03
