"""A small world to try the edge in: two demo clusters, one near and one far, and an edge in front, each a process.

Keeps the rule that the world ends whole, however it ends: by Ctrl-C, also while it starts, by the end of its terminal,
because a part of it ended, or killed. No process is left, nor the edge's private Redis. It knows the edge as its users do:
by its command line, its configuration, its log and its admin listener.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from edgecache.demo.leash import tied

#: One way, in milliseconds: a cluster in the region, and one across an ocean.
NEAR_MS, FAR_MS = 10, 90
#: How long a cluster takes to think, and how much faster than real time it speaks.
FIRST_BYTE_MS, REAL_TIME_FACTOR = 250, 0.25
#: The longest that a part may take to start, and to stop when it is asked to; then it is killed.
START_S, STOP_S = 20.0, 8.0
#: What a part that is gone has said is here by then.
LAST_WORDS_S = 1.0
#: Streams may finish for so long when the world ends.
DRAIN_S = 3
#: Between two looks at whether the edge has measured its clusters.
LOOK_S = 0.05
#: The ports where the client commands look if they are not told otherwise.
PORT, ADMIN_PORT = 8080, 9901
#: Longest directory in which a Unix socket's path still fits (unix(7)); a private Redis has one there.
_DIRECTORY_BYTES = 80
#: What a demo cluster says when it serves.
_LISTENING = re.compile(r"listening on (?P<url>\S+) \(voice: (?P<voice>[^,]+),")
#: What the edge says of itself that the greeting says better.
_KNOWN = frozenset({"serving", "draining", "stopped", "a private Redis keeps recordings"})


class WorldError(Exception):
    """A part of the world would not start, or ended by itself."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a demo cluster says of itself."""

    url: str
    voice: str


@dataclass(frozen=True, slots=True)
class _Part:
    """One process of the world."""

    name: str
    process: Process
    watch: "asyncio.Task[None]"

    def ask_to_end(self) -> None:
        """Twice: at once."""
        with suppress(ProcessLookupError):
            self.process.terminate()

    async def end(self) -> None:
        """It is gone when this returns."""
        if self.process.returncode is None:
            self.ask_to_end()
            try:
                async with asyncio.timeout(STOP_S):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        await asyncio.wait([self.watch], timeout=LAST_WORDS_S)
        self.watch.cancel()


