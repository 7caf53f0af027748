"""A daemon with two workers, a Redis and three clusters, each a process of its own, for a soak to be hard on.

Keeps the rule that nothing is left: every process ends with the block, and is told to end when this one is gone, however it
went. What the daemon says goes to a file, which is read afterwards.
"""

import asyncio
import json
import os
import random
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import redis

from bench.houses import LOOPBACK, ROOT, bound_to
from bench.soak.plan import CLUSTERS

START_TIMEOUT_S = 60.0
#: Small, so that recordings are evicted all the time.
MEMORY, REDIS_BYTES = "16MiB", 24 << 20
#: Below those that systems give to who connects.
PORTS = (15_000, 32_000)
QUOTED_BYTES = 3000
_POLL_S = 0.02


class Failed(Exception):
    """The world did not come up or is not as it must be; the message says what of it."""


async def until(true: Callable[[], Awaitable[bool]], what: str, seconds: float = START_TIMEOUT_S) -> None:
    """Waits until it holds. Failed: it does not in time."""
    try:
        async with asyncio.timeout(seconds):
            while not await true():  # noqa: ASYNC110 - other processes set no event of ours
                await asyncio.sleep(_POLL_S)
    except TimeoutError as error:
        raise Failed(f"{what} not within {seconds:.0f} s") from error


@dataclass(slots=True)
class Part:
    """One program of the world, which can be killed and started again. said: where its words go."""

    name: str
    command: list[str]
    said: Path
    process: Process | None = None

    @property
    def pid(self) -> int | None:
        """None: it does not run."""
        return self.process.pid if self.process and self.process.returncode is None else None

    async def start(self) -> None:
        """It was started; it need not be ready."""
        with self.said.open("ab") as said:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=PIPE,
                stdout=said,
                stderr=said,
                cwd=ROOT,
                start_new_session=True,
                preexec_fn=bound_to(sorted(os.sched_getaffinity(0))),
            )

    def send(self, number: signal.Signals) -> None:
        """A signal, if it runs."""
        if self.pid is not None:
            os.kill(self.pid, number)

    async def end(self, number: signal.Signals = signal.SIGKILL) -> int | None:
        """Its exit status."""
        if self.process is None:
            return None
        self.send(signal.SIGCONT)
        self.send(number)
        with suppress(TimeoutError):
            return await asyncio.wait_for(self.process.wait(), START_TIMEOUT_S)
        self.send(signal.SIGKILL)
        return await self.process.wait()


@dataclass(slots=True)
class Cluster:
    """A cluster and its knobs."""

    part: Part
    port: int

    async def start(self) -> None:
        """It answers."""
        await self.part.start()
        try:
            await until(lambda: _accepts(self.port), f"{self.part.name} is up")
        except Failed as error:
            raise Failed(f"{error}; it said:\n{self.part.said.read_text()[-QUOTED_BYTES:]}") from error

    def turn(self, **knobs: object) -> None:
        """All knobs that are not as usual."""
        process = self.part.process
        if self.part.pid is not None and process and process.stdin:
            process.stdin.write(json.dumps(knobs).encode() + b"\n")


def _port(taken: set[int]) -> int:
    """One that nobody is given who connects. Who asks again and again for a closed port may be given just that, reach
    itself, and keep a cluster that was killed from coming back."""
    while True:
        port = random.randrange(*PORTS)
        with closing(socket.socket()) as trial, suppress(OSError):
            trial.bind((LOOPBACK, port))
            if port not in taken:
                taken.add(port)
                return port


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    return True


@dataclass(slots=True)
class Redis:
    """The region's Redis."""

    part: Part
    socket: Path

    async def start(self) -> None:
        """It answers."""
        self.socket.unlink(missing_ok=True)
        await self.part.start()
        await until(self._answers, "Redis is up")

    async def _answers(self) -> bool:
        if not self.socket.exists():
            return False
        try:
            return bool(self.client().ping())
        except redis.RedisError:
            return False

    def client(self) -> "redis.Redis":
        """A connection of our own."""
        return redis.Redis(unix_socket_path=str(self.socket), protocol=2, socket_timeout=2.0)

    def set_limit(self, limit_bytes: int, policy: str) -> None:
        """How much it may hold, and what it does then."""
        with self.client() as client:
            client.config_set("maxmemory-policy", policy)
            client.config_set("maxmemory", str(limit_bytes))


