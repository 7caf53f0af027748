"""In which mode an edge is: causes and their order, and what an operator sees of it, in real edges with real faults."""

import asyncio
import itertools
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from edgecache.demo import tone
from edgecache.fill.limits import FillLimits
from edgecache.fill.shedding import Shed
from edgecache.ops import modes, watching
from edgecache.ops.modes import PATIENCE_S, TRANSITIONS, Change, Event, Mode, Modes
from tests.daemon import HANG_S, Daemon, config, daemons, eventually
from tests.houses import House, cluster, house, with_redis
from tests.redis_server import RedisServer
from tests.scrapes import scrape, told
from tests.scripted_upstream import Script, ScriptedUpstream, chunk, chunked, whole

if TYPE_CHECKING:
    from edgecache.ops.gathering import Counts

NORMAL, NO_REDIS, STALE_ONLY, SHED, DRAIN = Mode
WHY = {mode: f"because of {mode.value}" for mode in Mode}


def test_from_each_mode_each_may_follow() -> None:
    assert set(TRANSITIONS) == set(itertools.product(Mode, Event))
    assert {TRANSITIONS[mode, event] for mode in Mode for event in [Event.WELL]} == {NORMAL}


@pytest.mark.parametrize("causes", [set(each) for n in range(5) for each in itertools.combinations(PATIENCE_S, n)])
def test_the_gravest_cause_makes_the_mode_and_all_are_told(causes: set[Mode]) -> None:
    made, now = Modes(0.0), 0.0
    for now in (10.0, 20.0, 30.0):
        made.observe({mode: WHY[mode] for mode in causes}, now)
    assert made.mode is max(causes, key=list(Mode).index, default=NORMAL)
    assert made.told(40.0)["causes"] == {mode.value: WHY[mode] for mode in Mode if mode in causes}


def test_a_change_is_told_once_with_its_reason() -> None:
    made = Modes(0.0)
    seen: list[tuple[float, dict[Mode, str]]] = [
        (1.0, {}),
        (2.0, {NO_REDIS: "it hangs"}),
        (2.1, {NO_REDIS: "it hangs on"}),
        (2.2, {NO_REDIS: "it hangs on", SHED: "too much"}),
        (2.3, {NO_REDIS: "it hangs on"}),
        (2.4, {}),
        (9.0, {}),
    ]
    changes = [change for now, causes in seen if (change := made.observe(causes, now)) is not None]
    assert changes == [
        Change(NORMAL, NO_REDIS, "it hangs"),
        Change(NO_REDIS, SHED, "too much"),
        Change(SHED, NO_REDIS, "all new fills are begun again"),
        Change(NO_REDIS, NORMAL, "Redis is asked again"),
    ]
    assert [change.worse for change in changes] == [True, True, False, False]


@pytest.mark.parametrize("mode", PATIENCE_S)
def test_a_cause_that_comes_and_goes_does_not_make_a_mode_flutter(mode: Mode) -> None:
    rise_s, fall_s = PATIENCE_S[mode]
    made = Modes(0.0)
    every_s = max(rise_s, fall_s) / 3 or 0.1
    changes = [made.observe({mode: "x"} if at % 2 else {}, at * every_s) for at in range(100)]
    # Shedding and draining are not seen before they are sure.
    assert sum(change is not None for change in changes) <= (1 if rise_s or fall_s else 100)


def test_the_daemon_is_in_the_gravest_mode_of_its_workers() -> None:
    rows = [{"mode": "normal", "causes": {}}, {"mode": "shed", "causes": {"shed": "x", "no-redis": "y"}}]
    told = modes.of_daemon(rows)
    assert (told["mode"], told["causes"], told["modes"]) == ("shed", {"shed": "x", "no-redis": "y"}, rows)
    counts: Counts = {("edgecache_mode", mode.value): float(mode in (NORMAL, SHED)) for mode in Mode}
    assert [name[1] for name, figure in modes.one(counts).items() if figure] == ["shed"]