class World:
    """The processes of one demonstration."""

    def __init__(self, port: int, voice: str) -> None:
        self._port = port
        self._voice = voice
        self._parts: list[_Part] = []
        self._ending = False

    def run(self) -> int:
        """Until Ctrl-C, SIGTERM or SIGHUP. The exit code: 0, or 1 when a part would not start or ended by itself."""
        return asyncio.run(self._live())

    async def _live(self) -> int:
        loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = loop.create_future()
        self._serving: asyncio.Future[Mapping[str, str]] = loop.create_future()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._asked_to_end)
        with _directory() as directory:
            showing = asyncio.create_task(self._show(Path(directory)), name="show")
            try:
                await asyncio.wait([showing, self._over], return_when=asyncio.FIRST_COMPLETED)
                if not self._over.done():
                    showing.result()
                await self._over
            except WorldError as error:
                talk(f"error: {error}")
                return 1
            finally:
                showing.cancel()
                await asyncio.gather(showing, return_exceptions=True)
                await self._end(Path(directory))
        talk("Stopped. Bye.")
        return 0

    def _asked_to_end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)
        elif self._ending:
            for part in self._parts:
                part.ask_to_end()

    async def _show(self, directory: Path) -> None:
        """Starts everything and says where it is."""
        began_s = time.monotonic()
        talk("  Starting two demo clusters and an edge ...")
        try:
            async with asyncio.timeout(START_S):
                greeting = await self._settle(directory)
        except TimeoutError as error:
            raise WorldError(f"it did not start within {START_S:g} s") from error
        print(f"{greeting}\n  Ready in {time.monotonic() - began_s:.1f} s. Ctrl-C stops.\n", flush=True)

    async def _settle(self, directory: Path) -> str:
        """Everything runs when it returns; what there is to say of it."""
        near, far = await asyncio.gather(
            self._cluster("near", distance_ms=NEAR_MS), self._cluster("far", distance_ms=FAR_MS)
        )
        clusters = {"near": near.url, "far": far.url}
        edge = await self._edge(directory, _configuration(self._port, directory, clusters))
        try:
            return _greeting(edge, near.voice, await measured(edge["admin"]), await told_by(edge["admin"], "/status"))
        except OSError:
            await self._ended_by_itself()

    async def _ended_by_itself(self) -> NoReturn:
        """A part is gone; who watches it knows how."""
        await asyncio.shield(self._over)
        raise WorldError("it is over already")

    async def _start(self, name: str, *arguments: str) -> Process:
        process = await asyncio.create_subprocess_exec(
            *self._command(name, *arguments),
            stdin=PIPE,
            stdout=PIPE if name != "edge" else DEVNULL,
            stderr=PIPE,
            env={key: value for key, value in os.environ.items() if not key.startswith("EDGECACHE_")},
            limit=1 << 20,
            start_new_session=True,  # a Ctrl-C is for us; we take everything down ourselves, in order
        )
        watch = asyncio.create_task(self._watch(name, process), name=f"watch {name}")
        self._parts.append(_Part(name, process, watch))
        return process

    def _command(self, name: str, *arguments: str) -> list[str]:
        """What runs this part, on a leash."""
        return tied(*arguments)

    async def _watch(self, name: str, process: Process) -> None:
        """Shows what it says until it ends, which it should not by itself."""
        assert process.stderr is not None
        async for line in process.stderr:
            self._hear(name, line.decode("utf-8", "replace").rstrip())
        code = await process.wait()
        if not self._ending and not self._over.done():
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            self._over.set_exception(WorldError(f"{name} ended by itself ({how})"))

    def _hear(self, name: str, line: str) -> None:
        try:
            told = json.loads(line)
            event = told.pop("msg")
        except (ValueError, KeyError, TypeError, AttributeError):
            talk(f"  {name:<5} {line}")
            return
        if event == "serving" and not self._serving.done():
            self._serving.set_result(told)
        if event not in _KNOWN and told.get("new") != "drain":
            hidden = ("ts", "level", "request_id", "caller")
            fields = "  ".join(f"{key}={value}" for key, value in told.items() if key not in hidden and value != "")
            talk(f"  {name:<5} {event}  {fields}")

    async def _cluster(self, name: str, host: str = "127.0.0.1", distance_ms: int = 0) -> Cluster:
        knobs = {
            "voice": self._voice,
            "distance_ms": distance_ms,
            "first_byte_ms": FIRST_BYTE_MS,
            "rtf": REAL_TIME_FACTOR,
        }
        turned = [word for knob, value in knobs.items() for word in ("--knob", f"{knob}={value}")]
        process = await self._start(name, "origin", "--name", name, "--host", host, "--port", "0", *turned)
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        found = _LISTENING.search(line)
        if found is None:
            await self._ended_by_itself()
        return Cluster(found["url"], found["voice"])

    async def _edge(self, directory: Path, configuration: Mapping[str, Any]) -> Mapping[str, str]:
        """Its addresses, when it serves: `url` and `admin`."""
        path = directory / "edge.yaml"
        path.write_text(json.dumps(configuration))  # JSON is YAML
        await self._start("edge", "serve", "--config", str(path))
        return await self._serving

    async def _end(self, directory: Path) -> None:
        """The edge first, so that it can finish what it streams; it takes its Redis down itself unless it was killed."""
        self._ending = True
        for part in reversed(self._parts):
            await part.end()
        await _end_redis(directory / "redis")


def _configuration(port: int, directory: Path, clusters: Mapping[str, str]) -> dict[str, Any]:
    """The edge's: at its usual ports where those are free."""
    if port and not is_free(port):
        talk(f"  port {port} is in use; taking another")
        port = 0
    return {
        **common(directory, clusters),
        "node": {"name": "demo-edge", "region": "here"},
        "listen": {"host": "127.0.0.1", "port": port},
        "admin": {"host": "127.0.0.1", "port": ADMIN_PORT if port and is_free(ADMIN_PORT) else 0},
        # TCP would tell the way to the relay that plays the distance.
        "probing": {"measure": "answer"},
    }


