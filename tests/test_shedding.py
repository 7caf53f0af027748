"""What is refused when there is too much to do: in which order, for how long, and what never is."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from edgecache.demo import tone
from edgecache.errors import NodeError
from edgecache.fill.edge import Live, Recorded
from edgecache.fill.limits import FillLimits
from edgecache.fill.priority import Priority
from edgecache.fill.shedding import MAX_RETRY_S, Level, Reason, Shed, Shedding
from tests.daemon import HANG_S, Daemon, config, daemons
from tests.edge_rig import STALE_S, heard, wish
from tests.edge_rig import rig as edge_rig
from tests.fill_rig import order, rig
from tests.houses import house
from tests.scripted_clusters import WAV, Barrier, Reply
from tests.scripted_upstream import Script, ScriptedUpstream, head
from tests.sockets import hear, say, with_aiohttp

MIB = 1 << 20
NOTHING, LATER, ALL = Level
BEAT_S = 0.1


def shedding() -> Shedding:
    return Shedding(Shed(), 100 * MIB)


def beats(made: Shedding, late_s: float, many: int, now: float = 0.0) -> float:
    """So many beats in a row that were so late; when the last of them was."""
    for _ in range(many):
        now += BEAT_S + late_s
        made.beat(late_s, now)
    return now


LATENESS = {
    "as it should be": (0.001, 100, NOTHING),
    "late once, for long": (30.0, 1, NOTHING),
    "late, not for long enough": (0.15, 2, NOTHING),
    "late": (0.15, 4, LATER),
    "very late": (0.6, 2, ALL),
}


@pytest.mark.parametrize(("late_s", "many", "level"), LATENESS.values(), ids=LATENESS)
def test_a_loop_that_is_late_at_each_beat_has_too_much_to_do(late_s: float, many: int, level: Level) -> None:
    made = shedding()
    beats(made, late_s, many)
    assert made.level is level


def test_a_loop_that_was_late_now_and_then_has_not() -> None:
    made, now = shedding(), 0.0
    for _ in range(50):
        now = beats(made, 2.0, 1, now)
        now = beats(made, 0.0, 1, now)
    assert made.level is NOTHING


HELD = [(0, NOTHING), (49, NOTHING), (50, LATER), (84, LATER), (85, ALL), (100, ALL)]


@pytest.mark.parametrize(("held_mib", "level"), HELD)
def test_bytes_that_are_held_count_at_once(held_mib: int, level: Level) -> None:
    made = shedding()
    made.hold(held_mib * MIB, 1.0)
    assert made.level is level


def test_it_does_not_flutter_about_a_threshold() -> None:
    made, levels = shedding(), []
    for at in range(100):
        made.hold((86 if at % 2 else 84) * MIB, at / 10)
        levels.append(made.level)
    assert levels == [LATER] + [ALL] * 99
    for at in range(100, 120):
        made.hold(60 * MIB, at / 10)
    assert made.level is LATER
    for at in range(120, 140):
        made.hold(10 * MIB, at / 10)
    assert made.level is NOTHING


def refused(made: Shedding, now: float = 0.0) -> dict[str, int | None]:
    """Who is refused, and for how long."""
    told: dict[str, int | None] = {}
    for priority in Priority:
        try:
            made.admit(priority, now)
        except NodeError as error:
            told[priority.word] = error.retry_after_s
    return told


def test_what_nobody_waits_to_hear_goes_first() -> None:
    made = shedding()
    assert refused(made) == {}
    made.hold(60 * MIB, 0.0)
    assert refused(made) == {"look-ahead": 1, "prefetch": 1, "warm-up": 1}
    made.hold(90 * MIB, 0.0)
    assert set(refused(made)) == {each.word for each in Priority}
    assert made.refused[Reason.HELD, Priority.INTERACTIVE] == 1
    assert made.told() == {"lag": 0, "held": 7, "flights": 0}


def test_what_has_lasted_is_said_to_last_on() -> None:
    made = shedding()
    made.hold(90 * MIB, 0.0)
    waits = [refused(made, now)["interactive"] for now in (0.0, 0.5, 4.2, 1000.0)]
    assert waits == [1, 1, 5, MAX_RETRY_S]


def test_both_reasons_are_told() -> None:
    made = shedding()
    assert made.why() == ""
    made.hold(90 * MIB, beats(made, 0.15, 5))
    assert made.why() == "all new fills are refused: the event loop is late and 90% of fills.max_held is in use"


# What becomes of fills and of those who ask.


async def test_rule_7_while_it_sheds_a_fill_under_way_is_joined_and_no_other_is_begun() -> None:
    barrier = Barrier()
    async with rig(Reply([WAV[:2000], barrier, WAV[2000:]])) as made:
        flight = made.fills.lead(order())
        await flight.begun()
        for _ in range(20):
            made.clock.advance(1.0)
            told = made.fills.pressed(late_s=0.9)
        assert told == "all new fills are refused: the event loop is late"
        with pytest.raises(NodeError) as error:
            made.fills.lead(order("Another"))
        assert (error.value.status, error.value.retry_after_s) == (503, 18)
        assert made.fills.join(flight.key) is flight
        barrier.open()
        assert await flight.whole() == WAV
        assert made.fills.status()["shed"] == {"lag": 1, "held": 0, "flights": 0}


async def test_hits_are_told_and_a_stale_recording_is_better_than_a_refusal() -> None:
    async with edge_rig() as here:
        fresh, stale = wish("Fresh"), wish("Stale")
        here.put(fresh, "memory")
        here.put(stale, "memory", age_s=STALE_S)
        for _ in range(20):
            here.clock.advance(1.0)
            here.fills.pressed(late_s=0.9)
        hit, old = await here.edge.speak(fresh), await here.edge.speak(stale)
        assert isinstance(hit, Recorded)
        assert isinstance(old, Recorded)
        assert (hit.forward_status, old.forward_status) == (None, 503)
        with pytest.raises(NodeError):
            await here.edge.speak(wish("New"))
        for _ in range(20):
            here.clock.advance(1.0)
            here.fills.pressed(late_s=0.0)
        new = await here.edge.speak(wish("New"))
        assert isinstance(new, Live)
        assert await heard(new) == WAV
        await asyncio.sleep(0)


# Real edges.

#: Whatever nobody waits for is always refused.
NOTHING_AHEAD = FillLimits(shed=Shed(held_later=0.0, held=1.0))


async def test_what_is_refused_ahead_is_asked_for_when_its_turn_comes() -> None:
    async with house(fills=NOTHING_AHEAD) as here:
        asked = {
            "text": "The first sentence is here. The second one follows it. And a third is the last.",
            "chunking": "sentence",
        }
        async with here.client.post(f"{here.url}/v1/tts", json=asked) as long:
            assert long.status == 200
            assert await long.read(), "to its end, or reading had raised"
        assert here.node.fills.shedding.refused[Reason.HELD, Priority.LOOK_AHEAD] == 2
        async with with_aiohttp(here.node.port, {}, ()) as client:
            for n in range(4):
                await say(client, text=f"Text {n}", id=n)
            told = [(await hear(client)).end for _ in range(4)]

    assert [(each["type"], each["id"]) for each in told] == [("synthesis_complete", n) for n in range(4)]
    assert here.node.fills.shedding.refused[Reason.HELD, Priority.LOOK_AHEAD] > 2
    assert here.node.fills.shedding.refused[Reason.HELD, Priority.INTERACTIVE] == 0


async def test_warm_up_is_refused_before_anybody_who_waits_is() -> None:
    async with house(fills=NOTHING_AHEAD) as here:
        later = await here.say("Later", headers={"Priority": "u=7"})
        now = await here.say("Now")

    assert (later.status, later.code, now.status) == (503, "busy", 200)


def resident_kib(daemon: Daemon, what: str) -> int:
    """What the kernel says of the process's memory: VmRSS now, VmHWM at the most."""
    lines = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