# Real edges.


async def until(true: Callable[[], bool]) -> None:
    """A condition of this process; the heart's beats are what it waits for."""
    async with asyncio.timeout(HANG_S):
        while not true():
            await asyncio.sleep(0.02)


def mode_of(here: House) -> str:
    standing: Any = here.node.status()["standing"]
    return str(standing["mode"])


@pytest.fixture
def changes(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[tuple[str, str]]]:
    """The changes that were logged: from which mode to which."""
    monkeypatch.setattr(watching, "FRESH_S", 0.0)
    caplog.set_level(logging.INFO)

    def found() -> list[tuple[str, str]]:
        lines = [each for each in caplog.records if each.getMessage() == "the mode changed"]
        fields: list[Mapping[str, str]] = [getattr(each, "fields") for each in lines]  # noqa: B009
        assert all(each["reason"] for each in fields)
        return [(each["old"], each["new"]) for each in fields]

    return found


async def test_without_its_redis_it_says_so_and_says_when_it_is_back(
    redis_server: RedisServer, changes: Callable[[], list[tuple[str, str]]]
) -> None:
    cache = with_redis(redis_server.url, breaker_failures=2, breaker_open_s=0.1)
    async with house(cache=cache) as here:
        await here.say("Hello")
        assert mode_of(here) == "normal"
        redis_server.kill()
        for n in range(5):
            assert (await here.say(f"Hello {n}")).status == 200
        await until(lambda: mode_of(here) == "no-redis")
        status, seen = await told(here.node.admin_port, "/status"), await scrape(here.node.admin_port)
        glance = await told(here.node.admin_port, "/glance")
        redis_server.start()
        # Nobody asks: it finds out by itself.
        await until(lambda: mode_of(here) == "normal")

    assert status["mode"] == "no-redis"
    assert "Redis is not asked" in status["causes"]["no-redis"]
    assert status["modes"][0]["pid"] == os.getpid()
    assert seen.value("edgecache_mode", mode="no-redis") == 1
    assert seen.value("edgecache_mode") == 1, "one mode at a time"
    assert seen.value("edgecache_mode_causes", mode="no-redis") == 1
    assert glance["mode"] == {"now": "no-redis", "causes": {"no-redis": 1.0}}
    assert changes() == [("normal", "no-redis"), ("no-redis", "normal")]


async def test_redis_that_was_never_wanted_is_not_missed() -> None:
    async with house() as here:
        await here.say("Hello")
        await until(lambda: here.node.lag.spread.count > 3)
        assert mode_of(here) == "normal"


async def test_when_no_cluster_is_left_it_tells_what_is_recorded(
    changes: Callable[[], list[tuple[str, str]]],
) -> None:
    async with house() as here:
        await here.say("Hello")
        await until(lambda: mode_of(here) == "normal")
        await here.origin.close()
        await until(lambda: mode_of(here) == "stale-only")
        status = await told(here.node.admin_port, "/status")
        hit, miss = await here.say("Hello"), await here.say("Good bye")
        async with here.client.get(f"{here.url}/readyz") as answer:
            ready = await answer.json()
        # Trials of what is dead, several by now, are no change.
        await asyncio.sleep(1.5)

    assert status["causes"] == {"stale-only": "no cluster can be asked: c0 ejected"}
    assert (hit.status, miss.status, miss.code) == (200, 503, "no_cluster")
    assert (answer.status, ready["status"], ready["mode"]) == (200, "ok", "stale-only")
    assert changes() == [("normal", "stale-only")]


async def test_clusters_that_an_operator_has_drained_are_none_either(
    changes: Callable[[], list[tuple[str, str]]],
) -> None:
    async with house() as here, aiohttp.ClientSession(f"http://127.0.0.1:{here.node.admin_port}") as admin:
        await here.say("Hello")
        async with admin.post("/clusters/c0/drain"):
            await until(lambda: mode_of(here) == "stale-only")
        async with admin.post("/clusters/c0/resume"):
            await until(lambda: mode_of(here) == "normal")

    assert changes() == [("normal", "stale-only"), ("stale-only", "normal")]


