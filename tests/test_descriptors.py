"""Fault 94, no descriptors left: refused at once, nothing spins, nobody is blamed for it, and it is over when it is over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from edgecache.portions import OWN_DESCRIPTORS, fitted
from tests.daemon import Daemon, config, daemons
from tests.houses import cluster, settings

MOST = 160
#: As `ulimit -n`, hard.
LIMITED = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({MOST}, {MOST}))"

FITS = {
    "plenty": (1 << 20, 10_000, 100),
    "endless": (1 << 62, 10_000, 100),
    "as most systems have": (1024, 1024 - 100 - OWN_DESCRIPTORS, 100),
    "few": (MOST, MOST - MOST // 4 - OWN_DESCRIPTORS, MOST // 4),
    "hardly any": (16, 1, 4),
}


@pytest.mark.parametrize(("descriptors", "clients", "lines"), FITS.values(), ids=FITS)
def test_there_are_no_more_connections_than_descriptors(descriptors: int, clients: int, lines: int) -> None:
    made = fitted(settings("http://127.0.0.1:9"), descriptors)
    assert (made.limits.connections, made.pool.max_connections) == (clients, lines)


def processor_s(daemon: Daemon) -> float:
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@asynccontextmanager
async def crowd(port: int, many: int) -> AsyncIterator[list[bytes]]:
    """So many connections, held open; what each was told without asking."""
    async with AsyncExitStack() as left:
        told: list[bytes] = []
        for _ in range(many):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            left.callback(writer.close)
            try:
                async with asyncio.timeout(0.02):
                    told.append(await reader.read(1 << 16))
            except TimeoutError:
                told.append(b"")
            except ConnectionError:
                told.append(b"reset")
        yield told


async def test_fault_94_without_descriptors_it_refuses_and_goes_on() -> None:
    async with cluster() as origin, daemons() as start, aiohttp.ClientSession() as client:
        daemon = await start.serve(config(origin.url), sabotage=LIMITED)
        (line,) = daemon.logged("fewer descriptors than connections")
        limit = MOST - MOST // 4 - OWN_DESCRIPTORS
        assert (line["limit"], line["configured"]) == (limit, 10_000)
        assert (await say(client, daemon, "Hello")) == 200
        async with crowd(daemon.port, 2 * MOST) as told:
            before_s = processor_s(daemon)
            welcome = sum(not each for each in told)
            refused = [each for each in told if each.startswith(b"HTTP/1.1 503")]
            assert welcome <= limit
            assert len(refused) + told.count(b"reset") + welcome == len(told)
            assert refused, "said, and not only closed"
            assert b"Retry-After: 1" in refused[0]
            # Whoever is inside is served on: hits, and new speech from the cluster.
            assert [await say(client, daemon, text) for text in ("Hello", "New", "Newer")] == [200] * 3
            await asyncio.sleep(1.0)
            assert processor_s(daemon) - before_s < 0.7, "nothing spins"
            upstreams = (await daemon.admin("/clusters"))[1]["upstreams"]
        assert [(each["state"], each["failures"]) for each in upstreams] == [("up", 0)]
        async with aiohttp.ClientSession() as another:
            async with asyncio.timeout(10):
                while await say(another, daemon, "Again") != 200:
                    await asyncio.sleep(0.05)


async def say(client: aiohttp.ClientSession, daemon: Daemon, text: str) -> int:
    async with client.post(f"{daemon.url}/v1/tts", json={"text": text}) as answer:
        await answer.read()
        return answer.status
