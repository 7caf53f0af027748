"""Clusters in trouble, each case a row with the figure that is promised for it (docs/cluster-faults.md has all rows).

The paths are measured over real sockets by a clock that the test moves; the rest are whole edges with demo clusters.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from edgecache.clusters.cluster import Cluster, HealthPolicy, SelectionPolicy
from edgecache.demo import tone
from edgecache.fill.limits import FillLimits
from edgecache.node import Node
from tests.daemon import HANG_S
from tests.houses import PATIENT, TIMEOUTS, Heard, cluster, running, settings
from tests.scripted_upstream import FIN, HOLD, Script, ScriptedUpstream, head, whole
from tests.sounds import WAV
from tests.test_fleet import DOWN, HELLO, SPEECH, at, rig
from tests.test_fleet import cluster as one

# Row 25: distances that change. The wire itself is bench/regions' and the namespaces'.


@dataclass(frozen=True)
class Way:
    """Round trips of two clusters, in milliseconds, probe by probe; how often the choice may move; and for how many of
    the probes it has to be on the nearer one (of those in which one is clearly nearer)."""

    near: Sequence[float]
    far: Sequence[float]
    moves: int
    on_best: float


def noisy(ms: float, share: float, count: int) -> list[float]:
    """To and fro by this share, the same each time."""
    return [ms * (1 + share * (((7 * n) % 5) - 2) / 2) for n in range(count)]


PATHS = {
    "25: flip from 20 to 80 ms": Way([20] * 10 + [80] * 20, [50] * 30, moves=1, on_best=0.89),
    "25: and back": Way([20] * 10 + [80] * 15 + [20] * 15, [50] * 40, moves=2, on_best=0.85),
    "25: jitter of 8 %": Way(noisy(20, 0.08, 40), noisy(21, 0.08, 40), moves=0, on_best=1.0),
    "25: jitter of 50 % far apart": Way(noisy(20, 0.5, 40), noisy(80, 0.5, 40), moves=0, on_best=1.0),
    "25: one wild sample": Way([20] * 10 + [2000] + [20] * 19, [50] * 30, moves=0, on_best=1.0),
    "25: a wild sample in ten": Way(([20] * 9 + [2000]) * 4, [50] * 40, moves=0, on_best=1.0),
}


@pytest.mark.parametrize("path", list(PATHS.values()), ids=list(PATHS))
async def test_the_choice_follows_the_path_and_does_not_flap(path: Way) -> None:
    async with (
        ScriptedUpstream(SPEECH) as near,
        ScriptedUpstream(SPEECH) as far,
        rig(one("near", near.url), one("far", far.url)) as it,
    ):
        asked: list[str] = []
        for near_ms, far_ms in zip(path.near, path.far, strict=True):
            near.probe_script, far.probe_script = at(it.clock, near_ms / 1000), at(it.clock, far_ms / 1000)
            await it.fleet.probe_once("near")
            await it.fleet.probe_once("far")
            asked.append(it.chosen().upstream)
        moves = sum(before != after for before, after in pairwise(asked))
        ordinary = sorted(path.near)[len(path.near) // 2] < path.far[0]
        wild = {n for n, ms in enumerate(path.near) if ms > 1000}
        # Where it should be: a sample that is wild does not count.
        best = [
            "near" if near_ms < far_ms or (n in wild and ordinary) else "far"
            for n, (near_ms, far_ms) in enumerate(zip(path.near, path.far, strict=True))
        ]
        clear = [n for n, (a, b) in enumerate(zip(path.near, path.far, strict=True)) if abs(a - b) > 0.3 * b]
        assert moves == path.moves
        assert sum(asked[n] == best[n] for n in clear) >= path.on_best * len(clear)


# Row 28: a cluster that comes back.


async def test_28_a_cluster_that_comes_back_is_never_given_more_than_its_load() -> None:
    """Twenty at once all the time: the recovered one gets a tenth, then more, and never over 1.1 times its load."""
    load = 20
    async with (
        ScriptedUpstream(SPEECH) as far,
        ScriptedUpstream(*[SPEECH] * load, DOWN, DOWN, SPEECH) as near,
        rig(one("near", near.url, max_in_flight=load), one("far", far.url, max_in_flight=99)) as it,
    ):
        near.probe_script, far.probe_script = at(it.clock, 0.01), at(it.clock, 0.2)

        async def at_once() -> int:
            """How many of so many at once the near one is asked for."""
            asked_before = len(near.requests)
            async with AsyncExitStack() as all_of_them:
                for _ in range(load):
                    await all_of_them.enter_async_context(it.fleet.ask(it.chosen(), HELLO, {}))
                return len(near.requests) - asked_before

        for name in ("near", "far"):
            await it.fleet.probe_once(name)
        assert await at_once() == load
        for _ in range(2):
            await it.fails()
        assert await at_once() == 0
        it.clock.advance(2)
        await it.fleet.probe_once("near")
        given = []
        for _ in range(13):
            await it.fleet.probe_once("far")
            given.append(await at_once())
            it.clock.advance(1)
        assert given[0] <= load // 10 + 1
        assert given == sorted(given)
        assert max(given) <= 1.1 * load
        assert given[-1] == load


# Whole edges.


@dataclass
class Region:
    """A near and a far cluster (the operator's order stands for the distance), an edge, and a client."""

    node: Node
    client: aiohttp.ClientSession

    async def say(self, text: str, **fields: Any) -> Heard:
        asked = {"text": text, **fields}
        async with self.client.post(f"http://127.0.0.1:{self.node.port}/v1/tts", json=asked) as answer:
            return await Heard.of(answer, asked)

    async def status(self) -> dict[str, Any]:
        async with self.client.get(f"http://127.0.0.1:{self.node.admin_port}/status") as answer:
            told: dict[str, Any] = await answer.json()
            return told


@asynccontextmanager
async def region(*urls: str, **changed: Any) -> AsyncIterator[Region]:
    """Distances on one machine are too small to tell: whoever is first is as good as near."""
    first = SelectionPolicy(better_by=1.0, better_by_s=10.0, slow_by=1000.0)
    plain = {"selection": first, "health": HealthPolicy(failures=3, ejected_s=30.0, ejected_max_s=60.0)}
    of = settings(*urls, **{**plain, **changed})
    # The near one has all the weight: as near means as asked by weight.
    weighed = tuple(replace(each, weight=1000.0 if n == 0 else 0.01) for n, each in enumerate(of.clusters))
    async with running(replace(of, clusters=weighed)) as node, aiohttp.ClientSession() as client:
        yield Region(node, client)


TROUBLE: dict[str, tuple[Callable[[], Script], int, str]] = {
    "14: 503 with Retry-After": (
        lambda: [head("503 Busy", "Retry-After: 30", "Content-Length: 0")], 1, "asked once in its thirty seconds",
    ),
    "14: 429": (lambda: [head("429 Slow", "Retry-After: 30", "Content-Length: 0")], 1, "the same"),
    "15: 500 always": (lambda: [head("500 Oops", "Content-Length: 0")], 3, "ejected after three"),
    "22: accepts and is silent": (lambda: [HOLD], 3, "a first-byte time-out each, then ejected"),
    "26: fails fast": (lambda: [FIN], 6, "a retry on a new connection at the most, then ejected"),
}  # fmt: skip


@pytest.mark.parametrize(("script", "at_most"), [row[:2] for row in TROUBLE.values()], ids=list(TROUBLE))
async def test_a_near_cluster_in_trouble_attracts_nothing_and_costs_nobody_an_answer(
    script: Callable[[], Script], at_most: int
) -> None:
    timeouts = TIMEOUTS if HOLD in script() else PATIENT
    async with ScriptedUpstream(script()) as near, cluster() as far, region(near.url, far.url, timeouts=timeouts) as it:
        for number in range(12):
            assert (await it.say(f"text {number}")).status == 200
        assert 1 <= len(near.requests) <= at_most
        assert far.counters.requests == 12


@pytest.mark.parametrize("hedge_s", ["off", 0.02], ids=["without a hedge", "with one"])
async def test_16_a_slow_first_byte_costs_the_hedge_delay_and_not_its_own_time(hedge_s: float | str) -> None:
    gate, sound = asyncio.Event(), tone.audio({"text": "hello"})
    async with ScriptedUpstream([gate, whole(sound)]) as near, cluster() as far:
        limits = FillLimits(hedge_s=hedge_s)  # type: ignore[arg-type]  # one of its two words, or a time
        async with region(near.url, far.url, fills=limits) as it:
            hearing = asyncio.create_task(it.say("hello"))
            await near.asked()
            if hedge_s == "off":
                gate.set()
            heard = await hearing
            told = (await it.status())["fills"]
            if hedge_s == "off":
                assert (heard.body, far.counters.requests, told["hedges"]) == (sound, 0, 0)
            else:
                assert (far.counters.requests, told["hedges"], told["hedge_wins"]) == (1, 1, 1)
                gate.set()
                await near.left()  # the one that was beaten was cancelled, and its connection not kept


async def test_27_all_down_hits_are_served_and_misses_are_told_at_once() -> None:
    async with cluster() as near, cluster() as far, region(near.url, far.url) as it:
        known = [f"known {number}" for number in range(20)]
        for text in known:
            assert (await it.say(text)).status == 200
        await near.close()
        await far.close()
        async with asyncio.timeout(HANG_S):  # who is asked in vain a few times is asked no more
            while (refused := await it.say("unknown")).code != "no_cluster":
                assert refused.status == 503
        answers = [await it.say(text) for text in known]
        assert [each.status for each in answers] == [200] * 20
        assert all("hit" in each.cache for each in answers)
        refused = await it.say("unknown")
        assert (refused.status, refused.code) == (503, "no_cluster")
        assert int(refused.headers["Retry-After"]) >= 1


async def test_room_that_is_taken_is_told_at_once_and_hits_wait_for_nothing() -> None:
    release = asyncio.Event()
    held: Script = [head("200 OK", "Content-Type: audio/wav", f"Content-Length: {len(WAV)}"), release, WAV]
    async with ScriptedUpstream([whole(WAV)], held) as near:
        only = Cluster(name="c0", url=near.url, max_in_flight=1)
        async with region(near.url, clusters=(only,), fills=FillLimits(max_waiting=0)) as it:
            url = f"http://127.0.0.1:{it.node.port}/v1/tts"
            known = {"text": "known", "format": "wav"}
            async with it.client.post(url, json=known) as answer:
                assert await answer.read() == WAV
            speaking = asyncio.create_task(it.client.post(url, json={"text": "long", "format": "wav"}))
            await near.asked(2)
            refused = await it.say("another", format="wav")
            assert (refused.status, refused.code, refused.headers["Retry-After"]) == (503, "clusters_busy", "1")
            async with it.client.post(url, json=known) as answer:
                assert (answer.status, await answer.read()) == (200, WAV)
                assert "hit" in answer.headers["Cache-Status"]
            assert len(near.requests) == 2
            release.set()
            async with await speaking as answer:
                assert await answer.read() == WAV


async def test_29_a_connection_that_dies_idle_costs_no_client_an_error() -> None:
    """The cluster hangs up after each answer, without having said so: the next request meets a dead connection."""
    dies: Script = [whole(WAV), FIN]
    async with ScriptedUpstream(dies) as near, region(near.url) as it:
        for number in range(20):
            async with it.client.post(
                f"http://127.0.0.1:{it.node.port}/v1/tts", json={"text": f"text {number}", "format": "wav"}
            ) as answer:
                assert (answer.status, await answer.read()) == (200, WAV)
        told = (await it.status())["fills"]
        assert (told["sealed"], told["retries"], told["refused"]) == (20, 0, 0)
