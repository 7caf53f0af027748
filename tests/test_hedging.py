"""A second cluster beside the first: when, who is heard, what becomes of the other, and what it may cost."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from edgecache.clusters.fault import Fault
from edgecache.fill.flight import State
from edgecache.fill.priority import Priority
from tests.fill_rig import SILENT, Listener, fault, order, rig, settle
from tests.scripted_clusters import WAV, Asking, Barrier, Reply, ScriptedClusters, Step

#: Any first cluster is late.
AT_ONCE = 0.001
LOUD = WAV[:44] + WAV[44:][::-1]  # another take of as much sound
assert LOUD != WAV


@dataclass
class Two(ScriptedClusters):
    """Two upstreams, each with its own reply."""

    by_upstream: dict[str, Reply] = field(default_factory=dict)
    upstreams: int = 2

    def reply_to(self, asking: Asking) -> Reply:
        return self.by_upstream[asking.upstream]


def two(first: Sequence[Step], second: Sequence[Step]) -> Two:
    return Two(by_upstream={"c0": Reply(first), "c1": Reply(second)})


async def until_asked(clusters: ScriptedClusters, times: int) -> None:
    while len(clusters.asked) < times:
        await asyncio.sleep(0.001)


async def test_rule_5_the_first_to_give_audio_is_heard_and_nothing_of_the_other() -> None:
    clusters = two([SILENT, Barrier()], [LOUD])
    async with rig(clusters=clusters, hedge_s=AT_ONCE) as made:
        flight, listener = await made.listen()
        assert (flight.state, bytes(listener.heard), listener.end) == (State.SEALED, LOUD, "whole")
        assert [each.upstream for each in clusters.asked] == ["c0", "c1"]
        assert [each.facts.cluster for each in made.kept] == ["c1"]
        told = made.fills.asking.status()
        assert (told["hedges"], told["hedge_wins"], told["retries"]) == (1, 1, 0)
        assert [each[0] for each in clusters.heard_of].count("c0") == 1, "how late it was is remembered"


async def test_the_first_may_still_win() -> None:
    first, second = Barrier(), Barrier()
    clusters = two([first, WAV[:100], None, WAV[100:]], [SILENT, second, LOUD[44:]])
    async with rig(clusters=clusters, hedge_s=AT_ONCE) as made:
        listener = Listener(made.fills.lead(order()))
        listening = asyncio.create_task(listener.listen())
        await second.reached()
        first.open()
        await listening
        await made.fills.drain()
        assert bytes(listener.heard) == WAV
        told = made.fills.asking.status()
        assert (told["hedges"], told["hedge_wins"]) == (1, 0)


async def test_who_is_beaten_is_cancelled_at_once_and_not_when_the_other_ends() -> None:
    end = Barrier()
    clusters = two([SILENT, Barrier()], [LOUD[:100], end, LOUD[100:]])
    async with rig(clusters=clusters, hedge_s=AT_ONCE) as made:
        listener = Listener(made.fills.lead(order()))
        listening = asyncio.create_task(listener.listen())
        await end.reached()
        await settle()
        assert clusters.open == 1
        assert made.fills.held_bytes == 100
        end.open()
        await listening
        await made.fills.drain()


async def test_both_at_once_are_still_one() -> None:
    both = Barrier()
    clusters = two([both, WAV], [both, LOUD])
    async with rig(clusters=clusters, hedge_s=AT_ONCE) as made:
        listener = Listener(made.fills.lead(order()))
        listening = asyncio.create_task(listener.listen())
        await until_asked(clusters, 2)
        await settle()
        both.open()
        await listening
        await made.fills.drain()
        assert bytes(listener.heard) in (WAV, LOUD)


LATE_FAULTS: list[tuple[str, list[Step], list[Step], bytes, str]] = [
    ("the first fails: the second is heard", [fault(Fault.BROKEN)], [LOUD], LOUD, "whole"),
    ("the second fails: the first is heard", [WAV], [fault(Fault.BROKEN)], WAV, "whole"),
    ("both fail", [fault(Fault.BROKEN)], [fault(Fault.CONNECT)], b"", "no_cluster"),
    (
        "the second is heard and breaks",
        [fault(Fault.BROKEN)],
        [WAV[:100], fault(Fault.BROKEN)],
        WAV[:100],
        "broken_off",
    ),
    ("any would refuse it", [fault(Fault.REFUSED, 422)], [Barrier()], b"", "refused_by_cluster"),
]


@pytest.mark.parametrize(
    ("first", "second", "heard", "end"), [row[1:] for row in LATE_FAULTS], ids=[row[0] for row in LATE_FAULTS]
)
async def test_faults_of_either(first: list[Step], second: list[Step], heard: bytes, end: str) -> None:
    both = Barrier()
    clusters = two([both, *first], second if isinstance(second[0], Barrier) else [both, None, None, *second])
    async with rig(clusters=clusters, hedge_s=AT_ONCE) as made:
        listener = Listener(made.fills.lead(order()))
        listening = asyncio.create_task(listener.listen())
        await until_asked(clusters, 2)
        await settle()
        both.open()
        await listening
        await made.fills.drain()
        assert (bytes(listener.heard), listener.end) == (heard, end)
        assert len(clusters.asked) == 2, "nobody is asked a third time"


async def test_a_first_that_fails_soon_is_a_retry_and_no_hedge() -> None:
    clusters = two([fault(Fault.BROKEN)], [LOUD])
    async with rig(clusters=clusters, hedge_s=60.0) as made:
        await made.listen()
        told = made.fills.asking.status()
        assert (told["hedges"], told["retries"]) == (0, 1)


@pytest.mark.parametrize(
    ("hedge_s", "late", "priority", "hedges"),
    [
        pytest.param("off", 0.0, Priority.INTERACTIVE, 0, id="off"),
        pytest.param("p95", None, Priority.INTERACTIVE, 0, id="nobody knows when it is late"),
        pytest.param("p95", AT_ONCE, Priority.INTERACTIVE, 1, id="it is late"),
        pytest.param(AT_ONCE, None, Priority.LOOK_AHEAD, 1, id="what is heard next"),
        pytest.param(AT_ONCE, None, Priority.PREFETCH, 0, id="nobody waits for it"),
    ],
)
async def test_when_a_second_is_asked(
    hedge_s: float | str, late: float | None, priority: Priority, hedges: int
) -> None:
    barrier = Barrier()
    clusters = two([barrier, WAV], [Barrier()])
    clusters.late = {} if late is None else {"c0": late}
    async with rig(clusters=clusters, hedge_s=hedge_s) as made:
        flight = made.fills.lead(replace(order(), priority=priority))
        await until_asked(clusters, 1 + hedges)
        await settle()
        barrier.open()
        await flight.begun()
        await made.fills.drain()
        assert made.fills.asking.status()["hedges"] == hedges


async def test_hedges_and_retries_have_budgets() -> None:
    clusters = two([SILENT, None, None], [LOUD])
    async with rig(clusters=clusters, hedge_share=0.0, hedge_s=AT_ONCE, retry_share=0.0) as made:
        barrier = Barrier()
        clusters.by_upstream["c0"] = Reply([barrier, fault(Fault.BROKEN)])
        flight = made.fills.lead(order())
        while not made.fills.asking.hedges.refused:
            await asyncio.sleep(0.001)
        barrier.open()
        while not flight.over:
            await asyncio.sleep(0)
        await made.fills.drain()
        assert flight.state is State.REFUSED
        assert [each.upstream for each in clusters.asked] == ["c0"]
        assert made.fills.asking.status()["budget_refusals"] == {"retries": 1, "hedges": 1}


async def test_a_tenth_of_many_fills_is_asked_for_again() -> None:
    failing = ScriptedClusters([Reply(before=[fault(Fault.FAILED, 500)])])
    async with rig(clusters=failing) as made:
        for number in range(300):
            flight = made.fills.lead(order(str(number)), alone=True)
            while not flight.over:
                await asyncio.sleep(0)
        await made.fills.drain()
        assert len(failing.asked) <= 300 + 0.1 * 300 + 10
        assert made.fills.asking.retries.refused > 0


async def test_the_deadline_is_for_all_attempts_together() -> None:
    slow = Reply(before=[lambda: made.clock.advance(4.0), fault(Fault.CONNECT)])
    async with rig(slow, deadline_s=7.0) as made:
        told = await made.refused()
        assert told.code == "no_cluster"
        assert len(made.clusters.asked) == 2, "the third would begin after eight seconds"
