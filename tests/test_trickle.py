"""A cluster that gives a little now and then, and never enough (faults.md row 18)."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.clusters.cluster import HealthPolicy
from edgecache.fill.limits import FillLimits
from edgecache.fill.trickle import Come, Trickle, Watch
from tests.fill_rig import rig
from tests.houses import PATIENT, UNMEASURED, running, settings
from tests.scripted_clusters import AAC, Reply, ScriptedClusters, Step
from tests.scripted_upstream import HOLD, Script, ScriptedUpstream, chunk, head, whole
from tests.sounds import chunk as part
from tests.sounds import fmt, riff

#: 192,000 bytes are a second of it.
SECOND = 192_000
RATE_HZ = 48_000
LONG = 100


def wav(seconds: float) -> bytes:
    return riff(fmt(channels=2, rate_hz=RATE_HZ), part(b"data", bytes(int(SECOND * seconds))))


@dataclass(frozen=True)
class Row:
    """Steps of (seconds that pass, what comes then); for how long the process stands still in each; whether it is broken
    off, and how much of it was heard then at the most."""

    steps: tuple[tuple[float, bytes], ...]
    media_type: str = "audio/wav"
    still_s: float = 0.0
    broken_after_s: float | None = None


def evenly(whole: bytes, every_s: float, of: int) -> tuple[tuple[float, bytes], ...]:
    """So many bytes, so often."""
    pieces = (whole[at : at + of] for at in range(0, len(whole), of))
    return tuple((every_s if n else 0.0, piece) for n, piece in enumerate(pieces))


def drip(whole: bytes, first: int) -> tuple[tuple[float, bytes], ...]:
    """So many bytes, and then one each second."""
    return ((0.0, whole[:first]), *((1.0, whole[at : at + 1]) for at in range(first, first + LONG)))


ROWS = {
    "18: one byte a second": Row(drip(wav(30), 1000), broken_after_s=10),
    "18: much at first, then one byte a second": Row(drip(wav(60), 50 * SECOND), broken_after_s=20),
    "18: a tenth of real time": Row(evenly(wav(8), 1.0, SECOND // 10), broken_after_s=10),
    "18: of bytes that do not tell their time": Row(drip(bytes(9999), 1000), AAC, broken_after_s=20),
    "a third of real time": Row(evenly(wav(8), 1.0, SECOND // 3)),
    "real time, in pieces of 20 ms": Row(evenly(wav(60), 0.02, SECOND // 50)),
    "real time, in lumps of 4.5 s": Row(evenly(wav(60), 4.5, 9 * SECOND // 2)),
    "6 kbit/s, of bytes that do not tell their time": Row(evenly(bytes(750 * 40), 1.0, 750), AAC),
    "as fast as it goes": Row(evenly(wav(60), 0.0, 65536)),
    "it is this process that stands still": Row(evenly(wav(8), 3.0, SECOND // 2), still_s=2.0),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
async def test_a_trickle_is_broken_off_and_nothing_else_is(row: Row) -> None:
    clusters = ScriptedClusters(upstreams=1)
    async with rig(clusters=clusters) as it:
        it.fills.pressed(0.0)

        def pass_time(passed_s: float) -> None:
            """A beat of the event loop at its end; if it stood still, one that tells so."""
            it.clock.advance(passed_s)
            it.fills.pressed(min(row.still_s, passed_s))

        def told() -> Iterator[Step]:
            for passed_s, piece in row.steps:
                yield from (partial(pass_time, passed_s), piece)

        clusters.replies = [Reply(tuple(told()), media_type=row.media_type)]
        began_s = it.clock.now
        _, listener = await it.listen()
        if row.broken_after_s is None:
            assert (listener.end, bytes(listener.heard)) == ("whole", b"".join(piece for _, piece in row.steps))
        else:
            assert listener.end == "broken_off"
            assert it.clock.now - began_s <= row.broken_after_s + 1.01
            assert it.kept == []


def test_time_without_a_beat_counts_as_standing_still() -> None:
    """Whoever reads may come before the beat that tells how long this process was stopped."""
    watch = Watch(Trickle(window_s=10))
    assert watch.look(Come(0, 0, 1, 1)) == ""
    assert watch.look(Come(40, 30.1, 1.1, 1)) == "", "only 9.9 s have passed"
    assert watch.due_s == pytest.approx(40.1)
    assert watch.look(Come(40.1, 30.1, 1.1, 1)) == "it gave 0.1 s of sound in 10.0 s"


@given(
    factor=st.floats(0.35, 20),
    gaps=st.lists(st.floats(0.001, 4.9), min_size=1, max_size=200),
    window_s=st.floats(10, 60),
)
def test_who_keeps_up_with_a_third_of_real_time_is_never_too_slow(
    factor: float, gaps: list[float], window_s: float
) -> None:
    """However unevenly it comes, as long as it does not stall."""
    watch, now, sound_s = Watch(Trickle(window_s=window_s)), 0.0, 0.1
    for gap_s in (0.0, *gaps):
        now, sound_s = now + gap_s, sound_s + gap_s * factor
        if now >= watch.due_s:
            assert watch.look(Come(now, 0.0, sound_s, 0)) == ""


# Over real sockets. The cluster gives the next byte when the client has heard the one before, so its pace hangs on nothing:
# whatever the machine, it is far from the 192,000 bytes a second that real time would be.


class Drops:
    """A body that comes byte by byte, each when it is let."""

    def __init__(self, first: bytes) -> None:
        self._events = [asyncio.Event() for _ in range(20_000)]
        self.script: Script = [
            head("200 OK", "Content-Type: audio/wav", "Transfer-Encoding: chunked") + chunk(first),
            *(step for each in self._events for step in (each, chunk(b"\0"))),
        ]

    async def heard(self, content: aiohttp.StreamReader) -> None:
        """Reads to the end, and lets one more for each that came."""
        for each in self._events:
            if not await content.readany():
                return
            each.set()


async def test_18_who_hears_a_trickle_is_told_that_it_broke_and_the_cluster_is_ejected() -> None:
    drops = Drops(wav(100)[:1000])
    async with ScriptedUpstream(drops.script) as near, aiohttp.ClientSession() as client:
        of = settings(
            near.url,
            fills=FillLimits(trickle=Trickle(window_s=0.2, real_time=1.0)),
            health=HealthPolicy(failures=1, ejected_s=30),
            probing=UNMEASURED,
            timeouts=PATIENT,
        )
        async with running(of) as node:
            async with client.post(f"http://127.0.0.1:{node.port}/v1/tts", json={"text": "slow"}) as answer:
                assert answer.status == 200
                with pytest.raises(aiohttp.ClientPayloadError):
                    await drops.heard(answer.content)
            async with client.get(f"http://127.0.0.1:{node.admin_port}/clusters") as told:
                (upstream,) = (await told.json())["upstreams"]
            assert (upstream["state"], upstream["failures"], upstream["faults"]) == ("ejected", 1, {"trickled": 1})
            assert upstream["last_fault"].startswith("trickled: it gave 0.0 s of sound in ")
            assert node.fills.status()["broken"] == 1


async def test_18_a_trickle_that_is_not_heard_yet_costs_nobody_an_answer() -> None:
    """Before the first audio it is the time to that which is over, and another cluster is asked."""
    header: Script = [
        head("200 OK", "Content-Type: audio/wav", "Transfer-Encoding: chunked") + chunk(wav(1)[:20]),
        chunk(wav(1)[20:21]),
        HOLD,
    ]
    async with (
        ScriptedUpstream(header) as near,
        ScriptedUpstream([whole(wav(1))], probe_script=[HOLD]) as far,
        running(settings(near.url, far.url, probing=UNMEASURED, timeouts=replace(PATIENT, first_byte_s=2.0))) as node,
        aiohttp.ClientSession() as client,
        client.post(f"http://127.0.0.1:{node.port}/v1/tts", json={"text": "slow"}) as answer,
    ):
        assert (answer.status, await answer.read()) == (200, wav(1))
        assert (len(near.requests), len(far.requests)) == (1, 1)
        assert node._fleet.status()[0].last_fault == "first byte timeout: no audio in time"
