"""Room at clusters: who gets it, who waits, and who is told at once that there is no use."""

import asyncio
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from msgspec.structs import replace

from edgecache.cache.key import Key
from edgecache.clusters.fleet import ANYONE
from edgecache.clusters.routing import Whose
from edgecache.clusters.selection import Chosen, NoneLeft, Verdict, Why
from edgecache.errors import SpeechError
from edgecache.fill.flight import Flight, State
from edgecache.fill.priority import Priority
from tests.fill_rig import Rig, order, rig, settle
from tests.scripted_clusters import WAV, Asking, Barrier, Reply, ScriptedClusters

FULL = NoneLeft(1.0, busy=True, verdicts=(Verdict("c0", Why.FULL),))
URGENT, AHEAD, LATER, WARM = Priority


@dataclass
class RoomyClusters(ScriptedClusters):
    """One cluster that may be asked so often at once; each answer waits until it is let go."""

    upstreams: int = 1
    room: int = 1
    #: Who is being asked, by text, in the order of asking.
    speaking: dict[str, Barrier] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)

    def choose(self, tried: Collection[str], whose: Whose = ANYONE) -> Chosen | NoneLeft:
        assert self.open <= self.room
        return super().choose(tried, whose) if self.open < self.room else FULL

    def begun(self, asking: Asking) -> Reply:
        assert self.open < self.room, "more than it may be asked at once"
        barrier = self.speaking[asking.text] = Barrier()
        self.order.append(asking.text)
        self.replies = [Reply([barrier, WAV])]
        return super().begun(asking)

    def ended(self) -> None:
        super().ended()
        self.tell_of_room()

    async def let_go(self, text: str) -> None:
        """This one is over, and whoever is next is asked for."""
        self.speaking[text].open()
        await settle()


@dataclass
class Waiting:
    """Fills over a cluster with little room."""

    it: Rig
    clusters: RoomyClusters
    flights: dict[str, Flight] = field(default_factory=dict)

    async def lead(self, text: str, priority: Priority = URGENT) -> Flight:
        key = Key(text.encode().hex().ljust(64, "0"))
        self.flights[text] = self.it.fills.lead(replace(order(text, key=key), priority=priority))
        await settle()
        return self.flights[text]

    async def error(self, text: str) -> SpeechError:
        with pytest.raises(SpeechError) as told:
            await self.flights[text].begun()
        return told.value

    def waiting(self) -> int:
        return sum(self.it.fills.admission.waiting.values())


@asynccontextmanager
async def waiting(room: int = 1, **limits: float) -> AsyncGenerator[Waiting, None]:
    clusters = RoomyClusters(room=room)
    async with rig(clusters=clusters, **{"wait_s": 60.0, "wait_later_s": 60.0, **limits}) as it:
        yield Waiting(it, clusters)
        await it.fills.close()
        await settle()


async def test_who_is_next_is_a_matter_of_urgency_and_then_of_coming() -> None:
    async with waiting() as made:
        await made.lead("first")
        for text, priority in (("warm", WARM), ("later", LATER), ("a", URGENT), ("ahead", AHEAD), ("b", URGENT)):
            await made.lead(text, priority)
        assert made.it.fills.admission.waiting == {"interactive": 2, "look-ahead": 1, "prefetch": 1, "warm-up": 1}
        served = ["first", "a", "b", "ahead", "later", "warm"]
        for each, following in pairwise([*served, ""]):
            assert made.clusters.order[-1] == each
            await made.clusters.let_go(each)
            assert not following or made.clusters.order[-1] == following
        assert made.clusters.order == served
        assert all(flight.state is State.SEALED for flight in made.flights.values())


async def test_joining_makes_a_waiting_fill_as_urgent() -> None:
    async with waiting() as made:
        await made.lead("first")
        warm = await made.lead("warm", WARM)
        await made.lead("later", LATER)
        assert made.it.fills.join(warm.key, URGENT) is warm
        await made.clusters.let_go("first")
        assert made.clusters.order == ["first", "warm"]
        await made.clusters.let_go("warm")
        await made.clusters.let_go("later")


async def test_nobody_who_comes_meanwhile_gets_past() -> None:
    async with waiting(room=1) as made:
        await made.lead("first")
        await made.lead("second")
        made.clusters.speaking["first"].open()
        while made.clusters.open:
            await asyncio.sleep(0)
        made.it.fills.lead(order("third", key=Key("cd" * 32)))  # just when there is room, and someone was promised it
        await settle()
        assert made.clusters.order == ["first", "second"]
        await made.clusters.let_go("second")
        await made.clusters.let_go("third")


