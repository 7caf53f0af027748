"""The daemon as a process: how it stops, how it is killed, what it starts and takes down, and what it tells systemd."""

import asyncio
import json
import random
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgecache.cache.key import Key, is_key
from edgecache.cache.recording import unframe
from edgecache.delivery.auth import new_key
from edgecache.demo import tone
from edgecache.speech.utterance import decode
from tests.attention import attention
from tests.daemon import HANG_S, LOOPBACK, Daemon, Daemons, config, daemons, eventually, servers_in
from tests.houses import Heard, cluster, keys_file
from tests.redis_server import RedisServer
from tests.scripted_upstream import closed_port

pytestmark = pytest.mark.net

STOPS = [signal.SIGTERM, signal.SIGINT]
#: Of 16-bit audio at 24 kHz.
BYTES_PER_S = 48_000


async def say(client: aiohttp.ClientSession, daemon: Daemon, text: str, **demo: Any) -> Heard:
    asked = {"text": text, "demo": demo}
    async with client.post(f"{daemon.url}/v1/tts", json=asked) as answer:
        return await Heard.of(answer, asked)


class Listener:
    """A client in the middle of a stream."""

    def __init__(self, client: aiohttp.ClientSession, daemon: Daemon, text: str, seconds: float) -> None:
        self._asked: dict[str, Any] = {"text": text, "demo": {"rtf": 1.0, "bytes": int(seconds * BYTES_PER_S)}}
        self._asking = client.post(f"{daemon.url}/v1/tts", json=self._asked)

    async def __aenter__(self) -> "Listener":
        self._answer = await self._asking.__aenter__()
        self._first = await self._answer.content.readany()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._answer.release()

    async def rest(self) -> bool:
        """Whether the stream came to its proper end; what was heard belongs to the utterance in any case."""
        chunks, whole = [self._first], True
        try:
            while chunk := await self._answer.content.readany():
                chunks.append(chunk)
        except aiohttp.ClientError:
            whole = False
        assert tone.owner_mismatch(b"".join(chunks), self._asked, whole=whole) is None
        return whole


# Stopping.


@pytest.mark.parametrize("stop", STOPS, ids=lambda number: number.name)
async def test_asked_to_stop_it_lets_streams_finish_and_takes_no_more(stop: signal.Signals) -> None:
    async with cluster() as origin, daemons() as start, aiohttp.ClientSession() as client:
        daemon = await start.serve(config(origin.url))
        await daemon.ready()
        async with Listener(client, daemon, "Let me finish", 6.0) as listener:
            daemon.send(stop)
            await daemon.until(lambda: bool(daemon.logged("draining")))
            assert daemon.logged("draining")[0]["streams"] == 1
            status, told = await daemon.admin("/readyz")
            assert (status, told["checks"]["draining"]) == (503, "this edge is stopping")
            assert (await daemon.admin("/livez"))[0] == 200
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", daemon.port)
            assert await listener.rest()
        assert await daemon.ended() == 0
        assert daemon.logged("POST /v1/tts")[0]["whole"] is True