def common(directory: Path, clusters: Mapping[str, str]) -> dict[str, Any]:
    """What edges of all worlds are told."""
    return {
        "cache": {"redis": {"private_directory": str(directory / "redis")}},
        "clusters": [{"name": name, "url": url, "dialect": "speeko"} for name, url in clusters.items()],
        "log": {"format": "json"},
        "drain": f"{DRAIN_S}s",
    }


def is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _directory() -> tempfile.TemporaryDirectory[str]:
    """Where the edge's private Redis has its socket, whose path has to be short."""
    is_long = len(os.fsencode(tempfile.gettempdir())) > _DIRECTORY_BYTES - len("/edgecache-demo-xxxxxxxx/redis")
    return tempfile.TemporaryDirectory(
        prefix="edgecache-demo-", dir="/tmp" if is_long else None, ignore_cleanup_errors=True
    )


async def _end_redis(directory: Path) -> None:
    """Takes down what an edge that was killed left: a private Redis is found again, and then it is ours to end."""
    if not (directory / "redis.pid").exists():
        return
    from edgecache.store.private import PrivateRedis
    from edgecache.store.tiers import RedisAccess

    left = PrivateRedis(RedisAccess(), directory)
    await left.start()
    await left.close()


async def told_by(admin: str, path: str, made: Callable[[], socket.socket] = socket.socket) -> dict[str, Any]:
    """What the admin listener tells there. made: the socket that asks it. OSError: it does not answer."""
    host, _, port = admin.removeprefix("http://").rpartition(":")
    asking = made()
    asking.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(asking, (host, int(port)))
    except OSError:
        asking.close()
        raise
    reader, writer = await asyncio.open_connection(sock=asking)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        _, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    if not body:
        raise ConnectionResetError
    told: dict[str, Any] = json.loads(body)
    return told


async def measured(admin: str, made: Callable[[], socket.socket] = socket.socket) -> list[dict[str, Any]]:
    """The edge's clusters, once it knows how far each is."""
    while True:
        clusters: list[dict[str, Any]] = (await told_by(admin, "/clusters", made))["upstreams"]
        if all(cluster["rtt_ms"] is not None for cluster in clusters):
            return clusters
        await asyncio.sleep(LOOK_S)


def told_cache(status: Mapping[str, Any]) -> str:
    """Where recordings are kept, and if not in Redis why not."""
    from edgecache.store.private import PROGRAMS

    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if status["tiers"]["redis"] != "off":
        return f"memory, and a private Redis ({program})"
    return "memory alone: " + (
        f"{program} did not start" if program else f"neither {' nor '.join(PROGRAMS)} is installed"
    )


def _greeting(edge: Mapping[str, str], voice: str, clusters: list[dict[str, Any]], status: Mapping[str, Any]) -> str:
    names = [f"{each['name']:<5} {each['url']}   rtt {each['rtt_ms']:.1f} ms" for each in clusters]
    url, admin = edge["url"], edge["admin"]
    at = "" if url.endswith(f":{PORT}") else f" --url {url}"
    at_admin = "" if admin.endswith(f":{ADMIN_PORT}") else f" --admin {admin}"
    text, indent = "Hello from the edge", "\n" + " " * 14
    return f"""
  Listening   {url}
  Admin       {admin}   /dashboard /metrics /slo /status
  Cache       {told_cache(status)}
  Clusters    {indent.join(names)}
  Voice       {voice}

  Try it, twice:
    curl -s {url}/v1/tts -d '{{"text":"{text}"}}' -o hello.wav -D -
  or
    {program()} say '{text}' -o hello.wav{at}
    {program()} explain '{text}'{at_admin}
"""


def program() -> str:
    """How `edgecache` is typed here."""
    beside = Path(sys.executable).with_name("edgecache")
    if shutil.which("edgecache") == str(beside) or not beside.exists():
        return "edgecache"
    return os.path.relpath(beside)


def talk(line: str) -> None:
    with suppress(OSError):  # a world is not over because nobody reads what it says
        print(line, file=sys.stderr, flush=True)
