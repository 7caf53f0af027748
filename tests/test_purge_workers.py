"""A purge of a daemon of several workers: it reaches all of them, or says which it did not."""

import asyncio
import os
import signal
from typing import Any

import aiohttp
import pytest

from tests.daemon import HANG_S, Daemon, config, daemons
from tests.houses import cluster
from tests.redis_server import RedisServer
from tests.scrapes import scrape
from tests.test_workers import settled

pytestmark = pytest.mark.net

ASKED = {"text": "Said before"}


async def said(daemon: Daemon) -> str:
    """How the cache did, over a connection of its own: any worker may answer."""
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{daemon.url}/v1/tts", json=ASKED) as answer,
    ):
        await answer.read()
        assert answer.status == 200
        return answer.headers["Cache-Status"]


async def purged(daemon: Daemon, **asked: Any) -> tuple[int, dict[str, Any]]:
    url = f"http://127.0.0.1:{daemon.admin_port}/purge"
    async with aiohttp.ClientSession() as client, client.post(url, json=asked) as answer:
        return answer.status, await answer.json()


async def held(daemon: Daemon) -> int:
    return int((await daemon.admin("/status"))[1]["tiers"]["memory"]["recordings"])


async def known_to_all(daemon: Daemon) -> None:
    """Until each worker has it in memory."""
    for _ in range(500):
        await said(daemon)
        if await held(daemon) == 2:
            return
    raise AssertionError("one worker never answers")


async def test_a_purge_reaches_every_worker_and_is_counted_once() -> None:
    async with cluster() as origin, daemons() as start:
        daemon = await start.serve(config(origin.url, workers=2))
        await known_to_all(daemon)
        status, told = await purged(daemon, voice="default")
        assert (status, told["done"], told["workers"]) == (200, True, {"reached": 2, "missing": []})
        assert told["memory"]["recordings"] == 2
        assert await held(daemon) == 0
        await known_to_all(daemon)
        assert origin.counters.syntheses == 4
        (line,) = daemon.logged("purged")
        assert (line["scope"], line["value"], line["workers"]) == ("voice", "default", 2)
        await purged(daemon, utterance=ASKED)
        assert ASKED["text"] not in daemon.output
        figures = await scrape(daemon.admin_port)
        assert figures.value("edgecache_purges_total", scope="voice", kind="hard") == 1
        assert figures.value("edgecache_purges_standing") == 2
        assert figures.value("edgecache_cache_evictions_total", tier="memory", reason="purged") >= 2
        assert await daemon.stopped() == 0


async def test_a_worker_that_does_not_answer_is_named_and_the_purge_can_be_given_again() -> None:
    async with cluster() as origin, daemons() as start:
        daemon = await start.serve(config(origin.url, workers=2))
        await known_to_all(daemon)
        stopped, _ = await daemon.workers()
        os.kill(stopped, signal.SIGSTOP)
        try:
            status, told = await purged(daemon, all=True)
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert (status, told["done"]) == (207, False)
        assert told["workers"] == {"reached": 1, "missing": [stopped]}
        assert daemon.logged("purged, but not everywhere yet")
        # What it was told meanwhile it carries out when it goes on.
        async with asyncio.timeout(HANG_S):
            while await held(daemon):
                await asyncio.sleep(0.02)
        status, told = await purged(daemon, all=True)
        assert (status, told["workers"]) == (200, {"reached": 2, "missing": []})
        assert await held(daemon) == 0
        assert await daemon.stopped() == 0


@pytest.mark.redis
async def test_a_worker_that_takes_anothers_place_knows_what_was_purged(redis_server: RedisServer) -> None:
    memory_off = {"redis": {"url": redis_server.url, "budget": "3s"}, "memory": {"max_size": 0}}
    async with cluster() as origin, daemons() as start:
        daemon = await start.serve(config(origin.url, workers=2, cache=memory_off))
        while "; hit;" not in await said(daemon):
            pass
        before = await daemon.workers()
        assert (await purged(daemon, cluster="c0"))[0] == 200
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await settled(daemon, lambda pids: len(set(pids) - set(before)) == 2)
        assert (await daemon.admin("/status"))[1]["purges"] == {"standing": 1, "redis": ""}
        assert "; hit;" not in await said(daemon)
        assert await daemon.stopped() == 0
