"""An edge whose clusters are really far away: distances that change, packets that are lost, and a way that is cut.

Rows 25, 108 and 109 of the table of faults. Only packets can do what these are about (a relay of bytes loses nothing, and
TCP would measure the way to it), so without root they are skipped.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from edgecache.demo import tone
from edgecache.demo.links import Link
from edgecache.demo.regions import Atlas, Regions
from tests.attention import attention
from tests.daemon import Daemon, config, daemons
from tests.worlds import cluster, far_apart

pytestmark = pytest.mark.net

EDGE, ONE, OTHER = "edge", "one", "other"
HANG_S = 90.0


@dataclass
class Heard:
    """An answer. by: who was asked for it, or where it was."""

    status: int
    by: str
    hit: bool
    took_s: float


@dataclass
class Far:
    """An edge, here, and its clusters."""

    places: Regions
    daemon: Daemon
    client: aiohttp.ClientSession
    asked: list[Heard] = field(default_factory=list)

    async def ask(self, text: str, **fields: Any) -> Heard:
        """Every byte of a 200 is looked at."""
        wanted = {"text": text, "format": "wav", **fields}
        asked = self.client.post(f"{self.daemon.url}/v1/tts", data=json.dumps(wanted))
        async with attention() as paid, asked as answer:
            body = await answer.read()
        told = answer.headers.get("Cache-Status", "")
        if answer.status == 200:
            assert tone.owner_mismatch(body, wanted) is None
        heard = Heard(answer.status, told.rpartition("detail=")[2], "; hit" in told, paid.took_s)
        self.asked.append(heard)
        return heard

    async def until_asked(self, who: str, words: str) -> float:
        """How long it takes until that cluster is asked; others are asked meanwhile."""
        number = 0
        async with attention() as paid:
            while (await self.ask(f"{words} {number}")).by != who:
                number += 1
        return paid.took_s

    @property
    def switches(self) -> int:
        """How often another cluster was asked than before."""
        by = [heard.by for heard in self.asked if not heard.hit]
        return sum(one != other for one, other in pairwise(by))


@asynccontextmanager
async def far(links: Mapping[str, Link], mtu: int = 1500, **changed: Any) -> AsyncIterator[Far]:
    """An edge with a cluster behind each link; it has measured all of them."""
    atlas = Atlas({(EDGE, name): link for name, link in links.items()}, here=EDGE, mtu=mtu)
    async with asyncio.timeout(HANG_S), AsyncExitStack() as left:
        places = await left.enter_async_context(far_apart(atlas))
        urls = {}
        for name in links:
            port = await left.enter_async_context(cluster(places, name))
            urls[name] = f"http://{places.address(name)}:{port}"
        settings = config(
            clusters=[{"name": name, "url": url} for name, url in urls.items()],
            probing={"interval": "100ms", "idle_factor": 1},
            **changed,
        )
        daemon = await (await left.enter_async_context(daemons())).serve(settings)
        client = await left.enter_async_context(aiohttp.ClientSession())
        while not all(each["rtt_ms"] for each in (await daemon.admin("/clusters"))[1]["upstreams"]):
            await asyncio.sleep(0.02)
        yield Far(places, daemon, client)


async def test_row_25_another_cluster_is_asked_when_it_has_become_nearer_and_no_sooner() -> None:
    async with far({ONE: Link(20), OTHER: Link(45)}) as world:
        await world.until_asked(ONE, "at first")
        world.asked.clear()
        took_s = []
        for number, (rtt_ms, nearer) in enumerate([(80, OTHER), (20, ONE), (80, OTHER)]):
            await world.places.change({(EDGE, ONE): Link(rtt_ms)})
            took_s.append(await world.until_asked(nearer, f"flip {number}"))
            for n in range(10):
                await world.ask(f"after {number}, {n}")
        assert world.switches <= 3, "once for each flip, and never back"
        assert max(took_s) < 8.0, took_s


async def test_row_25_jitter_makes_nobody_flap() -> None:
    async with far({ONE: Link(20, jitter_ms=5), OTHER: Link(22, jitter_ms=5)}) as world:
        for n in range(60):
            await world.ask(f"noise {n}")
            await asyncio.sleep(0.02)
        assert world.switches <= 2
        assert {heard.status for heard in world.asked} == {200}


ROUGH = {
    "1 % lost": (Link(20, loss=0.01), 1500),
    "5 % lost": (Link(20, loss=0.05), 1500),
    "reordered": (Link(20, jitter_ms=20, reorder=True), 1500),
    "small packets, 1 % lost": (Link(20, loss=0.01), 600),
}


@pytest.mark.parametrize(("link", "mtu"), ROUGH.values(), ids=ROUGH)
async def test_row_108_a_rough_way_makes_misses_slower_and_nothing_else(link: Link, mtu: int) -> None:
    # A SYN that is lost is sent again after a second.
    patient = {"connect": "30s", "first_byte": "30s", "between_bytes": "30s", "total": "60s"}
    async with far({ONE: link}, mtu, timeouts=patient) as world:
        await asyncio.gather(*(world.ask(f"rough {n}", demo={"bytes": 60_000}) for n in range(12)))
        fared = (await world.places.told())["ways"][f"{ONE} {EDGE}"]
        again = [await world.ask(f"rough {n}", demo={"bytes": 60_000}) for n in range(12)]
    assert [heard.status for heard in world.asked] == [200] * 24
    assert all(heard.hit for heard in again)
    assert fared["packets"] >= 12 * 60_000 / mtu
    assert (fared["lost"] > 0) == (link.loss > 0)


async def test_row_109_through_a_partition_hits_go_on_and_misses_come_back() -> None:
    quick: dict[str, Any] = {
        "timeouts": {"connect": "300ms", "first_byte": "500ms", "between_bytes": "1s", "total": "5s"},
        "health": {"failures": 2, "ejected": "200ms", "ejected_max": "400ms"},
    }
    async with far({ONE: Link(20)}, **quick) as world:
        known = [f"known {n}" for n in range(5)]
        for text in known:
            while (await world.ask(text)).status != 200:  # half a second is not long on a busy machine
                pass
        for _ in range(5):
            await world.places.change({(EDGE, ONE): Link(20, cut=True)})
            for n in range(6):
                missed = await world.ask(f"cut off {n}")
                assert missed.status in (502, 503, 504)
                assert missed.took_s < 5.0
                hits = [await world.ask(text) for text in known]
                assert all(heard.hit and heard.status == 200 for heard in hits)
            await world.places.change({(EDGE, ONE): Link(20)})
            # 2 s after the breaker allows, which is 0.4 s, and half more of it at random.
            if await healed(world) < 2.6:
                return
    pytest.fail("it took long each time")


async def healed(world: Far) -> float:
    """How long it takes until a text that nobody knows is told."""
    number, words = 0, f"healed {len(world.asked)}"
    async with attention() as paid:
        while (await world.ask(f"{words}, {number}")).status != 200:
            number += 1
            await asyncio.sleep(0.02)
    return paid.took_s
