"""What is kept after a soak: every recording in Redis and in each worker's memory, read back and compared.

Redis is read directly, and by key through the edge; each worker is asked for every text that anyone asked for, over a
connection that is known to be its own, and may answer only from what it has.
"""

import asyncio
import json
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from bench.houses import LOOPBACK
from bench.soak.plan import fields, parts
from bench.soak.verdicts import due
from bench.soak.world import Failed, World
from edgecache.cache.recording import BrokenRecord, unframe
from edgecache.dialects import speeko

PREFIX = b"tts:"
_KEY = re.compile("[0-9a-f]{64}")
_TOGETHER = 4
Fields = Mapping[str, Any]
#: Connections that are made until one of them is a certain worker's.
_MOST_LINES = 40


@dataclass(slots=True)
class Kept:
    """How many were read back, by where; and those that are not what they should be."""

    in_redis: int = 0
    by_key: int = 0
    by_worker: dict[int, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


async def read_back(world: World, asked: Collection[int], say: Callable[[str], None]) -> Kept:
    """All of it."""
    kept = Kept()
    every = {_canonical(part): part for text in asked for part in parts(fields(text))}
    keys = _redis(world, every, kept)
    say(f"read {kept.in_redis} recordings in Redis")
    workers = dict(await world.see_workers())
    for slot, pid in workers.items():
        async with _line_to(world, pid) as client:
            kept.by_worker[slot] = 0

            async def ask(asked: Fields, client: aiohttp.ClientSession = client, slot: int = slot) -> None:
                has = await _from_worker(world, client, asked, kept)
                kept.by_worker[slot] += has

            await _each(every.values(), ask)
        say(f"asked worker {slot} for {len(every)} texts; it has {kept.by_worker[slot]}")
    async with aiohttp.ClientSession() as client:

        async def fetch(key: str) -> None:
            await _by_key(world, client, key, keys[key], kept)

        await _each(sorted(keys), fetch)
    say(f"read {kept.by_key} of them through the edge")
    return kept


async def _each(all_of_them: Iterable[Any], ask: Callable[[Any], Awaitable[None]]) -> None:
    left = iter(all_of_them)

    async def some() -> None:
        for each in left:
            await ask(each)

    await asyncio.gather(*(some() for _ in range(_TOGETHER)))


def _canonical(asked: Fields) -> bytes:
    return speeko.read(json.dumps(asked).encode(), 5000).canonical


def _redis(world: World, every: Mapping[bytes, Fields], kept: Kept) -> dict[str, Fields]:
    """Each recording in Redis is whole, and the speech of what it says it is. Told: what it is, by key."""
    found: dict[str, Fields] = {}
    with world.redis.client() as client:
        for name in client.scan_iter(match=PREFIX + b"*", count=1000, _type="STRING"):
            value = client.get(name)
            key = name.removeprefix(PREFIX).decode()
            if value is None or not _KEY.fullmatch(key):
                continue  # evicted since, or something else that the edge keeps there
            try:
                recording = unframe(key, value)
            except BrokenRecord as error:
                kept.wrong.append(f"Redis, {key}: {error}")
                continue
            asked = every.get(recording.canonical)
            if asked is None:
                kept.wrong.append(f"Redis, {key}: nobody asked for it")
            elif recording.audio != due(asked, recording.audio):
                kept.wrong.append(f"Redis, {key}: not the speech of {asked}")
            else:
                found[key] = asked
                kept.in_redis += 1
    return found


async def _by_key(world: World, client: aiohttp.ClientSession, key: str, asked: Fields, kept: Kept) -> None:
    async with client.get(f"{world.url}/v1/audio/{key}") as answer:
        body = await answer.read()
    if answer.status == 404:
        return  # evicted since
    if answer.status != 200 or body != due(asked, body):
        kept.wrong.append(f"GET /v1/audio/{key}: {answer.status}, not the speech of {asked}")
    else:
        kept.by_key += 1


async def _from_worker(world: World, client: aiohttp.ClientSession, asked: Fields, kept: Kept) -> bool:
    """Whether it has it."""
    only = {"Cache-Control": "only-if-cached"}
    async with client.post(f"{world.url}/v1/tts", json=asked, headers=only) as answer:
        body = await answer.read()
    if answer.status == 200 and body != due(asked, body):
        kept.wrong.append(f"only-if-cached, {asked}: not its speech")
    elif answer.status not in (200, 504):
        kept.wrong.append(f"only-if-cached, {asked}: {answer.status}")
    return answer.status == 200


@asynccontextmanager
async def _line_to(world: World, pid: int) -> AsyncIterator[aiohttp.ClientSession]:
    """A client whose only connection is this worker's."""
    made: list[socket.socket] = []

    def make(address: Any) -> socket.socket:
        made.append(socket.socket(*address[:3]))
        return made[-1]

    async with AsyncExitStack() as left:
        for _ in range(_MOST_LINES):
            connector = aiohttp.TCPConnector(limit=1, keepalive_timeout=60, socket_factory=make)
            client = await left.enter_async_context(aiohttp.ClientSession(connector=connector))
            async with client.get(f"{world.url}/livez") as answer:
                await answer.read()
            if _serves(pid, world.port, made[-1].getsockname()[1]):
                yield client
                return
        raise Failed(f"none of {_MOST_LINES} connections came to worker process {pid}")


def _serves(pid: int, server_port: int, client_port: int) -> bool:
    """Whether this process has the server's end of that connection."""
    ends = f"{_hex(server_port)} {_hex(client_port)}"
    for row in Path("/proc/net/tcp").read_text().splitlines():
        words = row.split()
        if " ".join(words[1:3]) == ends:
            return f"socket:[{words[9]}]" in set(_descriptors(pid).values())
    return False


def _hex(port: int) -> str:
    return f"{bytes(reversed(bytes(map(int, LOOPBACK.split('.'))))).hex().upper()}:{port:04X}"


def _descriptors(pid: int) -> Mapping[str, str]:
    found = {}
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            found[entry.name] = os.readlink(entry.path)
    return found
