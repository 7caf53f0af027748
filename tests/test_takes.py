"""Flights beside each other: new takes, readers that come and go, and what nobody foresaw (rules 4, 5, 7)."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from edgecache.cache.recording import Recording
from edgecache.clusters.fault import Fault
from edgecache.errors import NodeError, UpstreamError
from edgecache.fill.fills import Fills
from edgecache.fill.flight import Flight, State
from edgecache.fill.limits import FillLimits
from tests.fill_rig import KEY, PIECES, SILENT, Listener, Rig, fault, order, rig, settle
from tests.scripted_clusters import AAC, WAV, Asking, Barrier, Reply, ScriptedClusters

# New takes, and flights of one's own.


class Takes(ScriptedClusters):
    """Each text has a reply of its own."""

    def __init__(self, **replies: Reply) -> None:
        super().__init__(upstreams=1)
        self.by_text = replies

    def reply_to(self, asking: Asking) -> Reply:
        return self.by_text[asking.text]


BROKEN_TAKE = fault(Fault.BROKEN)


def take(name: str, barrier: Barrier, *, breaks: bool = False) -> Reply:
    said = name.encode() * 10
    return Reply([said, barrier, BROKEN_TAKE if breaks else said], AAC)


@pytest.mark.parametrize("completing", list(permutations("ABC")), ids="".join)
@pytest.mark.parametrize("broken", ["", "A", "B", "C", "AB", "AC", "BC"])
async def test_the_newest_take_that_is_whole_is_the_one_that_stays(completing: Sequence[str], broken: str) -> None:
    barriers = {name: Barrier() for name in "ABC"}
    clusters = Takes(**{name: take(name, barriers[name], breaks=name in broken) for name in "ABC"})
    async with rig(clusters=clusters) as made:
        flights = {name: made.fills.lead(order(name)) for name in "ABC"}
        assert made.fills.join(KEY) is flights["C"]
        for name in "ABC":
            await barriers[name].reached()
        newest = ""
        for number, name in enumerate(completing, 1):
            barriers[name].open()
            await settle()
            newest = max(newest, "" if name in broken else name)
            assert (made.kept[-1].audio[:1].decode() if made.kept else "") == newest
            left = max([each for each in completing[number:] if each > newest], default="")
            assert made.fills.flight(KEY) is (flights[left] if left else None)
        assert {name for name in "ABC" if flights[name].state is State.BROKEN} == set(broken)


async def test_a_take_that_failed_does_not_part_those_before_it_from_those_after_it() -> None:
    barriers = {name: Barrier() for name in "ABC"}
    clusters = Takes(**{name: take(name, barriers[name], breaks=name == "B") for name in "ABC"})
    async with rig(clusters=clusters) as made:
        first = made.fills.lead(order("A"))
        made.fills.lead(order("B"))
        barriers["B"].open()
        await settle()
        assert made.fills.flight(KEY) is first
        made.fills.lead(order("C"))
        for name in "CA":
            barriers[name].open()
            await settle()
        assert [each.audio[:1] for each in made.kept] == [b"C"]
        assert first.state is State.SEALED  # and its own readers heard it whole


async def test_nobody_joins_a_flight_that_is_not_to_be_stored_and_nothing_stays_of_it() -> None:
    barrier = Barrier()
    async with rig(Reply([WAV[:100], barrier, WAV[100:]])) as made:
        flight = made.fills.lead(order(store=False), alone=True)
        await barrier.reached()
        assert (made.fills.flight(KEY), made.fills.join(KEY)) == (None, None)
        other = made.fills.lead(order())
        assert made.fills.join(KEY) is other
        barrier.open()
        await made.fills.drain()
        assert (flight.state, flight.not_stored) == (State.ENDED, "no-store")
        assert [each.audio for each in made.kept] == [WAV]  # the other's
        assert flight.head is not None
        assert not flight.head.stored


# What goes wrong here.


@pytest.mark.parametrize("hedge_s", ["off", 5.0])
@pytest.mark.parametrize("turns", range(4))
async def test_a_fill_cancelled_at_its_first_steps_still_tells_its_readers(
    turns: int, hedge_s: Literal["off"] | float
) -> None:
    async with rig(Reply([Barrier()]), hedge_s=hedge_s) as made:
        flight = made.fills.lead(order())
        for _ in range(turns):
            await asyncio.sleep(0)
        await made.fills.close()
        with pytest.raises(NodeError) as told:
            await flight.begun()
        assert (told.value.status, told.value.code) == (503, "stopping")
        assert made.clusters.open == 0, "it was asked at once, and given up"


@pytest.mark.parametrize(
    ("reply", "state", "heard"),
    [
        (Reply(before=[RuntimeError("ours")]), State.REFUSED, b""),
        (Reply([SILENT, RuntimeError("ours")]), State.REFUSED, b""),
        (Reply([WAV[:100], RuntimeError("ours")]), State.BROKEN, WAV[:100]),
    ],
    ids=["before the head", "before the first audio", "later"],
)
async def test_what_nobody_foresaw_is_told_to_readers_and_to_the_loop(reply: Reply, state: State, heard: bytes) -> None:
    async with rig(reply) as made:
        flight, listener = await made.listen()
        assert (flight.state, listener.end, bytes(listener.heard)) == (state, "internal_error", heard)
        assert [str(each) for each in made.unforeseen] == ["ours"]
        made.unforeseen.clear()


async def test_a_store_that_fails_is_told_and_no_fill_hangs() -> None:
    def keep(_: Recording) -> None:
        raise RuntimeError("no store")

    async with rig() as made:
        fills = Fills(FillLimits(), made.clusters, keep, made.clock)
        listener = Listener(fills.lead(order()))
        await listener.listen()
        assert (listener.end, fills.held_bytes) == ("internal_error", 0)
        assert [str(each) for each in made.unforeseen] == ["no store"]
        made.unforeseen.clear()


async def test_an_error_told_to_many_keeps_none_of_them_alive() -> None:
    async with rig(Reply([WAV[:100], BROKEN_TAKE])) as made:
        flight, _ = await made.listen()
        told = []
        for _ in range(3):
            with pytest.raises(UpstreamError) as error:
                await flight.read(100)
            told.append(error.value)
        assert len({id(each) for each in told}) == 3
        assert flight.error is not None
        assert flight.error.__traceback__ is None


STEPWISE = [
    Reply([SILENT, None, fault(Fault.BROKEN)], before=[None, None]),
    Reply(PIECES, before=[None]),
]


async def test_a_fill_that_is_stopped_at_any_step_leaves_nothing() -> None:
    ends: list[str] = []
    while not ends or ends[-1] != "whole":
        async with rig(*STEPWISE) as made:
            listener = Listener(made.fills.lead(order()))
            listening = asyncio.create_task(listener.listen())
            for _ in range(len(ends)):
                await asyncio.sleep(0)
            await made.fills.close()
            await listening
            ends.append(listener.end)
            assert WAV.startswith(listener.heard)
            assert bool(made.kept) == (listener.end == "whole")
            assert made.fills.flight(KEY) is None
    assert len(ends) > sum(step is None for each in STEPWISE for step in (*each.before, *each.steps))
    assert set(ends) == {"stopping", "whole"}


async def test_rule_4_a_reader_that_leaves_at_any_step_changes_nothing() -> None:
    left = 0
    for steps in range(25):
        async with rig(*STEPWISE) as made:
            flight = made.fills.lead(order())
            leaving = asyncio.create_task(Listener(flight).listen())
            for _ in range(steps):
                await asyncio.sleep(0)
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving
            left += leaving.cancelled()
            await made.fills.drain()
            assert (flight.state, flight.readers, len(made.kept)) == (State.SEALED, 0, 1)
    assert 5 < left < 25


async def test_rule_7_a_flight_forgets_who_left_it() -> None:
    barrier = Barrier()
    async with rig(Reply([barrier, WAV])) as made:
        flight = made.fills.lead(order())
        await barrier.reached()
        crowd = [asyncio.create_task(Listener(flight).listen()) for _ in range(20)]
        await settle()
        for each in crowd:
            each.cancel()
        await asyncio.wait(crowd)
        assert (flight.readers, len(flight._waiters)) == (0, 0)
        barrier.open()
        await made.fills.drain()


# Bytes counted are bytes held, whatever happens.


@dataclass
class World:
    """Flights, their barriers and their readers, as a random sequence of events makes them."""

    made: Rig
    clusters: Takes
    flights: list[tuple[Flight, list[bytes], list[Barrier]]] = field(default_factory=list)
    readers: list[tuple[Listener, asyncio.Task[None], bytes]] = field(default_factory=list)

    def lead(self, chunks: list[bytes], end: int) -> None:
        """end: 0 whole, 1 broken, 2 closed."""
        name, barriers = f"t{len(self.flights)}", [Barrier() for _ in chunks]
        steps = [step for pair in zip(chunks, barriers, strict=True) for step in pair]
        self.clusters.by_text[name] = Reply([*steps, BROKEN_TAKE if end == 1 else None], AAC, framed=end != 2)
        with suppress(NodeError):
            self.flights.append((self.made.fills.lead(order(name)), chunks, barriers))

    def join(self, number: int, *, slow: bool) -> None:
        """Whoever is given a flight begins to read it at once, so nobody begins with one that is over."""
        newest = self.made.fills.join(KEY)
        under_way = [each for each in self.flights if not each[0].over]
        found = [each for each in under_way if each[0] is newest] or under_way[number : number + 1]
        for joined, chunks, _ in found:
            listener = Listener(joined, ready=asyncio.Event() if slow else None)
            self.readers.append((listener, asyncio.create_task(listener.listen()), b"".join(chunks)))

    def go_on(self, number: int) -> None:
        for _, _, barriers in self.flights[number : number + 1]:
            if barriers:
                barriers.pop(0).open()

    def leave(self, number: int) -> None:
        for _, task, _ in self.readers[number : number + 1]:
            task.cancel()

    def check(self) -> None:
        fills = self.made.fills
        held = sum(each.rendering.length for each, _, _ in self.flights if not each.over or each.readers)
        assert fills.held_bytes == held
        assert fills.under_way == sum(not each.over for each, _, _ in self.flights)
        for listener, _, source in self.readers:
            assert source.startswith(listener.heard)

    async def end(self) -> None:
        for listener, _, _ in self.readers:
            if listener.ready is not None:
                listener.ready.set()
        for _, _, barriers in self.flights:
            for barrier in barriers:
                barrier.open()
        await self.made.fills.drain()
        await asyncio.gather(*(task for _, task, _ in self.readers), return_exceptions=True)
        for listener, task, source in self.readers:
            assert task.cancelled() or (listener.end == "whole") == (
                listener.flight.state in (State.SEALED, State.ENDED)
            )
            assert listener.end != "whole" or bytes(listener.heard) == source


numbers = st.integers(0, 5)
# Audible from their first byte: what may yet be white space before JSON is held by its attempt, and by no flight.
chunk_lists = st.lists(st.binary(max_size=39).map(lambda rest: b"~" + rest), min_size=1, max_size=4)
happenings = st.one_of(
    st.tuples(st.just("lead"), chunk_lists, st.integers(0, 2)),
    st.tuples(st.just("join"), numbers, st.booleans()),
    st.tuples(st.just("go on"), numbers, st.none()),
    st.tuples(st.just("leave"), numbers, st.none()),
)


@given(st.lists(happenings, max_size=25))
@hypothesis_settings(max_examples=80, deadline=None)
async def test_rule_7_bytes_counted_are_bytes_held(happened: list[tuple[str, Any, Any]]) -> None:
    clusters = Takes()
    async with rig(clusters=clusters, max_held_bytes=200, max_flights=4) as made:
        world = World(made, clusters)
        for what, first, second in happened:
            match what:
                case "lead":
                    world.lead(first, second)
                case "join":
                    world.join(first, slow=second)
                case "go on":
                    world.go_on(first)
                case "leave":
                    world.leave(first)
            await settle()
            world.check()
        await world.end()
        await settle()
        world.check()
