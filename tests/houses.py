"""Whole edges and clusters for live tests: real sockets, real Redis, and a checker that knows whose bytes are whose."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from edgecache.clusters.cluster import Cluster, HealthPolicy, Probing, Timeouts
from edgecache.delivery.limits import Listen
from edgecache.demo import tone
from edgecache.demo.knobs import Knobs
from edgecache.demo.origin import Origin
from edgecache.fill.shedding import Shed
from edgecache.node import Node
from edgecache.ops.access import AdminAccess
from edgecache.ops.log import Logging
from edgecache.settings import Cache, NodeName, Settings
from edgecache.store.tiers import MemoryLimits, RedisAccess

#: Of those that a test waits for to be over.
TIMEOUTS = Timeouts(connect_s=1.0, first_byte_s=3.0, between_bytes_s=2.0, total_s=20.0)
#: Of all others: no machine is so busy.
PATIENT = Timeouts(connect_s=30.0, first_byte_s=30.0, between_bytes_s=30.0, total_s=60.0)
#: Of clusters that do not answer the first probe nothing is known: they are asked in the operator's order.
UNMEASURED = Probing(interval_s=3600, timeout_s=3600)
LOCAL = Listen(host="127.0.0.1", port=0)


def settings(*urls: str, **changed: Any) -> Settings:
    """Settings of an edge in front of these clusters, without Redis."""
    clusters = tuple(Cluster(name=f"c{n}", url=url) for n, url in enumerate(urls))
    plain = Settings(
        node=NodeName(name="test-edge"),
        listen=LOCAL,
        admin=AdminAccess(port=0),
        clusters=clusters,
        cache=Cache(redis=RedisAccess(url="off")),
        timeouts=PATIENT,
        probing=Probing(interval_s=0.2, timeout_s=30.0),
        health=HealthPolicy(ejected_s=0.2, ejected_max_s=1.0),
        log=Logging(access=False),
        drain_s=5.0,
    )
    made = replace(plain, **changed)
    return replace(made, fills=replace(made.fills, shed=unhurried(made.fills.shed)))


def unhurried(shed: Shed) -> Shed:
    """The same, but a machine that others use sheds nothing: where lateness is what is tested, the test says how much."""
    usual = Shed()
    lags = {"lag_later_s": 30.0, "lag_s": 60.0}
    return replace(shed, **{name: much for name, much in lags.items() if getattr(shed, name) == getattr(usual, name)})


def with_redis(url: str, *, memory_bytes: int = 64 << 20, **changed: Any) -> Cache:
    """A cache whose second tier is this Redis."""
    return Cache(
        memory=MemoryLimits(max_size_bytes=memory_bytes), redis=RedisAccess(**{"url": url, "budget_s": 15.0, **changed})
    )


@asynccontextmanager
async def running(of: Settings) -> AsyncIterator[Node]:
    """An edge that serves."""
    node = Node(of)
    await node.start()
    try:
        yield node
    finally:
        await node.close()


@asynccontextmanager
async def cluster(**knobs: Any) -> AsyncIterator[Origin]:
    """A demo cluster with the tone voice."""
    origin = Origin(Knobs(**{"voice": "tone", **knobs}))
    await origin.start()
    try:
        yield origin
    finally:
        await origin.close()


@dataclass(slots=True)
class House:
    """One cluster, one edge, one client."""

    origin: Origin
    node: Node
    client: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.node.port}"

    async def say(self, text: str, *, headers: Mapping[str, str] | None = None, **others: Any) -> "Heard":
        """Asks for speech and hears it to its end, or to where it breaks."""
        asked = {"text": text, **others}
        async with self.client.post(f"{self.url}/v1/tts", json=asked, headers=headers) as answer:
            return await Heard.of(answer, asked)


@dataclass(slots=True)
class Heard:
    """What a client heard, and whose it is."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool
    asked: dict[str, Any]

    @classmethod
    async def of(cls, answer: aiohttp.ClientResponse, asked: dict[str, Any]) -> "Heard":
        chunks: list[bytes] = []
        whole = True
        try:
            while chunk := await answer.content.readany():
                chunks.append(chunk)
        except (aiohttp.ClientError, ConnectionError):
            whole = False
        heard = cls(answer.status, answer.headers, b"".join(chunks), whole, asked)
        heard.check_owner()
        return heard

    def check_owner(self) -> None:
        """Wrong bytes fail the test, in every test: audio is a function of the utterance."""
        knobs = self.asked.get("demo", {})
        if self.status == 200 and not {"lie", "json_error", "empty"} & set(knobs):
            assert tone.owner_mismatch(self.body, self.asked, whole=self.whole, takes="take" in knobs) is None

    @property
    def cache(self) -> str:
        return self.headers.get("Cache-Status", "")

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])


@asynccontextmanager
async def house(*, knobs: Mapping[str, Any] | None = None, **changed: Any) -> AsyncIterator[House]:
    """A whole small world, taken down again."""
    async with (
        cluster(**(knobs or {})) as origin,
        running(settings(origin.url, **changed)) as node,
        aiohttp.ClientSession() as client,
    ):
        yield House(origin, node, client)


async def raw(port: int, sent: bytes, *, until_closed: bool = True, timeout_s: float = 10.0) -> bytes:
    """What an edge answers to exactly these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        async with asyncio.timeout(timeout_s):
            return await reader.read(-1) if until_closed else await reader.read(1 << 16)
    finally:
        writer.close()


def keys_file(directory: Path, *lines: str) -> Path:
    """A file of hashed API keys."""
    path = directory / "keys.txt"
    path.write_text("\n".join(lines) + "\n")
    return path