async def test_an_answer_that_is_read_slowly_is_still_sent_to_its_last_byte() -> None:
    text, size = "All of it, to the last byte of a long recording", 3 << 20
    async with cluster() as origin, daemons() as start, aiohttp.ClientSession() as client:
        daemon = await start.serve(config(origin.url))
        made = await say(client, daemon, text, bytes=size)
        await daemon.until(lambda: bool(daemon.logged("POST /v1/tts")))
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)  # the kernel takes less of it
        narrow.connect(("127.0.0.1", daemon.port))
        reader, writer = await asyncio.open_connection(sock=narrow, limit=1024)
        body = json.dumps({"text": text, "demo": {"bytes": size}}).encode()
        writer.write(b"POST /v1/tts HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await reader.readuntil(b"\r\n\r\n")
        daemon.send(signal.SIGTERM)
        await daemon.until(lambda: bool(daemon.logged("draining")))
        heard = b""
        while len(daemon.logged("POST /v1/tts")) < 2:
            heard += await reader.read(4096)
        # The exchange is over, and its last bytes wait in the process, or in the kernel, for the client to read on.
        assert heard + await reader.read(-1) == made.body
        writer.close()
        assert await daemon.ended() == 0


@pytest.mark.parametrize(
    ("stop", "twice"),
    [(signal.SIGTERM, True), (signal.SIGINT, True), (signal.SIGTERM, False)],
    ids=["SIGTERM twice", "SIGINT and SIGTERM", "drain time over"],
)
async def test_rule_3_what_does_not_finish_is_broken_off_visibly_and_not_stored(
    stop: signal.Signals, twice: bool, redis_server: RedisServer
) -> None:
    async with cluster() as origin, daemons() as start, aiohttp.ClientSession() as client:
        daemon = await start.serve(
            config(origin.url, cache={"redis": {"url": redis_server.url}}, drain="20s" if twice else "1s")
        )
        async with Listener(client, daemon, "A long story", 15.0) as listener:
            daemon.send(stop)
            await daemon.until(lambda: bool(daemon.logged("draining")))
            if twice:
                daemon.send(signal.SIGTERM)
            assert not await listener.rest()
        assert await daemon.ended() == 0
        took = moment(daemon, "stopped") - moment(daemon, "draining")
        assert took < timedelta(seconds=10), "not after the story's 15 s, nor after 20 s of draining"
        assert redis_server.call("DBSIZE") == 0
        (line,) = daemon.logged("POST /v1/tts")
        assert (line["whole"], line["error"]) == (False, "stopping")
        assert bool(daemon.logged("second signal: stopping at once; streams are broken off")) == twice


def moment(daemon: Daemon, message: str) -> datetime:
    """When the daemon said this."""
    (line,) = daemon.logged(message)
    return datetime.fromisoformat(line["ts"])


async def test_idle_connections_and_half_requests_do_not_hold_it_up() -> None:
    async with cluster() as origin, daemons() as start, aiohttp.ClientSession() as client:
        daemon = await start.serve(config(origin.url, limits={"header_timeout": "5m"}))
        await say(client, daemon, "And then nothing")
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
        writer.write(b"POST /v1/tts HTTP/1.1\r\nHos")
        async with attention() as paid:
            assert await daemon.stopped() == 0
        assert paid.took_s < 5, "not the drain's 10 s"
        assert await reader.read(-1) == b""
        writer.close()


async def test_a_hangup_changes_nothing_nor_does_a_systemd_that_does_not_listen() -> None:
    async with cluster() as origin, daemons() as start, aiohttp.ClientSession() as client:
        daemon = await start.serve(config(origin.url), {"NOTIFY_SOCKET": str(start.directory / "gone")})
        daemon.send(signal.SIGHUP)
        await daemon.until(lambda: bool(daemon.logged("no keys file to read anew; restart to read the configuration")))
        assert (await say(client, daemon, "Still there")).whole
        assert await daemon.stopped() == 0


async def test_a_key_taken_out_of_the_file_is_refused_after_a_hangup(tmp_path: Path) -> None:
    lines = {name: new_key(name) for name in ("ann", "bob")}
    path = keys_file(tmp_path, *(line for _, line in lines.values()))
    async with cluster() as origin, daemons() as start, aiohttp.ClientSession() as client:
        daemon = await start.serve(config(origin.url, auth={"keys_file": str(path)}))

        async def status(name: str) -> int:
            asked = client.post(f"{daemon.url}/v1/tts", json={"text": "Mine"}, headers={"X-API-Key": lines[name][0]})
            async with asked as answer:
                await answer.read()
                return answer.status

        assert [await status(name) for name in ("ann", "ann", "ann", "ann", "bob")] == [200] * 5
        path.write_text("a line that is not one\n")
        daemon.send(signal.SIGHUP)
        await daemon.until(lambda: bool(daemon.logged("the keys file was not taken over; the keys from before hold")))
        assert await status("ann") == 200
        path.write_text(lines["bob"][1] + "\n")
        daemon.send(signal.SIGHUP)
        await daemon.until(lambda: bool(daemon.logged("the keys file was read anew")))
        assert [await status("ann"), await status("bob")] == [401, 200]


# Being killed.


@cache
def due(text: str, size_bytes: int) -> bytes:
    return tone.audio({"text": text, "demo": {"bytes": size_bytes}})


def check_stored(server: RedisServer) -> list[dict[str, Any]]:
    """What is stored is whole, and belongs to the utterance that is stored with it. The utterances."""
    stored = []
    for name in server.call("KEYS", "tts:*"):
        if not is_key(name.decode().removeprefix("tts:")):
            continue  # a mailbox, or what was purged
        recording = unframe(Key(name.decode().removeprefix("tts:")), server.call("GET", name))
        fields: dict[str, Any] = decode(recording.canonical)
        assert recording.audio == due(fields["text"], fields["demo"]["bytes"])
        stored.append(fields)
    return stored


async def load(client: aiohttp.ClientSession, port: int, heard: list[str], chance: random.Random) -> None:
    """Asks for one of a few texts again and again, whether or not an edge is there."""
    while True:
        text = f"Text {chance.randrange(60)}"
        asked = {"text": text, "demo": {"bytes": 300_000}}
        try:
            async with client.post(f"http://127.0.0.1:{port}/v1/tts", json=asked) as answer:
                body = await answer.read()
        except aiohttp.ClientError:
            await asyncio.sleep(0.01)
            continue
        assert (answer.status, body == due(text, 300_000)) == (200, True)
        heard.append(answer.headers["Cache-Status"])


async def lives(count: int, server: RedisServer, start: Daemons, origin_url: str, chance: random.Random) -> None:
    """An edge under load that is killed so many times, and started again."""
    port, heard = closed_port(), list[str]()
    of = config(
        origin_url,
        listen={**LOOPBACK, "port": port},
        cache={"redis": {"url": server.url, "budget": "3s"}},
    )
    async with aiohttp.ClientSession() as client:
        loads = [asyncio.create_task(load(client, port, heard, chance)) for _ in range(3)]
        for _ in range(count):
            stored = check_stored(server)
            daemon, enough = await start.serve(of), len(heard) + chance.randint(2, 12)
            if stored:
                assert "; hit;" in (await say(client, daemon, chance.choice(stored)["text"], bytes=300_000)).cache
            await eventually(partial(reached, heard, enough, loads))
            assert await daemon.stopped(signal.SIGKILL) == -signal.SIGKILL
        for each in loads:
            each.cancel()
        ends = await asyncio.gather(*loads, return_exceptions=True)
        assert [end for end in ends if not isinstance(end, asyncio.CancelledError)] == []


def reached(heard: list[str], count: int, loads: list[asyncio.Task[None]]) -> bool:
    return len(heard) >= count or any(each.done() for each in loads)


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.timeout(240)
async def test_rule_2_killed_twenty_times_under_load_they_leave_only_whole_recordings(
    redis_server: RedisServer,
) -> None:
    chance = random.Random(2)
    async with cluster() as origin, daemons() as start, aiohttp.ClientSession() as client:
        await asyncio.gather(*(lives(10, redis_server, start, origin.url, chance) for _ in range(2)))
        last = await start.serve(config(origin.url, cache={"redis": {"url": redis_server.url, "budget": "3s"}}))
        stored = check_stored(redis_server)
        assert len(stored) > 20
        for fields in stored[:5]:
            assert "detail=redis" in (await say(client, last, fields["text"], bytes=300_000)).cache
        assert await last.stopped() == 0


# A Redis of its own.


@pytest.mark.redis
async def test_a_private_redis_outlives_a_kill_and_goes_when_asked_to_stop() -> None:
    async with cluster() as origin, daemons() as start, aiohttp.ClientSession() as client:
        directory = start.directory / "private"
        of = config(origin.url, cache={"redis": {"private_directory": str(directory), "budget": "3s"}})
        first = await start.serve(of)
        assert first.logged("a private Redis keeps recordings")
        (redis_pid,) = servers_in(directory)
        await say(client, first, "Remember me", bytes=20_000)
        while (await first.admin("/status"))[1]["tiers"]["redis"]["written"] == 0:
            await asyncio.sleep(0.01)
        assert await first.stopped(signal.SIGKILL) == -signal.SIGKILL
        assert servers_in(directory) == {redis_pid}
        second = await start.serve(of)
        assert servers_in(directory) == {redis_pid}
        again = await say(client, second, "Remember me", bytes=20_000)
        assert "; hit;" in again.cache
        assert "detail=redis" in again.cache
        assert await second.stopped() == 0
        assert servers_in(directory) == set()
        assert origin.counters.syntheses == 1


async def test_without_a_redis_server_it_keeps_to_memory_and_says_so_once() -> None:
    async with cluster() as origin, daemons() as start, aiohttp.ClientSession() as client:
        of = config(origin.url, cache={"redis": {"private_directory": str(start.directory / "private")}})
        daemon = await start.serve(of, {"PATH": "/nowhere"})
        await say(client, daemon, "Not for long")
        assert "detail=memory" in (await say(client, daemon, "Not for long")).cache
        assert await daemon.stopped() == 0
        (line,) = [line for line in daemon.lines if "redis-server" in line]
        assert "recordings are kept in memory alone" in line
        assert "neither redis-server nor valkey-server is installed" in line


# What it tells systemd, and what it leaves.


@contextmanager
def notify_socket(directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.setblocking(False)
        systemd.bind(str(directory / "notify"))
        yield systemd


async def test_systemd_hears_when_it_serves_that_it_lives_and_when_it_stops() -> None:
    loop = asyncio.get_running_loop()
    async with daemons() as start:
        with notify_socket(start.directory) as systemd:
            environ = {"NOTIFY_SOCKET": str(start.directory / "notify"), "WATCHDOG_USEC": "100000"}
            daemon = await start.serve(config("http://127.0.0.1:9"), environ)
            async with asyncio.timeout(HANG_S):
                ready = await loop.sock_recv(systemd, 1000)
                assert ready.decode() == f"READY=1\nSTATUS=serving on port {daemon.port}"
                for _ in range(3):
                    assert await loop.sock_recv(systemd, 1000) == b"WATCHDOG=1"
                daemon.send(signal.SIGTERM)
                while (told := await loop.sock_recv(systemd, 1000)) == b"WATCHDOG=1":
                    pass
                assert told == b"STOPPING=1"
            assert await daemon.ended() == 0


async def test_connections_that_come_and_go_leave_no_descriptor() -> None:
    async with cluster() as origin, daemons() as start, aiohttp.ClientSession() as client:
        quick = {"pool": {"keep_alive": "100ms"}, "limits": {"header_timeout": "300ms"}}
        daemon = await start.serve(config(origin.url, probing={"interval": "1h"}, **quick))

        def descriptors() -> int:
            return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))

        def request(text: str) -> bytes:
            body = b'{"text":"%b","demo":{"bytes":200000}}' % text.encode()
            return b"POST /v1/tts HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body

        async def churn(number: int) -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
            kinds = [request("A hit"), request(f"A miss {number % 7}"), b"GET /v1/tts?te", b"\x16\x03\x01 not HTTP"]
            writer.write(kinds[number % 4])
            await writer.drain()
            (writer.transport.abort if number % 3 else writer.close)()

        await say(client, daemon, "A hit", bytes=200_000)
        await client.close()
        await eventually(lambda: origin.counters.in_flight == 0)
        before = descriptors()
        await asyncio.gather(*(churn(number) for number in range(200)))
        await eventually(lambda: descriptors() <= before)
        assert await daemon.stopped() == 0
