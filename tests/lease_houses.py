"""Several edges on one real Redis and one scripted cluster, and who of them listens to whom."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from edgecache.cache.key import Key
from edgecache.cache.lookup import Asked
from edgecache.demo import tone
from edgecache.dialects import speeko
from edgecache.fill.edge import Wish
from edgecache.node import Node
from edgecache.settings import Cache
from tests.daemon import eventually
from tests.houses import PATIENT, running, settings, with_redis
from tests.redis_houses import told
from tests.scripted_upstream import Script, ScriptedUpstream, chunk, head

TEXT = "One voice for all"
ASKED: dict[str, Any] = {"text": TEXT, "demo": {"bytes": 60_000}}
WAV = tone.audio(ASKED)
FIRST, REST = WAV[:20_000], WAV[20_000:]
BEGUN = head("200 OK", "Content-Type: audio/wav", "Transfer-Encoding: chunked") + chunk(FIRST)
LAST = chunk(REST) + chunk(b"")


def shared(url: str, **access: Any) -> Cache:
    """A cache on this Redis. Generous where a test is not about time."""
    return with_redis(url, **({"budget_s": 15.0, "lease_ttl_s": 60.0, "breaker_open_s": 0.05} | access))


@dataclass
class Edges:
    """Edges that share a Redis, and one client of all of them."""

    nodes: list[Node]
    client: aiohttp.ClientSession

    def url(self, number: int) -> str:
        return f"http://127.0.0.1:{self.nodes[number].port}"

    def results(self, number: int) -> Mapping[str, int]:
        """What came of asking for leases."""
        return {result: many for result, many in self.nodes[number].fills.leases.items() if many}

    def leases(self, number: int) -> Mapping[str, int]:
        found: Mapping[str, int] = told(self.nodes[number])["leases"]
        return found

    def asked(self, text: str = TEXT) -> Asked:
        wanted = speeko.read(json.dumps({**ASKED, "text": text}).encode(), 1000)
        return self.nodes[0].edge.asked(Wish(wanted, "default"))

    @property
    def key(self) -> Key:
        return self.asked().key

    @asynccontextmanager
    async def asking(self, number: int, text: str = TEXT, **headers: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer from its head on."""
        asked = {**ASKED, "text": text}
        async with self.client.post(f"{self.url(number)}/v1/tts", json=asked, headers=headers) as answer:
            yield answer

    async def heard(self, number: int, text: str = TEXT) -> bytes:
        async with self.asking(number, text) as answer:
            assert answer.status == 200
            return await answer.read()

    def soon(self, number: int) -> "asyncio.Task[bytes]":
        return asyncio.create_task(self.heard(number))

    async def following(self, number: int, many: int = 1) -> None:
        await eventually(lambda: self.leases(number)["following"] == many)

    async def let_go(self, number: int) -> None:
        """Until its leases are given back."""
        await eventually(lambda: self.leases(number)["holding"] == 0)


@asynccontextmanager
async def edges(redis_url: str, *urls: str, **access: Any) -> AsyncIterator[Edges]:
    """One edge in front of each of these clusters."""
    async with AsyncExitStack() as left:
        cache = shared(redis_url, **access)
        nodes = [await left.enter_async_context(running(settings(url, cache=cache, timeouts=PATIENT))) for url in urls]
        yield Edges(nodes, await left.enter_async_context(aiohttp.ClientSession()))


@asynccontextmanager
async def pair(redis_url: str, *scripts: Script, **access: Any) -> AsyncIterator[tuple[Edges, ScriptedUpstream]]:
    """Two edges in front of one cluster."""
    async with ScriptedUpstream(*scripts) as cluster, edges(redis_url, cluster.url, cluster.url, **access) as made:
        yield made, cluster


async def first_of(answer: aiohttp.ClientResponse, size: int) -> bytes:
    return await answer.content.readexactly(size)
