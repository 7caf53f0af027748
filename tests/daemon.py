"""`edgecache serve` as a process of its own, for tests: what it says is read as it comes, and nothing of it is left."""

import asyncio
import json
import os
import re
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp

#: No figure of ours: by then a process has hung, also on a machine under load.
HANG_S = 60.0
LOOPBACK = {"host": "127.0.0.1", "port": 0}
#: What of our own surroundings a daemon gets; the rest must not change what a test sees.
_INHERITED = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT")
_LISTENING = re.compile(r"\b(url|admin)[\"=:]+http://[0-9.]+:(\d+)")


def config(*urls: str, **changed: Any) -> dict[str, Any]:
    """A configuration of an edge in front of these clusters: any free ports, no Redis. No machine is so busy that a time is
    over which a test does not wait for."""
    return {
        "node": {"name": "test-edge"},
        "listen": LOOPBACK,
        "admin": LOOPBACK,
        "cache": {"redis": {"url": "off"}},
        "clusters": [{"name": f"c{n}", "url": url} for n, url in enumerate(urls)],
        "timeouts": {"connect": "30s", "first_byte": "30s", "between_bytes": "30s", "total": "60s"},
        "probing": {"timeout": "30s"},
        "health": {"failures": 1000},
        "drain": "10s",
        "log": {"format": "json", "level": "info"},
        **changed,
        # A machine that others use sheds nothing, unless that is what is tested.
        "fills": {"shed": {"lag_later": "30s", "lag": "60s"}, **changed.get("fills", {})},
    }


@dataclass(slots=True)
class Daemon:
    """One process, and all that it has said."""

    process: Process
    lines: list[str] = field(default_factory=list)
    port: int = 0
    admin_port: int = 0
    _reading: asyncio.Task[None] | None = None
    _said: asyncio.Condition = field(default_factory=asyncio.Condition)
    _silent: bool = False

    @classmethod
    async def begun(cls, path: Path, environ: Mapping[str, str], sabotage: str = "") -> Self:
        """A process that was started; it need not come far. sabotage: Python that is run in it first."""
        start = ("-m", "edgecache") if not sabotage else ("-c", f"{sabotage}\nfrom edgecache.cli import main\nmain()")
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *start, "serve", "--config", str(path)),
            stdout=PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**inherited, **environ},
            start_new_session=True,
        )
        daemon = cls(process)
        daemon._reading = asyncio.create_task(daemon._read(), name="read what the daemon says")
        return daemon

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        """All it has said."""
        return "\n".join(self.lines)

    def logged(self, message: str) -> list[dict[str, Any]]:
        """Its JSON lines with this message."""
        told = [json.loads(line) for line in self.lines if line.startswith("{")]
        return [line for line in told if line["msg"] == message]

    async def until(self, true: Callable[[], bool]) -> None:
        """Waits until this holds; it is looked at whenever the daemon has said something."""
        async with asyncio.timeout(HANG_S), self._said:
            await self._said.wait_for(lambda: self._silent or true())
        assert true(), f"the daemon ended and had said:\n{self.output}"

    async def serving(self) -> Self:
        """Waits until it serves."""
        await self.until(lambda: any(" serving" in line or '"serving"' in line for line in self.lines))
        ports = {name: int(port) for name, port in _LISTENING.findall(self.output)}
        self.port, self.admin_port = ports["url"], ports["admin"]
        return self

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code; below 0: the signal that ended it."""
        async with asyncio.timeout(HANG_S):
            assert self._reading is not None
            await self._reading
            return await self.process.wait()

    async def stopped(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code, after a signal."""
        self.send(number)
        return await self.ended()

    async def close(self) -> None:
        """No process is left, whatever became of the test."""
        if self.process.returncode is None:
            self.process.kill()
        await self.ended()

    async def admin(self, path: str, method: str = "GET") -> tuple[int, Any]:
        """What the admin listener answers."""
        url = f"http://127.0.0.1:{self.admin_port}{path}"
        async with aiohttp.ClientSession() as client, client.request(method, url) as answer:
            return answer.status, await answer.json()

    async def ready(self) -> None:
        """Until it says so: it does not for five seconds when it stood still for one, as on a busy machine."""
        async with asyncio.timeout(HANG_S):
            while (await self.admin("/readyz"))[0] != 200:
                await asyncio.sleep(0.05)

    async def workers(self) -> list[int]:
        """The processes that serve, by slot."""
        told = (await self.admin("/workers"))[1]["workers"]
        return [each["pid"] for each in told if each["state"] == "serving"]

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            async with self._said:
                self.lines.append(line.decode().rstrip("\n"))
                self._said.notify_all()
        async with self._said:
            self._silent = True
            self._said.notify_all()


class Daemons:
    """Daemons of one test, each of them gone with the block."""

    def __init__(self, directory: Path, left: AsyncExitStack) -> None:
        self.directory = directory
        self._left = left
        self._count = 0

    async def begin(
        self, settings: Mapping[str, Any], environ: Mapping[str, str] | None = None, *, sabotage: str = ""
    ) -> Daemon:
        """One that is started; wait for what it is expected to do."""
        self._count += 1
        path = self.directory / f"edge-{self._count}.yaml"
        path.write_text(json.dumps(settings))  # JSON is YAML
        daemon = await Daemon.begun(path, environ or {}, sabotage)
        self._left.push_async_callback(daemon.close)
        return daemon

    async def serve(
        self, settings: Mapping[str, Any], environ: Mapping[str, str] | None = None, *, sabotage: str = ""
    ) -> Daemon:
        """One that serves."""
        return await (await self.begin(settings, environ, sabotage=sabotage)).serving()


@asynccontextmanager
async def daemons() -> AsyncIterator[Daemons]:
    """A directory for daemons. Not pytest's: the path of a private Redis's socket has to be short."""
    with tempfile.TemporaryDirectory(prefix="edgecache-daemon-") as directory:
        try:
            async with AsyncExitStack() as left:
                yield Daemons(Path(directory), left)
        finally:
            for pid in servers_in(Path(directory)):  # a private Redis outlives a daemon that was killed
                os.kill(pid, signal.SIGKILL)


async def eventually(true: Callable[[], bool]) -> None:
    """For what another process does and does not tell."""
    async with asyncio.timeout(HANG_S):
        while not true():
            await asyncio.sleep(0.01)


def servers_in(directory: Path) -> set[int]:
    """The processes whose command line names this directory."""
    found = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and os.fsencode(directory) in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
    return found
