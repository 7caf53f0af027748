"""Places with real distance between them, for tests: clusters run there, and an edge and its user here.

Packets need root. `far_apart` skips without it, and says why; `any_distance` then falls back to bytes over a TCP relay.
"""

import asyncio
import re
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from edgecache.demo.regions import Atlas, Ground, Impossible, OverTcp, Regions, ground, regions

_LISTENING = re.compile(rb"listening on http://[^:]+:(\d+) ")


@asynccontextmanager
async def far_apart(atlas: Atlas) -> AsyncIterator[Regions]:
    """Packets travel; where they can't, the test is skipped, because only packets do what it is about."""
    async with AsyncExitStack() as left:
        try:
            places = await left.enter_async_context(regions(atlas))
        except Impossible as error:
            pytest.skip(f"needs network namespaces and tun devices, as root has them: {error}")
        yield places


@asynccontextmanager
async def any_distance(atlas: Atlas) -> AsyncIterator[Regions | OverTcp]:
    """Packets if they can, else bytes."""
    async with ground(atlas) as places:
        yield places


@asynccontextmanager
async def cluster(places: Ground, place: str, *knobs: str) -> AsyncIterator[int]:
    """A demo cluster with the tone voice in that place; its port there."""
    words = [word for knob in ("voice=tone", *knobs) for word in ("--knob", knob)]
    command = places.command(place, "origin", "--host", places.address(place), "--port", "0", *words)
    process: Process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, start_new_session=True)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            line = await process.stdout.readline()
        found = _LISTENING.search(line)
        assert found, line
        yield int(found[1])
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