async def test_fault_95_memory_stays_within_its_bounds_however_much_is_asked_for() -> None:
    """60 listeners who do not read ask for 3 MiB each: 180 MiB, of which 16 may be held. The cluster tells the first dozen
    the beginning; then so much that nearly all of that is held; and the rest when all others have asked."""
    bounded = {
        "fills": {"max_held": "16MiB", "max_rendering": "4MiB"},
        "cache": {"redis": {"url": "off"}, "memory": {"max_size": "8MiB"}},
        "fast_lane": {"memo": "1MiB"},
    }
    sound, heard, asked = (
        tone.audio({"text": "A long story", "demo": {"bytes": 3 * MIB}}),
        asyncio.Event(),
        asyncio.Event(),
    )
    sized = head("200 OK", "Content-Type: audio/wav", f"Content-Length: {len(sound)}")
    much = 15 * MIB // 12
    script: Script = [sized + sound[:10_000], heard, sound[10_000:much], asked, sound[much:]]
    async with ScriptedUpstream(script) as upstream, daemons() as start:
        daemon = await start.serve(config(upstream.url, **bounded))
        before_kib = resident_kib(daemon, "VmRSS")
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), read_bufsize=1024) as client:

            async def ask(n: int) -> aiohttp.ClientResponse:
                return await client.post(f"{daemon.url}/v1/tts", json={"text": f"A long story, the {n}th"})

            first = await asyncio.gather(*(ask(n) for n in range(12)))
            heard.set()
            async with asyncio.timeout(HANG_S):
                while "all new fills" not in (await daemon.admin("/status"))[1]["causes"].get("shed", ""):
                    await asyncio.sleep(0.02)
            then = await asyncio.gather(*(ask(n) for n in range(12, 60)))
            asked.set()
            status = (await daemon.admin("/status"))[1]
            for answer in (*first, *then):
                answer.close()
            statuses = [[answer.status for answer in wave] for wave in (first, then)]
        peak_kib = resident_kib(daemon, "VmHWM")
        async with aiohttp.ClientSession() as client, asyncio.timeout(HANG_S):
            after = 0
            while after != 200:
                async with client.post(f"{daemon.url}/v1/tts", json={"text": "On"}) as answer:
                    after = answer.status
                    await answer.read()

    assert set(statuses[0]) == {200}
    assert 503 in statuses[1]
    assert status["fills"]["held_bytes"] <= 16 << 20
    # What is held, what memory keeps, and as much again for what is on its way in buffers and allocators.
    assert peak_kib - before_kib < 80 << 10, "of 180 MiB that were asked for"
