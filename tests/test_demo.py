"""`edgecache demo` as people run it: a world of processes that speaks, and that ends whole however it ends."""

import asyncio
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import wave
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from edgecache.demo import tone

pytestmark = pytest.mark.net

HANG_S = 60.0
#: What a process is known by: another one may get its number later.
Known = tuple[int, str]


def alive() -> dict[int, tuple[int, str, str]]:
    """Parent, start time and command line of every process that is not a zombie."""
    found = {}
    for each in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, *rest = (each / "stat").read_text().rpartition(") ")[2].split()
            command = (each / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue  # it ended meanwhile
        if state not in "ZX":
            found[int(each.name)] = int(parent), rest[17], command
    return found


@dataclass(slots=True)
class Running:
    """One world, and every process that was seen to belong to it."""

    process: Process
    directory: Path
    seen: dict[Known, str]
    out: str = ""
    err: str = ""

    def look(self) -> dict[Known, str]:
        """The processes below it that there are now."""
        found, below, size = alive(), {self.process.pid}, 0
        while len(below) > size:
            size = len(below)
            below |= {pid for pid, (parent, _, _) in found.items() if parent in below}
        here = {(pid, found[pid][1]): found[pid][2] for pid in below - {self.process.pid} if pid in found}
        self.seen |= here
        return here

    def left(self) -> list[str]:
        """What was seen and is still there."""
        found = alive()
        return [command for (pid, start), command in self.seen.items() if pid in found and found[pid][1] == start]

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(HANG_S):
            while not true():
                assert self.process.returncode is None, self.out + self.err
                await asyncio.sleep(0.05)

    async def greeted(self) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(HANG_S):
            while "Ctrl-C stops" not in self.out:
                line = await self.process.stdout.readline()
                assert line, self.out + self.err + (await self.process.communicate())[1].decode()
                self.out += line.decode()
        self.look()

    def pid_of(self, words: str) -> int:
        return next(pid for (pid, _), command in self.look().items() if words in command)

    async def ended(self) -> int:
        async with asyncio.timeout(HANG_S):
            out, err = await self.process.communicate()
        self.out += out.decode()
        self.err += err.decode()
        assert self.process.returncode is not None
        return self.process.returncode

    async def nothing_left(self) -> None:
        async with asyncio.timeout(HANG_S):
            while self.left() and self.process.returncode == -signal.SIGKILL:
                await asyncio.sleep(0.01)  # nobody waits for orphans
        assert self.left() == []
        assert self.process.returncode == -signal.SIGKILL or not list(self.directory.iterdir())
        assert not [line for line in self.err.splitlines() if "Traceback" in line], self.err

    def url(self, what: str) -> str:
        found = re.search(rf"{what} +(http://127\.0\.0\.1:\d+)", self.out)
        assert found, self.out
        return found[1]


@asynccontextmanager
async def world(
    *arguments: str, environ: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
) -> AsyncIterator[Running]:
    """A world with the tone voice that takes any free ports; nothing of it is left, whatever became of the test."""
    # Not pytest's directory: the path of a private Redis's socket has to be short.
    directory = Path(tempfile.mkdtemp(prefix="edgecache-"))
    process = await asyncio.create_subprocess_exec(
        *(*prefix, sys.executable, "-m", "edgecache", "demo", "--voice", "tone", *(arguments or ("--port", "0"))),
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, "TMPDIR": str(directory), **(environ or {})},
        start_new_session=True,
    )
    running = Running(process, directory, {})
    try:
        yield running
    finally:
        running.look()
        if process.returncode is None:
            process.kill()
            await running.ended()
        for pid, start in running.seen:
            if alive().get(pid, (0, ""))[1] == start:
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(directory)


async def test_two_commands_to_hear_the_difference(tmp_path: Path) -> None:
    misleading = {"EDGECACHE_LISTEN__PORT": "1", "EDGECACHE_CONFIG": "/nowhere.yaml", "EDGECACHE_TYPO": "1"}
    async with world(environ=misleading) as running:
        await running.greeted()
        url, asked = running.url("Listening"), {"text": "Hello from the edge"}
        async with aiohttp.ClientSession() as client:
            async with client.post(f"{url}/v1/tts", data=json.dumps(asked)) as missed:
                first = await missed.read()
            async with client.post(f"{url}/v1/tts", data=json.dumps(asked)) as hit:
                second = await hit.read()
            async with client.get(running.url("Admin") + "/status") as told:
                redis = (await told.json())["tiers"]["redis"]
        command = next(line.strip() for line in running.out.splitlines() if " say '" in line)
        said = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edgecache", *shlex.split(command)[1:]), cwd=tmp_path, stdout=PIPE
        )
        report = (await said.communicate())[0].decode()
        assert f"curl -s {url}/v1/tts -d '{json.dumps(asked, separators=(',', ':'))}' -o hello.wav" in running.out
        running.process.send_signal(signal.SIGINT)
        assert await running.ended() == 0
        await running.nothing_left()

    assert "fwd=uri-miss" in missed.headers["Cache-Status"]
    assert missed.headers["Cache-Status"].endswith("detail=near")
    assert "; hit; " in hit.headers["Cache-Status"]
    assert first == second == (tmp_path / "hello.wav").read_bytes()
    assert tone.owner_mismatch(first, asked) is None
    with wave.open(io.BytesIO(first)) as heard:
        assert (heard.getframerate(), heard.getnchannels(), heard.getsampwidth()) == (24_000, 1, 2)
    assert re.match(r"HIT +first audio .* memory .*x faster than the miss +-> hello\.wav\n", report)
    assert redis != "off"
    assert "a private Redis (" in running.out
    assert any("redis-server" in command for command in running.seen.values())
    assert running.err.rstrip().endswith("Stopped. Bye.")
    assert "cache=hit_memory" in running.err, "what the edge does is shown"


