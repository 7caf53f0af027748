"""Room at clusters as clients meet it: who goes first, and who is refused while nothing moves.

A cluster holds each answer until the test lets it go. Whoever may wait may wait for an hour, so that an answer that comes
while all is held waited for nothing; no test here looks at a clock, but at one that it moves itself.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest

from edgecache.clusters.cluster import Cluster, HealthPolicy, Pool, Timeouts
from edgecache.fill.limits import FillLimits
from edgecache.node import Node
from tests.fake_clock import FakeClock
from tests.houses import settings
from tests.scripted_upstream import Script, ScriptedUpstream, head
from tests.sounds import WAV

HOUR_S = 3600.0
#: Patient enough that nothing ends by itself.
TIMEOUTS = Timeouts(connect_s=30, first_byte_s=HOUR_S, between_bytes_s=HOUR_S, total_s=2 * HOUR_S)
WARM = {"Priority": "u=7"}
#: The head comes at once, and the audio when it is let.
HEAD = head("200 OK", "Content-Type: audio/wav", f"Content-Length: {len(WAV)}")


@dataclass
class Told:
    """What a client got. retry_after: as the header says it."""

    status: int
    code: str = ""
    retry_after: str = ""


@dataclass
class Room:
    """An edge before one cluster that holds all that it is asked, and its clients."""

    node: Node
    clock: FakeClock
    cluster: ScriptedUpstream
    client: aiohttp.ClientSession
    lets: list[asyncio.Event]
    asking: dict[str, asyncio.Task[Told]] = field(default_factory=dict)

    async def ask(self, text: str, headers: Mapping[str, str] | None = None) -> Told:
        """Asks, and hears it to its end."""
        url = f"http://127.0.0.1:{self.node.port}/v1/tts"
        async with self.client.post(url, json={"text": text, "format": "wav"}, headers=headers) as answer:
            if answer.status == 200:
                assert await answer.read() == WAV
                return Told(200)
            error = (await answer.json(content_type=None))["error"]
            return Told(answer.status, error["code"], answer.headers.get("Retry-After", ""))

    async def waits(self, text: str, headers: Mapping[str, str] | None = None) -> None:
        """Asks; comes back when it waits for room, or is asked for."""
        before = self.fills()
        self.asking[text] = asyncio.create_task(self.ask(text, headers))
        while self.fills() == before:
            await asyncio.sleep(0)

    def fills(self) -> tuple[int, int]:
        """How many were asked for, and how many wait."""
        return len(self.cluster.requests), sum(self.waiting.values())

    @property
    def waiting(self) -> dict[str, int]:
        return {name: count for name, count in self.node.fills.admission.waiting.items() if count}

    @property
    def asked(self) -> list[str]:
        """What the cluster was asked for, in its order."""
        return [each.body.decode().partition('"text":"')[2].partition('"')[0] for each in self.cluster.requests]

    async def let_go(self, text: str) -> None:
        """The cluster ends this one; comes back when it is heard, and, if any wait, the next is asked for."""
        asked = len(self.cluster.requests)
        any_wait = bool(self.waiting)
        self.lets[self.asked.index(text)].set()
        assert (await self.asking.pop(text)).status == 200
        await self.cluster.asked(asked + any_wait)


@asynccontextmanager
async def room(*, in_all: int = 100, at_once: int = 64, copies: int = 1, **limits: Any) -> AsyncIterator[Room]:
    """in_all, at_once: connections, and requests of the cluster. copies: so many clusters at one address."""
    lets = [asyncio.Event() for _ in range(40)]
    scripts: list[Script] = [[HEAD, each, WAV] for each in lets]
    clock = FakeClock()
    async with ScriptedUpstream(*scripts) as upstream:
        of = settings(
            fills=FillLimits(**{"wait_s": HOUR_S, "wait_later_s": HOUR_S, **limits}),
            pool=Pool(max_connections=in_all, max_per_host=at_once),
            clusters=tuple(Cluster(name=f"c{n}", url=upstream.url, max_in_flight=64) for n in range(copies)),
            health=HealthPolicy(failures=1000, slow_start_s=0),
            timeouts=TIMEOUTS,
        )
        node = Node(replace(of, drain_s=0.0), clock)
        await node.start()
        try:
            async with aiohttp.ClientSession() as client:
                it = Room(node, clock, upstream, client, lets)
                yield it
                assert it.asking == {}, "everyone was heard or refused"
        finally:
            await node.close()


BOUNDS = {
    "pool.max_connections": {"in_all": 1},
    "pool.max_per_host": {"at_once": 1},
    "pool.max_per_host, of two clusters at one address": {"at_once": 1, "copies": 2},
    "pool.max_connections, of two clusters at one address": {"in_all": 1, "copies": 2},
}


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
async def test_who_is_heard_now_overtakes_who_can_wait_whatever_bound_is_reached(bound: dict[str, int]) -> None:
    async with room(**bound) as it:
        await it.waits("first")
        await it.waits("warm one", WARM)
        await it.waits("warm two", WARM)
        await it.waits("urgent")
        await it.waits("urgent too")
        assert it.waiting == {"interactive": 2, "warm-up": 2}
        assert "0 wait" in repr(it.node._fleet._lines.board), "nobody waits in an order of coming"
        for text in ("first", "urgent", "urgent too", "warm one", "warm two"):
            assert it.asked[-1] == text
            await it.let_go(text)
        assert it.asked == ["first", "urgent", "urgent too", "warm one", "warm two"]


async def test_room_for_several_is_given_to_several() -> None:
    async with room(in_all=3) as it:
        for number in range(5):
            await it.waits(f"text {number}")
        assert (len(it.asked), it.waiting) == (3, {"interactive": 2})
        for number in (1, 0, 2, 3, 4):
            await it.let_go(f"text {number}")
        assert it.asked == [f"text {number}" for number in range(5)]


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
async def test_full_is_told_while_nothing_moves(bound: dict[str, int]) -> None:
    """The cluster is held, the queue is full, the edge's clock stands: no refusal waits for any of it, and hits don't."""
    async with room(max_waiting=2, **bound) as it:
        await it.waits("known")
        await it.let_go("known")
        await it.waits("first")
        await it.waits("second")
        await it.waits("third")
        before = it.fills(), it.clock.now
        for number in range(20):
            assert await it.ask(f"too many {number}") == Told(503, "clusters_busy", "1")
            assert await it.ask(f"much too many {number}", WARM) == Told(503, "clusters_busy", "1")
            assert await it.ask("known") == Told(200)
        assert (it.fills(), it.clock.now) == before
        assert it.node.fills.admission.sent_away == 40
        for text in ("first", "second", "third"):
            await it.let_go(text)


async def test_who_can_wait_loses_its_place_to_who_is_heard_now_and_is_told_so_at_once() -> None:
    async with room(in_all=1, max_waiting=1) as it:
        await it.waits("first")
        await it.waits("warm", WARM)
        urgent = asyncio.create_task(it.ask("urgent"))
        assert await it.asking.pop("warm") == Told(503, "clusters_busy", "1")
        it.asking["urgent"] = urgent
        assert (it.asked, it.waiting) == (["first"], {"interactive": 1})
        await it.let_go("first")
        await it.let_go("urgent")


#: Who may wait and how long, what each departure takes, how many wait then; and what one more is told.
RETRIES = {
    "nobody may wait": ({"max_waiting": 0}, 30.0, 0, "30"),
    "one may wait, and one does": ({"max_waiting": 1}, 30.0, 1, "30"),
    "three may wait, and three do": ({"max_waiting": 3}, 7.0, 3, "7"),
    "all may wait for a minute, which two do": ({"wait_s": 60.0}, 30.0, 2, "30"),
    "all may wait for a minute, which three do": ({"wait_s": 60.0}, 20.0, 3, "20"),
    "it is soon": ({"max_waiting": 3}, 0.2, 3, "1"),
    "it is late": ({"max_waiting": 1}, 900.0, 1, "60"),
}


@pytest.mark.parametrize(("limits", "between_s", "waiting", "told"), RETRIES.values(), ids=RETRIES)
async def test_when_to_come_again_is_how_often_places_came_free(
    limits: dict[str, Any], between_s: float, waiting: int, told: str
) -> None:
    async with room(in_all=1, **limits) as it:
        may_wait = limits.get("max_waiting") != 0
        await it.waits("0")
        for number in range(1, 4):
            if may_wait:
                await it.waits(str(number))
            else:
                assert (await it.ask("in vain")).status == 503
            it.clock.advance(between_s)
            await it.let_go(str(number - 1))
            if not may_wait:
                await it.waits(str(number))
        for number in range(waiting):
            await it.waits(f"waiting {number}")
        assert await it.ask("too many") == Told(503, "clusters_busy", told)
        assert len(it.asked) == 4
        for text in ("3", *(f"waiting {number}" for number in range(waiting))):
            await it.let_go(text)
