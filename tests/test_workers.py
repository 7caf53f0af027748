"""A daemon of several workers, driven as an operator does: signals, kills, replacement under load, sockets of systemd's."""

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgecache.delivery.auth import new_key
from edgecache.demo import tone
from tests.daemon import HANG_S, Daemon, Daemons, config, daemons, eventually, servers_in
from tests.houses import cluster, keys_file
from tests.scrapes import scrape

pytestmark = pytest.mark.net

TEXTS: list[dict[str, Any]] = [{"text": f"Line {number}", "demo": {"bytes": 20_000}} for number in range(8)]
DUE: dict[str, bytes] = {asked["text"]: tone.audio(asked) for asked in TEXTS}


def of(*urls: str, **changed: Any) -> dict[str, Any]:
    return config(*urls, workers=2, **changed)


class Load:
    """Clients that ask again and again, each time over a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.heard = 0
        self.faults: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as client:
            while True:
                asked = TEXTS[self.heard % len(TEXTS)]
                try:
                    async with client.post(f"http://127.0.0.1:{self.port}/v1/tts", json=asked) as answer:
                        body = await answer.read()
                except aiohttp.ClientError as error:
                    self.faults.append(type(error).__name__)
                    continue
                assert (answer.status, body == DUE[asked["text"]]) == (200, True)
                self.heard += 1


@asynccontextmanager
async def loaded(port: int, clients: int = 4) -> AsyncIterator[Load]:
    load = Load(port)
    load.tasks = [asyncio.create_task(load.run()) for _ in range(clients)]
    try:
        yield load
    finally:
        for task in load.tasks:
            task.cancel()
        ends = await asyncio.gather(*load.tasks, return_exceptions=True)
        assert [end for end in ends if not isinstance(end, asyncio.CancelledError)] == []


async def more(load: Load, count: int = 30) -> None:
    due = load.heard + count
    await eventually(lambda: load.heard >= due or any(task.done() for task in load.tasks))
    assert load.heard >= due, [task for task in load.tasks if task.done()]


async def settled(daemon: Daemon, true: Callable[[list[int]], bool]) -> list[int]:
    async with asyncio.timeout(HANG_S):
        while not true(found := await daemon.workers()):
            await asyncio.sleep(0.02)
    return found


def exchanges(status: dict[str, Any]) -> int:
    return sum(row["exchanges"] for row in status["requests"])


async def test_all_workers_serve_and_the_admin_listener_speaks_for_all() -> None:
    async with cluster() as origin, daemons() as start:
        daemon = await start.serve(of(origin.url))
        assert daemon.logged("serving")[0]["workers"] == 2
        async with loaded(daemon.port) as load:
            await more(load, 100)
        heard = load.heard
        assert load.faults == []
        told = (await daemon.admin("/status"))[1]
        assert told["workers"] == 2
        assert exchanges(told) >= heard
        # Without Redis at most one synthesis a worker.
        assert len(TEXTS) <= origin.counters.syntheses <= 2 * len(TEXTS)
        await daemon.ready()
        assert (await daemon.admin("/clusters/c0/drain", "POST"))[0] == 200
        assert (await daemon.admin("/clusters"))[1]["upstreams"][0]["drained"] is True
        assert await daemon.stopped() == 0


async def test_a_worker_that_is_killed_under_load_is_missed_by_nobody_but_its_own_listeners() -> None:
    async with cluster() as origin, daemons() as start:
        daemon = await start.serve(of(origin.url))
        counted = 0
        async with loaded(daemon.port) as load:
            for _ in range(2):
                await more(load)
                before = await settled(daemon, lambda pids: len(pids) == 2)
                counted = max(counted, exchanges((await daemon.admin("/status"))[1]))
                os.kill(before[0], signal.SIGKILL)
                await more(load)  # the other one serves, also what waits at the dead one's sockets
                status = (await daemon.admin("/status"))[1]
                assert exchanges(status) >= counted
                counted = exchanges(status)
                after = await settled(daemon, lambda pids: len(pids) == 2)
                assert before[0] not in after
                assert before[1] in after
            await more(load)
        assert len(load.faults) <= 2 * 4  # each client was in the middle of something at most once a kill
        assert [line["how"] for line in daemon.logged("a worker died")] == ["signal SIGKILL"] * 2
        assert await daemon.stopped() == 0


@pytest.mark.parametrize("how", ["SIGUSR2", "call"])
async def test_all_workers_are_replaced_under_load_and_nothing_is_dropped(how: str) -> None:
    async with cluster() as origin, daemons() as start:
        daemon = await start.serve(of(origin.url))
        before = await daemon.workers()
        story: dict[str, Any] = {"text": "A story that is being told", "demo": {"rtf": 1.0, "bytes": 3 * 48_000}}
        async with loaded(daemon.port) as load, aiohttp.ClientSession() as client:
            await more(load)
            async with client.post(f"{daemon.url}/v1/tts", json=story) as answer:
                if how == "call":
                    assert (await daemon.admin("/workers/replace", "POST"))[0] == 202
                    assert (await daemon.admin("/workers/replace", "POST"))[0] == 409
                else:
                    daemon.send(signal.SIGUSR2)
                assert await answer.read() == tone.audio(story)
            await daemon.until(lambda: bool(daemon.logged("all workers were replaced")))
            after = await settled(daemon, lambda pids: not set(pids) & set(before))
            await more(load)
            assert load.faults == []
        assert len(after) == 2
        status, processes = (await daemon.admin("/status"))[1], (await daemon.admin("/workers"))[1]["workers"]
        assert exchanges(status) >= load.heard
        serving = [each["uptime_s"] for each in processes if each["state"] == "serving"]  # an old one may still drain
        assert status["uptime_s"] > max(serving)  # counted since then
        assert await daemon.stopped() == 0


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
async def test_asked_to_stop_streams_finish_asked_twice_they_are_broken_off(twice: bool) -> None:
    async with cluster() as origin, daemons() as start, aiohttp.ClientSession() as client:
        daemon = await start.serve(of(origin.url, drain="20s"))
        story: dict[str, Any] = {"text": "To its end", "demo": {"rtf": 1.0, "bytes": (15 if twice else 1) * 48_000}}
        async with client.post(f"{daemon.url}/v1/tts", json=story) as answer:
            first = await answer.content.readany()
            daemon.send(signal.SIGTERM)
            await daemon.until(lambda: len(daemon.logged("draining")) == 2)
            status, told = await daemon.admin("/readyz")
            assert (status, told["checks"]["draining"]) == (503, "this edge is stopping")
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", daemon.port)
            if twice:
                daemon.send(signal.SIGTERM)
                with pytest.raises(aiohttp.ClientPayloadError):
                    await answer.content.read()
            else:
                assert first + await answer.content.read() == tone.audio(story)
        assert await daemon.ended() == 0


async def test_a_hangup_reaches_every_worker(tmp_path: Path) -> None:
    lines = {name: new_key(name) for name in ("ann", "bob")}
    path = keys_file(tmp_path, *(line for _, line in lines.values()))
    async with cluster() as origin, daemons() as start:
        daemon = await start.serve(of(origin.url, auth={"keys_file": str(path)}))
        path.write_text(lines["bob"][1] + "\n")
        daemon.send(signal.SIGHUP)
        await daemon.until(lambda: len(daemon.logged("the keys file was read anew")) == 2)
        for _ in range(20):
            async with (
                aiohttp.ClientSession(headers={"X-API-Key": lines["ann"][0]}) as client,
                client.post(f"{daemon.url}/v1/tts", json=TEXTS[0]) as answer,
            ):
                assert answer.status == 401
        path.write_text("bob\n")
        daemon.send(signal.SIGHUP)
        await daemon.until(
            lambda: len(daemon.logged("the keys file was not taken over; the keys from before hold")) == 2
        )
        assert "keys.txt:1: not `NAME sha256:HEX" in (await daemon.admin("/status"))[1]["keys_fault"]
        successful = "edgecache_keys_last_reload_successful"
        while (await scrape(daemon.admin_port)).value(successful):  # for half a second the same is told
            continue
        path.write_text(lines["bob"][1] + "\n")
        daemon.send(signal.SIGHUP)
        await daemon.until(lambda: len(daemon.logged("the keys file was read anew")) == 4)
        assert (await daemon.admin("/status"))[1]["keys_fault"] == ""
        while not (await scrape(daemon.admin_port)).value(successful):
            continue
        assert await daemon.stopped() == 0


async def test_without_a_supervisor_workers_end_and_the_next_daemon_takes_over() -> None:
    async with cluster() as origin, daemons() as start:
        first = await start.serve(of(origin.url))
        pids = await first.workers()
        assert await first.stopped(signal.SIGKILL) == -signal.SIGKILL
        await eventually(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids))
        again = await start.serve(of(origin.url, listen={"host": "127.0.0.1", "port": first.port}))
        assert again.port == first.port
        assert await again.stopped() == 0


@pytest.mark.redis
@pytest.mark.parametrize("where", ["listen", "admin"])
async def test_a_port_in_use_is_one_clear_line(where: str) -> None:
    async with daemons() as start:
        with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
            port, directory = taken.getsockname()[1], start.directory / "private"
            address = {where: {"host": "127.0.0.1", "port": port}}
            redis = {"redis": {"private_directory": str(directory)}}
            daemon = await start.begin(of("http://127.0.0.1:9", cache=redis, **address))
            assert await daemon.ended() == 2
        assert daemon.lines[-1].startswith(f"error: {where}: 127.0.0.1:{port} is already in use")
        assert servers_in(directory) == set()


@pytest.mark.redis
async def test_the_private_redis_is_one_for_all_and_outlives_workers() -> None:
    async with cluster() as origin, daemons() as start:
        directory = start.directory / "private"
        redis = {"redis": {"private_directory": str(directory), "budget": "1s"}}
        daemon = await start.serve(of(origin.url, cache=redis))
        (pid,) = servers_in(directory)
        async with loaded(daemon.port, 1) as load:
            await more(load, 8)
            while (await daemon.admin("/status"))[1]["tiers"]["redis"]["written"] < len(TEXTS):
                await asyncio.sleep(0.01)
            for each in await daemon.workers():
                os.kill(each, signal.SIGKILL)
            await more(load)
        assert origin.counters.syntheses <= 2 * len(TEXTS)
        made = origin.counters.syntheses
        async with loaded(daemon.port) as load:
            await more(load, 40)
        assert origin.counters.syntheses == made
        assert servers_in(directory) == {pid}
        assert await daemon.stopped() == 0
        assert servers_in(directory) == set()


# Sockets of systemd's.

HAND_OVER = 'export LISTEN_PID=$$; exec "$@" 3<&{0} 4<&{1}'


@asynccontextmanager
async def activated(
    start: Daemons, settings: dict[str, Any], host: str = "127.0.0.1", flags: tuple[str, ...] = ()
) -> AsyncIterator[tuple[Daemon, int, int]]:
    """A daemon that is started as systemd starts one for its sockets."""
    path = start.directory / "activated.yaml"
    path.write_text(json.dumps(settings))
    with socket.create_server((host, 0)) as clients, socket.create_server(("127.0.0.1", 0)) as admin:
        command = (sys.executable, "-m", "edgecache", "serve", "--config", str(path), *flags)
        process = await asyncio.create_subprocess_exec(
            *("/bin/bash", "-c", HAND_OVER.format(clients.fileno(), admin.fileno()), "bash", *command),
            env={"PATH": os.environ["PATH"], "LISTEN_FDS": "2", "LISTEN_FDNAMES": "edgecache.socket:admin"},
            stdout=PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(clients.fileno(), admin.fileno()),
        )
        ports = clients.getsockname()[1], admin.getsockname()[1]
    daemon = Daemon(process)
    daemon._reading = asyncio.create_task(daemon._read(), name="read what the daemon says")
    try:
        yield daemon, *ports
    finally:
        await daemon.close()


@pytest.mark.parametrize("workers", [1, 2])
async def test_it_serves_sockets_that_systemd_opened(workers: int) -> None:
    async with cluster() as origin, daemons() as start:
        settings = config(origin.url, workers=workers)
        async with activated(start, settings) as (daemon, port, admin_port):
            async with (  # it waits in the socket until somebody serves
                aiohttp.ClientSession() as client,
                client.post(f"http://127.0.0.1:{port}/v1/tts", json=TEXTS[0]) as answer,
            ):
                assert await answer.read() == DUE["Line 0"]
            await daemon.serving()
            assert (daemon.port, daemon.admin_port) == (port, admin_port)
            await daemon.ready()
            assert await daemon.stopped() == 0


async def test_a_socket_of_systemds_open_to_all_is_refused_without_keys() -> None:
    async with daemons() as start, activated(start, of("http://127.0.0.1:9"), "0.0.0.0") as (daemon, _, __):
        assert await daemon.ended() == 2
        assert "set auth.keys_file" in daemon.output


@pytest.mark.parametrize("flag", ["--listen", "--admin"])
async def test_a_flag_that_a_socket_of_systemds_contradicts_is_refused(flag: str) -> None:
    flags = (flag, "127.0.0.1:0")
    async with daemons() as start, activated(start, of("http://127.0.0.1:9"), flags=flags) as (daemon, _, __):
        assert await daemon.ended() == 2
        assert f"{flag} is given, and systemd hands over sockets for the same: drop the flag" in daemon.output


async def test_systemd_hears_of_the_supervisor_alone() -> None:
    loop = asyncio.get_running_loop()
    async with daemons() as start:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.setblocking(False)
            systemd.bind(str(start.directory / "notify"))
            environ = {"NOTIFY_SOCKET": str(start.directory / "notify"), "WATCHDOG_USEC": "100000"}
            daemon = await start.serve(of("http://127.0.0.1:9"), environ)
            async with asyncio.timeout(HANG_S):
                ready = (await loop.sock_recv(systemd, 1000)).decode()
                assert ready == f"READY=1\nSTATUS=serving on port {daemon.port} with 2 workers"
                daemon.send(signal.SIGTERM)
                while (told := await loop.sock_recv(systemd, 1000)) == b"WATCHDOG=1":
                    pass
            assert told == b"STOPPING=1"
            assert await daemon.ended() == 0
            rest = b""
            with suppress(BlockingIOError):
                while True:
                    rest += systemd.recv(1000)
            assert b"READY" not in rest