async def test_a_queue_that_is_full_sends_the_least_urgent_away_at_once() -> None:
    async with waiting(max_waiting=2) as made:
        await made.lead("first")
        await made.lead("warm", WARM)
        await made.lead("a")
        await made.lead("b")
        told = await made.error("warm")
        assert (told.status, told.code, told.retry_after_s) == (503, "clusters_busy", 1)
        await made.lead("c")
        assert (await made.error("c")).code == "clusters_busy"
        assert made.it.fills.admission.status()["sent_away"] == 2
        assert made.waiting() == 2


async def test_who_would_not_be_served_in_time_is_told_at_once_and_when_to_come_again() -> None:
    async with waiting(wait_s=3.0) as made:
        await made.lead("0")
        for number in range(1, 6):
            await made.lead(str(number), LATER)
        for number in range(4):  # one comes free every two seconds
            made.it.clock.advance(2.0)
            await made.clusters.let_go(str(number))
        await made.lead("urgent")
        assert not made.flights["urgent"].over, "the next place is its own"
        await made.lead("too many")
        told = await made.error("too many")
        assert (told.status, told.code, told.retry_after_s) == (503, "clusters_busy", 2), (
            "sooner none has left the queue"
        )
        for text in ("4", "urgent", "5"):
            await made.clusters.let_go(text)


async def test_whoever_waited_in_vain_is_told_so() -> None:
    async with waiting(wait_s=0.01) as made:
        await made.lead("first", LATER)
        await made.lead("second")
        told = await made.error("second")
        assert (told.status, told.code) == (503, "clusters_busy")
        assert made.it.fills.admission.status()["gave_up"] == 1
        await made.clusters.let_go("first")


async def test_whoever_is_cancelled_while_called_leaves_the_room_to_the_next() -> None:
    async with waiting() as made:
        await made.lead("first")
        await made.lead("second")
        await made.lead("third")
        made.clusters.speaking["first"].open()
        admission = made.it.fills.admission
        while admission._next is None:
            await asyncio.sleep(0)
        (task,) = (each for each, flight in made.it.fills._tasks.items() if flight is made.flights["second"])
        task.cancel()
        await settle()
        assert made.clusters.order == ["first", "third"]
        await made.clusters.let_go("third")


async def test_an_orphan_that_waits_gives_way_to_who_comes() -> None:
    async with waiting(orphan_after_s=0.0) as made:
        await made.lead("first")
        orphan = await made.lead("nobody listens")
        with orphan.reading():
            pass
        await settle()
        assert orphan.state is State.REFUSED
        assert made.it.fills.status()["orphans"] == {"now": 0, "finished": 0, "abandoned": {"no cluster asked yet": 1}}
        assert made.waiting() == 0
        await made.clusters.let_go("first")


async def test_a_long_orphan_gives_its_room_to_who_waits() -> None:
    async with waiting(orphan_after_s=0.0, orphan_characters=20) as made:
        long = "a text that nobody listens to any more"
        orphan = await made.lead(long)
        with orphan.reading():
            pass
        await settle()
        assert made.it.fills.status()["orphans"] == {"now": 1, "finished": 0, "abandoned": {}}
        await made.lead("someone")
        assert orphan.state is State.REFUSED
        assert made.clusters.order == [long, "someone"]
        await made.clusters.let_go("someone")


async def test_when_all_are_down_nobody_waits() -> None:
    async with rig(clusters=ScriptedClusters(upstreams=0, none_left=NoneLeft(30.0, busy=False)), wait_s=60.0) as it:
        assert (await it.refused()).code == "no_cluster"
        assert it.fills.admission.status()["gave_up"] == 0


async def test_a_clusters_patience_is_waited_for_if_it_is_short() -> None:
    """It asked for a moment's patience, and then there is room without anybody saying so."""
    clusters = ScriptedClusters(upstreams=0, none_left=NoneLeft(0.02, busy=True))
    async with rig(clusters=clusters, wait_s=60.0) as it:
        flight = it.fills.lead(order())
        await settle()
        assert it.fills.admission.is_waiting(flight)
        clusters.upstreams = 1
        await flight.begun()
        await it.fills.drain()