async def test_rule_7_with_too_many_bytes_held_new_speech_is_refused_before_what_is_under_way_breaks() -> None:
    fills = FillLimits(max_held_bytes=1 << 20, max_rendering_bytes=1 << 20, shed=Shed(held_later=0.3, held=0.5))
    async with house(fills=fills) as here:
        assert (await here.say("Hello")).status == 200
        text, demo = "A long story", {"bytes": 950_000, "rtf": 0.15}
        asked = {"text": text, "demo": demo}
        async with here.client.post(f"{here.url}/v1/tts", json=asked) as long:
            await until(lambda: "all new fills" in here.node.fills.shedding.why())
            assert mode_of(here) == "shed"
            new, hit, joined = await asyncio.gather(here.say("New"), here.say("Hello"), here.say(text, demo=demo))
            assert len(await long.read()) == 950_000
        await until(lambda: mode_of(here) == "normal")
        seen = await scrape(here.node.admin_port)
        assert (await here.say("New")).status == 200

    assert (new.status, new.code, hit.status) == (503, "busy", 200)
    assert int(new.headers["Retry-After"]) >= 1
    assert (joined.status, joined.whole, len(joined.body)) == (200, True, 950_000)
    assert seen.value("edgecache_fills_shed_total", reason="held", priority="interactive") == 1


# Real processes.


@contextmanager
def throttled(pid: int, run_s: float, stop_s: float) -> Iterator[None]:
    """A processor quota, as the kernel enforces one: it runs for so long, and then does not."""
    keeper = os.fork()
    if keeper == 0:
        try:
            while True:
                os.kill(pid, signal.SIGSTOP)
                time.sleep(stop_s)
                os.kill(pid, signal.SIGCONT)
                time.sleep(run_s)
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def serving(**changed: Any) -> AsyncIterator[tuple[Daemon, aiohttp.ClientSession]]:
    async with cluster() as origin, daemons() as start, aiohttp.ClientSession() as client:
        yield await start.serve(config(origin.url, **changed)), client


async def say(client: aiohttp.ClientSession, daemon: Daemon, text: str, **demo: Any) -> aiohttp.ClientResponse:
    async with client.post(f"{daemon.url}/v1/tts", json={"text": text, "demo": demo}) as answer:
        await answer.read()
        return answer


def moves(daemon: Daemon) -> list[tuple[str, str]]:
    return [(line["old"], line["new"]) for line in daemon.logged("the mode changed")]


async def test_fault_96_starved_of_its_processor_it_sheds_and_still_tells_hits() -> None:
    shed = {"lag_later": "250ms", "lag": "400ms", "ease": "2s"}
    async with serving(fills={"shed": shed}) as (daemon, client):
        while (await say(client, daemon, "Hello")).status != 200:
            await asyncio.sleep(0.1)
        assert moves(daemon) == []
        # A tenth of a processor: more than others on this machine take from it.
        with throttled(daemon.pid, 0.08, 0.7):
            await daemon.until(lambda: moves(daemon) == [("normal", "shed")])
            async with asyncio.timeout(HANG_S):  # first what can wait is shed, then all
                for number in itertools.count():
                    new, hit = await say(client, daemon, f"New {number}"), await say(client, daemon, "Hello")
                    assert hit.status == 200
                    if new.status == 503:
                        break
            assert int(new.headers["Retry-After"]) >= 1
        await daemon.until(lambda: moves(daemon)[-1:] == [("shed", "normal")])
        assert (await say(client, daemon, "New")).status == 200


#: How long a cluster may say nothing, and for how long the process is stopped.
QUIET_S, STOPPED_S = 3, 4


