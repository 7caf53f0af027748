"""Leases between processes, as they are there: workers of one daemon, daemons on one Redis, and who is killed meanwhile."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.daemon import HANG_S, Daemon, Daemons, config, daemons
from tests.lease_houses import ASKED, BEGUN, FIRST, LAST, WAV, first_of
from tests.redis_server import RedisServer
from tests.scripted_upstream import HOLD, Script, ScriptedUpstream, whole
from tests.spoken import of_events

pytestmark = [pytest.mark.net, pytest.mark.redis]

#: Of who is killed or hangs; no machine keeps a leader from renewing it for so long.
LEASE_S = 6.0
WHOLE: Script = [whole(WAV)]
PATIENT = {"connect": "45s", "first_byte": "45s", "between_bytes": "45s", "total": "90s"}


async def begun(
    start: Daemons, cluster: ScriptedUpstream, redis: RedisServer, lease_s: float = LEASE_S, **changed: Any
) -> Daemon:
    cache = {"redis": {"url": redis.url, "budget": "20s", "lease_ttl": f"{round(1000 * lease_s)}ms"}}
    return await start.serve(config(cluster.url, cache=cache, timeouts=PATIENT, **changed))


async def results(daemon: Daemon) -> dict[str, int]:
    told = (await daemon.admin("/status"))[1]["fills"]["leases"]
    return {result: many for result, many in told.items() if many}


async def until_following(daemon: Daemon, many: int = 1) -> None:
    async with asyncio.timeout(HANG_S):
        while (await daemon.admin("/status"))[1]["tiers"]["redis"]["leases"]["following"] != many:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def asking(daemon: Daemon) -> AsyncIterator[aiohttp.ClientResponse]:
    async with aiohttp.ClientSession() as client, client.post(f"{daemon.url}/v1/tts", json=ASKED) as answer:
        yield answer


async def heard(daemon: Daemon) -> tuple[int, bytes]:
    async with asking(daemon) as answer:
        return answer.status, await answer.read()


class Crowd:
    """Clients of one daemon, each with a connection of its own, in three protocols."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        #: How many have heard something.
        self.hearing = asyncio.Semaphore(0)

    async def raw(self) -> bytes:
        async with asking(self._daemon) as answer:
            first = await first_of(answer, len(FIRST))
            self.hearing.release()
            return first + await answer.read()

    async def events(self) -> bytes:
        headers = {"Accept": "text/event-stream"}
        async with (
            aiohttp.ClientSession() as client,
            client.post(f"{self._daemon.url}/v1/tts/stream", json=ASKED, headers=headers) as answer,
        ):
            body = await answer.content.readany()
            self.hearing.release()
            spoken = of_events(body + await answer.read())
            assert spoken.ended == "done"
            return spoken.audio

    async def session(self) -> bytes:
        audio = b""
        async with aiohttp.ClientSession() as client, client.ws_connect(f"{self._daemon.url}/ws/tts/stream") as socket:
            await socket.send_json(ASKED)
            async for message in socket:
                if message.type is aiohttp.WSMsgType.BINARY:
                    if not audio:
                        self.hearing.release()
                    audio += message.data
                elif json.loads(message.data)["type"] == "synthesis_complete":
                    return audio
        raise AssertionError("the session ended before the speech did")


async def test_two_hundred_who_ask_two_workers_at_once_in_three_protocols_cost_one_synthesis(
    redis_server: RedisServer,
) -> None:
    gate = asyncio.Event()
    async with ScriptedUpstream([BEGUN, gate, LAST]) as cluster, daemons() as start:
        # Long: a machine under load may stand still for a while, and then there are two, as there should be.
        daemon = await begun(start, cluster, redis_server, 60.0, workers=2)
        crowd = Crowd(daemon)
        ways = (crowd.raw, crowd.events, crowd.raw, crowd.session)
        asked = [asyncio.create_task(ways[n % 4]()) for n in range(200)]
        async with asyncio.timeout(60):
            for _ in asked:
                await crowd.hearing.acquire()
        gate.set()
        assert set(await asyncio.gather(*asked)) == {WAV}
        assert (await results(daemon), len(cluster.requests)) == ({"taken": 1, "followed": 1}, 1)
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"http://127.0.0.1:{daemon.admin_port}/metrics") as answer,
        ):
            told = await answer.text()
        assert 'edgecache_lease_total{result="followed"} 1.0' in told
        assert await daemon.stopped() == 0


async def test_a_leader_that_is_killed_before_the_first_byte_is_taken_over_from(redis_server: RedisServer) -> None:
    async with ScriptedUpstream([HOLD], WHOLE) as cluster, daemons() as start:
        one, other = [await begun(start, cluster, redis_server) for _ in range(2)]
        lost = asyncio.create_task(heard(one))
        await cluster.asked()
        waiting = [asyncio.create_task(heard(other)) for _ in range(5)]
        await until_following(other)
        assert len(cluster.requests) == 1
        one.process.kill()
        async with asyncio.timeout(HANG_S):
            assert await asyncio.gather(*waiting) == [(200, WAV)] * 5
        assert len(cluster.requests) == 2
        assert await results(other) == {"taken_over": 1}
        with pytest.raises(aiohttp.ClientError):
            await lost


async def test_rules_2_and_3_a_leader_that_is_killed_in_mid_speech_is_a_break_and_nothing_is_kept(
    redis_server: RedisServer,
) -> None:
    async with ScriptedUpstream([BEGUN, HOLD], WHOLE) as cluster, daemons() as start:
        one, other = [await begun(start, cluster, redis_server) for _ in range(2)]
        async with asking(one) as leads, asking(other) as follows:
            assert await first_of(leads, len(FIRST)) == await first_of(follows, len(FIRST)) == FIRST
            one.process.kill()
            for answer in (leads, follows):
                with pytest.raises(aiohttp.ClientError):
                    await answer.read()
        assert [key for key in redis_server.call("KEYS", "*") if key.count(b":") == 1] == []
        assert (await other.admin("/status"))[1]["tiers"]["memory"]["recordings"] == 0
        assert await heard(other) == (200, WAV)
        assert len(cluster.requests) == 2


async def test_a_leader_that_hangs_is_taken_over_from_and_harms_nobody_when_it_goes_on(
    redis_server: RedisServer,
) -> None:
    gate = asyncio.Event()
    async with ScriptedUpstream([gate, BEGUN, LAST], WHOLE) as cluster, daemons() as start:
        one, other = [await begun(start, cluster, redis_server) for _ in range(2)]
        late = asyncio.create_task(heard(one))
        await cluster.asked()
        waits = asyncio.create_task(heard(other))
        await until_following(other)
        one.send(signal.SIGSTOP)
        try:
            assert await waits == (200, WAV)
        finally:
            one.send(signal.SIGCONT)
        gate.set()
        assert await late == (200, WAV)
        assert await heard(other) == (200, WAV)
        assert len(cluster.requests) == 2
