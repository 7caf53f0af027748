"""What live tests over a real Redis share: answers that have to be right, and a slow way to Redis."""

import asyncio
import random
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgecache.cache.key import Key
from edgecache.node import Node
from edgecache.settings import Cache
from edgecache.store.redis import RedisTier
from tests.houses import Heard, House, with_redis
from tests.redis_tier import HANG_S, NAMING


def redis_alone(url: str, **access: Any) -> Cache:
    """A cache without memory, so that every hit is Redis's. Its budget is generous where a test is not about time."""
    return with_redis(url, memory_bytes=0, **({"budget_s": 15.0, "breaker_open_s": 0.05} | access))


async def said(home: House, text: str, **others: Any) -> Heard:
    """The right speech, whole, and sooner than a hang: `Heard` has compared every byte."""
    async with asyncio.timeout(HANG_S):
        heard = await home.say(text, **others)
    assert (heard.status, heard.whole) == (200, True)
    return heard


async def missed(home: House, text: str) -> Heard:
    """The right speech, made by the cluster."""
    heard = await said(home, text)
    assert "; fwd=uri-miss; stored;" in heard.cache
    return heard


async def hit(home: House, text: str, tier: str = "redis") -> Heard:
    """The right speech, out of this tier."""
    heard = await said(home, text)
    assert "; hit;" in heard.cache, heard.cache
    assert heard.cache.endswith(f"detail={tier}"), heard.cache
    return heard


async def until_hit(home: House, text: str) -> None:
    """Asks until Redis itself has it, not only what waits to be written; every answer before that is right too."""
    before = told(home.node)["hits"]
    async with asyncio.timeout(HANG_S):
        while told(home.node)["hits"] == before:
            await said(home, text)
            await written(home.node)


async def recorded(home: House, text: str) -> Key:
    """Has this text spoken and written to Redis; the key it lies under."""
    heard = await missed(home, text)
    await written(home.node)
    return Key(heard.headers["Content-Location"].rpartition("/")[2])


async def written(node: Node) -> None:
    """Waits until nothing is still to be written to Redis."""
    await node.fills.drain()
    assert await tier_of(node).flush(10.0)


def tier_of(node: Node) -> RedisTier:
    assert node._redis is not None
    return node._redis


def told(node: Node) -> Mapping[str, Any]:
    """What `/status` says of Redis."""
    status: Any = node.status()
    tier: Mapping[str, Any] = status["tiers"]["redis"]
    return tier


def mismatches(node: Node) -> int:
    """How many records under a wrong key `/status` tells of."""
    counted = node.status()["record_mismatches"]
    assert isinstance(counted, int)
    return counted


def where(key: Key) -> str:
    return NAMING.redis_key(key)


class SlowWay:
    """A way to Redis on which every part of a reply takes up to `delay_s`, and parts are cut anywhere."""

    def __init__(self, target: Path, delay_s: tuple[float, float], chance: random.Random) -> None:
        self._target = target
        self._delay_s = delay_s
        self._chance = chance
        self._serving: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()
        self.directory = Path(tempfile.mkdtemp(prefix="edgecache-way-"))
        self.url = f"unix://{self.directory / 's'}"

    async def __aenter__(self) -> "SlowWay":
        self._serving = await asyncio.start_unix_server(self._accept, str(self.directory / "s"))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._serving is not None
        self._serving.close()
        for task in self._talks:
            task.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        await self._serving.wait_closed()
        shutil.rmtree(self.directory)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        far_reader, far_writer = await asyncio.open_unix_connection(str(self._target))
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pass_on(reader, far_writer))
                both.create_task(self._pass_back(far_reader, writer))
        except (ExceptionGroup, asyncio.CancelledError):
            pass  # one side has closed, or the test is over
        finally:
            self._talks.discard(task)
            writer.transport.abort()
            far_writer.transport.abort()

    async def _pass_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(1 << 16):
            cut = self._chance.randrange(len(part))
            for piece in (part[:cut], part[cut:]):
                await asyncio.sleep(self._chance.uniform(*self._delay_s))
                writer.write(piece)
                await writer.drain()
        raise ConnectionError("closed")


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while part := await reader.read(1 << 16):
        writer.write(part)
        await writer.drain()
    raise ConnectionError("closed")