@dataclass(slots=True)
class Stopped:
    """What clients heard of a process that was stopped in mid-speech. in_time: it was stopped while all was well."""

    in_time: bool
    stream: bytes
    late: int
    ready: tuple[int, Any]


async def stopped(
    client: aiohttp.ClientSession, daemon: Daemon, upstream: ScriptedUpstream, go: asyncio.Event
) -> Stopped:
    """Of two requests one is heard, and the other waits for its first byte, when the process is stopped. All is said then,
    and every time is over when it goes on."""
    began_s, before = time.monotonic(), len(upstream.requests)
    async with client.post(f"{daemon.url}/v1/tts", json={"text": f"A stream {before}"}) as stream:
        heard = await stream.content.readany()
        late = asyncio.create_task(say(client, daemon, f"A little late {before}"))
        await upstream.asked(before + 2)
        daemon.send(signal.SIGSTOP)
        await eventually(lambda: Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        in_time = time.monotonic() - began_s < QUIET_S
        go.set()
        await asyncio.sleep(STOPPED_S)
        ready = asyncio.create_task(daemon.admin("/readyz"))
        await asyncio.sleep(0)
        daemon.send(signal.SIGCONT)
        with suppress(*([] if in_time else [aiohttp.ClientError])):
            heard += await stream.read()
        return Stopped(in_time, heard, (await late).status, await ready)


async def test_fault_93_a_process_that_was_stopped_goes_on_as_if_nothing_had_been() -> None:
    sound, go = tone.audio({"text": "Hello", "demo": {"bytes": 40_000}}), asyncio.Event()
    begun, rest = chunked(sound[:9000]).removesuffix(chunk(b"")), chunk(sound[9000:]) + chunk(b"")
    answers: list[Script] = [[begun, go, rest], [go, whole(sound)]]  # a stream, and one that is late
    quick = {"connect": "30s", "first_byte": f"{QUIET_S}s", "between_bytes": f"{QUIET_S}s", "total": "60s"}
    async with daemons() as start, aiohttp.ClientSession() as client:
        while True:
            go.clear()
            async with ScriptedUpstream([whole(sound)], *answers, [whole(sound)]) as upstream:
                settings = config(upstream.url, timeouts=quick, probing={"timeout": "60s"})
                daemon = await start.serve(settings)
                await say(client, daemon, "Hello")
                found = await stopped(client, daemon, upstream, go)
                if not found.in_time:  # this machine was busy: it may have been right to give up
                    continue
                clusters = (await daemon.admin("/clusters"))[1]["upstreams"]
                last = [await say(client, daemon, text) for text in ("Hello", "New")]
                break

    assert (found.stream, found.late) == (sound, 200), daemon.output
    status, told = found.ready
    assert (status, "stood still" in told["checks"]["loop"]) == (503, True), "for five seconds; then it is ready again"
    assert [each.status for each in last] == [200, 200]
    assert [(each["state"], each["failures"]) for each in clusters] == [("up", 0)]
    assert moves(daemon) == []


async def test_draining_is_a_mode_and_the_gravest() -> None:
    async with serving(workers=2) as (daemon, client):
        asked = {"text": "Let me finish", "demo": {"rtf": 1.0, "bytes": 72_000}}
        async with client.post(f"{daemon.url}/v1/tts", json=asked) as stream:
            await stream.content.readany()
            before = (await daemon.admin("/status"))[1]
            daemon.send(signal.SIGTERM)
            await daemon.until(lambda: ("normal", "drain") in moves(daemon))
            after = (await daemon.admin("/status"))[1]
            await stream.read()
        assert await daemon.ended() == 0

    assert (before["mode"], before["causes"], len(before["modes"])) == ("normal", {}, 2)
    assert len({each["pid"] for each in before["modes"]}) == 2
    assert (after["mode"], after["causes"]) == ("drain", {"drain": "this edge is stopping"})
