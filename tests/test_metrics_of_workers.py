"""Metrics of a daemon with two workers, one of which is killed: they tell of all, and no counter falls."""

import asyncio
import os
import signal
from pathlib import Path

import aiohttp

from tests.daemon import Daemon, config, daemons
from tests.houses import cluster
from tests.scrapes import Scrape, scrape

#: No figure of ours: by then a process has hung, also on a machine under load.
HANG_S = 60.0
REQUESTS = "edgecache_http_requests_total"


def workers(daemon: Daemon) -> set[int]:
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    return {int(pid) for pid in children if b"redis" not in Path(f"/proc/{pid}/cmdline").read_bytes()}


async def asked(daemon: Daemon, times: int) -> None:
    for number in range(times):
        async with (
            aiohttp.ClientSession() as client,
            client.post(f"{daemon.url}/v1/tts", json={"text": f"text {number % 5}"}) as answer,
        ):
            assert answer.status == 200
            await answer.read()


async def seen(daemon: Daemon, requests: int, serving: int = 2) -> Scrape:
    """A scrape that tells of so many requests and workers; none before it may tell of more."""
    async with asyncio.timeout(HANG_S):
        while True:
            found = await scrape(daemon.admin_port)
            counted = found.value(REQUESTS, route="/v1/tts")
            assert counted <= requests
            if (counted, found.value("edgecache_workers")) == (requests, serving):
                return found
            await asyncio.sleep(0.1)


async def test_a_worker_that_is_killed_still_counts_and_the_next_one_counts_on() -> None:
    async with cluster() as origin, daemons() as started:
        daemon = await started.serve({**config(origin.url), "workers": 2})
        await asked(daemon, 20)
        await seen(daemon, 20)
        before = workers(daemon)
        os.kill(min(before), signal.SIGKILL)
        async with asyncio.timeout(HANG_S):
            while len(workers(daemon) - before) != 1:
                assert (await scrape(daemon.admin_port)).value(REQUESTS, route="/v1/tts") == 20
                await asyncio.sleep(0.1)
        await seen(daemon, 20)
        await asked(daemon, 10)
        last = await seen(daemon, 30)

    assert last.value("edgecache_http_time_to_first_byte_seconds_count", route="/v1/tts") == 30
    assert last.value("edgecache_slo_events_total", slo="first_byte", subject="hit") > 0