@pytest.mark.parametrize(
    ("moment", "how", "code"),
    [
        ("Starting two", signal.SIGINT, 0),
        ("serve --config", signal.SIGHUP, 0),
        ("redis-server", signal.SIGKILL, -signal.SIGKILL),
    ],
    ids=["Ctrl-C at once", "terminal closed", "killed"],
)
async def test_it_may_end_while_it_starts(moment: str, how: signal.Signals, code: int) -> None:
    async with world() as running:
        assert running.process.stderr is not None
        running.err = (await running.process.stderr.readline()).decode()
        await running.until(lambda: moment in running.err + str(running.look()))
        running.process.send_signal(how)
        assert await running.ended() == code
        assert "Try it" not in running.out
        await running.nothing_left()


async def test_a_part_that_dies_is_named_and_takes_the_world_with_it() -> None:
    async with world() as running:
        await running.greeted()
        os.kill(running.pid_of("serve --config"), signal.SIGKILL)
        assert await running.ended() == 1
        assert running.err.rstrip().endswith("error: edge ended by itself (SIGKILL)")
        await running.nothing_left()


async def test_a_part_that_does_not_start_is_named_too() -> None:
    async with world() as running:
        await running.until(lambda: "origin --name far" in str(running.look()))
        os.kill(running.pid_of("origin --name far"), signal.SIGKILL)
        assert await running.ended() == 1
        assert running.err.rstrip().endswith("error: far ended by itself (SIGKILL)")
        await running.nothing_left()


async def test_a_port_in_use_and_no_redis_are_told_and_do_not_matter(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with world("--port", str(port), environ={"PATH": str(tmp_path)}) as running:
            await running.greeted()
            assert len(running.seen) == 3, running.seen
            running.process.send_signal(signal.SIGTERM)
            assert await running.ended() == 0
            await running.nothing_left()
    assert f"port {port} is in use; taking another" in running.err
    assert running.url("Listening") != f"http://127.0.0.1:{port}"
    assert "memory alone: neither redis-server nor valkey-server is installed" in running.out


#: What takes from a process all that root may do.
POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
GROUNDS = {"as it can": (), "without root": POWERLESS if os.geteuid() == 0 else ()}


async def said(command: str, directory: Path, environ: Mapping[str, str]) -> dict[str, float | str]:
    """What `say` reports, typed as the greeting has it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgecache", *shlex.split(command, comments=True)[1:], "--json"),
        cwd=directory,
        stdout=PIPE,
        env={**os.environ, **environ},
    )
    report: dict[str, float | str] = json.loads((await process.communicate())[0])
    return report


@pytest.mark.parametrize("prefix", GROUNDS.values(), ids=GROUNDS)
async def test_an_ocean_away_the_edge_is_worth_it(tmp_path: Path, prefix: Sequence[str]) -> None:
    async with world("--world", "--port", "0", prefix=prefix) as running:
        await running.greeted()
        key = re.search(r"EDGECACHE_API_KEY=(\S+)", running.out)
        assert key
        commands = [line.strip() for line in running.out.splitlines() if " say '" in line]
        # Not one measurement decides, for the machine may stand still in it: up to five, of another text each.
        for again in ("", "Again: ", "Once more: ", "Yet again: ", "At last: "):
            asked = [each.replace(" say '", f" say '{again}") for each in commands]
            direct, miss, hit = [await said(each, tmp_path, {"EDGECACHE_API_KEY": key[1]}) for each in asked]
            if float(direct["first_audio_ms"]) > float(miss["first_audio_ms"]) > float(hit["first_audio_ms"]):
                break
        running.process.send_signal(signal.SIGINT)
        assert await running.ended() == 0
        await running.nothing_left()
    assert [each["cache"] for each in (direct, miss, hit)] == ["DIRECT", "MISS", "HIT"]
    assert miss["source"] == "sydney"
    assert float(direct["first_audio_ms"]) >= 350 + 250
    assert 20 + 5 + 250 <= float(miss["first_audio_ms"]) < float(direct["first_audio_ms"])
    assert 20 <= float(hit["first_audio_ms"]) < float(miss["first_audio_ms"])
    real = "real: each place is a network namespace" in running.out
    assert real or "because packets can't travel here (" in running.out
    assert not (real and prefix)


@pytest.mark.parametrize("who", ["world", "edgecache.demo.tun", "--name sydney"])
async def test_an_ocean_is_gone_with_whoever_is_killed(who: str) -> None:
    async with world("--world", "--port", "0") as running:
        await running.greeted()
        if who == "edgecache.demo.tun" and "real: " not in running.out:
            pytest.skip("a TCP relay plays the distance here, and it has no process of its own: packets need root")
        os.kill(running.process.pid if who == "world" else running.pid_of(who), signal.SIGKILL)
        assert await running.ended() == (-signal.SIGKILL if who == "world" else 1)
        assert who == "world" or "ended by itself (" in running.err
        await running.nothing_left()