@dataclass(slots=True)
class World:
    """All of it."""

    directory: Path
    daemon: Part
    port: int
    admin_port: int
    redis: Redis
    clusters: list[Cluster]
    admin: aiohttp.ClientSession
    #: Processes by name, as last seen: `worker 0`.
    workers: dict[int, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    async def ask(self, path: str, method: str = "GET") -> Any:
        """What the admin listener tells."""
        async with self.admin.request(method, f"http://{LOOPBACK}:{self.admin_port}{path}") as answer:
            answer.raise_for_status()
            return await answer.json()

    async def purge(self, what: Mapping[str, object]) -> bool:
        """Whether all workers and Redis have it."""
        url = f"http://{LOOPBACK}:{self.admin_port}/purge"
        async with self.admin.post(url, json=what) as answer:
            return answer.status == 200

    async def metrics(self) -> str:
        """A scrape."""
        async with self.admin.get(f"http://{LOOPBACK}:{self.admin_port}/metrics") as answer:
            answer.raise_for_status()
            return await answer.text()

    async def see_workers(self) -> Mapping[int, int]:
        """Who serves now: the process by slot."""
        told = (await self.ask("/workers"))["workers"]
        self.workers = {each["worker"]: each["pid"] for each in told if each["state"] == "serving"}
        return self.workers

    async def all_serve(self) -> bool:
        """Whether no worker is missing."""
        with suppress(aiohttp.ClientError, TimeoutError):
            return len(await self.see_workers()) == 2
        return False

    def processes(self) -> dict[str, int]:
        """All that run, by name."""
        parts = {"supervisor": self.daemon, "Redis": self.redis.part} | {
            each.part.name: each.part for each in self.clusters
        }
        found = {name: part.pid for name, part in parts.items()}
        found |= {f"worker {slot}": pid for slot, pid in self.workers.items()}
        return {name: pid for name, pid in found.items() if pid is not None}


def _settings(port: int, admin_port: int, socket: Path, clusters: list[Cluster]) -> dict[str, Any]:
    """Quick to notice faults, as a soak has no minutes for each; everything else as it is by default."""
    return {
        "node": {"name": "soak"},
        "listen": {"host": LOOPBACK, "port": port},
        "admin": {"host": LOOPBACK, "port": admin_port},
        "workers": 2,
        "cache": {"memory": {"max_size": MEMORY}, "redis": {"url": f"unix://{socket}"}},
        "clusters": [
            {"name": f"c{number}", "url": f"http://{LOOPBACK}:{each.port}"} for number, each in enumerate(clusters)
        ],
        "timeouts": {"connect": "500ms", "first_byte": "2s", "between_bytes": "1s", "total": "30s"},
        "probing": {"interval": "500ms", "timeout": "500ms"},
        "health": {"ejected": "500ms", "ejected_max": "2s", "slow_start": "1s"},
        # Others may keep the machine busy; that is no reason to refuse anyone here.
        "fills": {"shed": {"lag": "30s", "lag_later": "30s"}},
        "log": {"format": "json", "access": False},
    }


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """It serves; and nothing of it is left."""
    async with AsyncExitStack() as left:
        directory = Path(left.enter_context(tempfile.TemporaryDirectory(prefix="edgecache-soak-")))

        def part(name: str, *command: str) -> Part:
            made = Part(name, list(command), directory / f"{name}.log")
            left.push_async_callback(made.end)
            return made

        socket = directory / "redis.sock"
        options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"]
        options += ["--maxmemory", str(REDIS_BYTES), "--maxmemory-policy", "allkeys-lfu", "--dir", str(directory)]
        region = Redis(part("Redis", "redis-server", *options), socket)
        clusters: list[Cluster] = []
        taken: set[int] = set()
        for number in range(CLUSTERS):
            port = _port(taken)
            name = f"cluster {number}"
            clusters.append(Cluster(part(name, sys.executable, "-m", "bench.soak.cluster", str(port)), port))
        await asyncio.gather(region.start(), *(each.start() for each in clusters))
        port, admin_port = _port(taken), _port(taken)
        path = directory / "edge.yaml"
        path.write_text(json.dumps(_settings(port, admin_port, socket, clusters)))
        daemon = part("supervisor", sys.executable, "-m", "edgecache", "serve", "--config", str(path))
        admin = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        left.push_async_callback(admin.close)
        here = World(directory, daemon, port, admin_port, region, clusters, admin)
        await daemon.start()
        try:
            await until(here.all_serve, "the daemon serves")
        except Failed as error:
            raise Failed(f"{error}; it said:\n{daemon.said.read_text()[-QUOTED_BYTES:]}") from error
        yield here
        await daemon.end(signal.SIGTERM)
