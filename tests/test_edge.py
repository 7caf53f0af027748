"""The meeting point: in what order it looks, whom it joins, when it goes forward, and what leaves no trace."""

import asyncio
from contextlib import suppress

import pytest

from edgecache.cache.lookup import Directives, Hit, Miss, Reason, Stale, Tier
from edgecache.cache.recording import Recording
from edgecache.clusters.fault import Fault, UpstreamFault
from edgecache.errors import ClientError, NodeError, SpeechError, UpstreamError
from edgecache.fill.edge import Live, Recorded
from edgecache.fill.flight import State
from tests.edge_rig import FRESH_S, GONE_S, STALE_S, built, heard, rig, wish
from tests.scripted_clusters import WAV, Barrier, Reply

NO_CACHE, NO_STORE, IF_CACHED = Directives(no_cache=True), Directives(no_store=True), Directives(only_if_cached=True)
DOWN = UpstreamFault(Fault.CONNECT, "c0", "down")

# The order of steps.


def test_a_memory_hit_never_suspends() -> None:
    made = built()
    recording = made.put(wish(), "memory")
    speaking = made.edge.speak(wish())
    with pytest.raises(StopIteration) as done:  # at once, and with no event loop at all
        speaking.send(None)
    speech = done.value.value
    assert speech == Recorded(recording, FRESH_S, 90.0, Tier.MEMORY)
    assert made.tiers.calls == ["peek"]


STEPS = [
    ("in memory", ("memory", "redis"), None, True, ["peek"], Tier.MEMORY),
    ("in Redis", ("redis",), None, True, ["peek", "find"], Tier.REDIS),
    ("nowhere", (), None, True, ["peek", "find", "look"], Reason.URI_MISS),
    ("nowhere, and memory is all there is", (), None, False, ["peek"], Reason.URI_MISS),
    ("asked for anew", ("memory", "redis"), NO_CACHE, True, [], Reason.REQUEST),
    ("not to be kept", ("memory", "redis"), NO_STORE, True, [], Reason.BYPASS),
    ("neither anew nor kept", ("memory",), Directives(no_cache=True, no_store=True), True, [], Reason.BYPASS),
]


@pytest.mark.parametrize(
    ("where", "directives", "shared", "calls", "found"), [row[1:] for row in STEPS], ids=[row[0] for row in STEPS]
)
async def test_where_speech_is_looked_for(
    where: tuple[str, ...], directives: Directives | None, shared: bool, calls: list[str], found: Tier | Reason
) -> None:
    async with rig(shared=shared) as made:
        made.put(wish(), *where)
        speech = await made.edge.speak(wish(directives=directives))
        assert made.tiers.calls == calls
        if isinstance(speech, Live):
            assert (speech.reason, speech.joined) == (found, False)
            assert await heard(speech) == WAV
            assert made.clusters.asked[0].forwarding == {"Via": "test"}
        else:
            assert (speech.tier, made.clusters.asked) == (found, [])


async def test_a_new_take_replaces_the_recording_and_what_is_not_kept_replaces_nothing() -> None:
    async with rig() as made:
        old = made.put(wish(), "memory", "redis")
        await heard(await made.edge.speak(wish(directives=NO_STORE)))
        assert await made.edge.speak(wish()) == Recorded(old, FRESH_S, 90.0, Tier.MEMORY)
        await heard(await made.edge.speak(wish(directives=NO_CACHE)))
        assert await heard(await made.edge.speak(wish())) == WAV
        assert len(made.clusters.asked) == 2


# Many at the same time.


async def test_redis_is_asked_once_for_all_who_ask_at_the_same_time() -> None:
    async with rig() as made:
        recording, barrier = made.put(wish(), "redis"), Barrier()
        made.tiers.barrier = barrier
        crowd = [asyncio.create_task(made.edge.speak(wish())) for _ in range(50)]
        await barrier.reached()
        crowd[0].cancel()  # who asked first need not stay
        barrier.open()
        got = await asyncio.gather(*crowd, return_exceptions=True)
        assert isinstance(got[0], asyncio.CancelledError)
        assert got[1:] == [Recorded(recording, FRESH_S, 90.0, Tier.REDIS)] * 49
        assert made.tiers.calls.count("find") == 1
        made.tiers.memory.clear()
        await made.edge.speak(wish())
        assert made.tiers.calls.count("find") == 2


async def test_rule_4_a_crowd_that_finds_nothing_makes_one_flight() -> None:
    async with rig() as made:
        crowd = await asyncio.gather(*(made.edge.speak(wish()) for _ in range(50)))
        assert [await heard(speech) for speech in crowd] == [WAV] * 50
        assert sorted(speech.joined for speech in crowd if isinstance(speech, Live)) == [False] + [True] * 49
        assert (made.tiers.calls.count("find"), len(made.clusters.asked), made.fills.led) == (1, 1, 1)


async def test_speech_under_way_is_joined_without_asking_redis() -> None:
    barrier = Barrier()
    async with rig(Reply([WAV[:100], barrier, WAV[100:]])) as made:
        first = await made.edge.speak(wish())
        made.tiers.calls.clear()
        second = await made.edge.speak(wish())
        assert made.tiers.calls == ["peek"]
        assert isinstance(first, Live)
        assert isinstance(second, Live)
        assert (second.flight, second.joined, second.head) == (first.flight, True, first.head)
        barrier.open()
        assert await heard(second) == WAV


async def test_a_fill_that_ended_while_redis_was_asked_is_found_in_memory() -> None:
    async with rig() as made:
        made.tiers.barrier = barrier = Barrier()
        waiting = asyncio.create_task(made.edge.speak(wish()))
        await barrier.reached()
        await heard(await made.edge.speak(wish(directives=NO_CACHE)))
        del made.tiers.redis[made.edge.asked(wish()).key]  # it is written behind, and not yet there
        barrier.open()
        speech = await waiting
        assert isinstance(speech, Recorded)
        assert (speech.tier, speech.recording.audio) == (Tier.MEMORY, WAV)
        assert len(made.clusters.asked) == 1


async def test_a_fill_that_began_while_redis_was_asked_is_joined() -> None:
    going_on = Barrier()
    async with rig(Reply([WAV[:100], going_on, WAV[100:]])) as made:
        made.tiers.barrier = barrier = Barrier()
        waiting = asyncio.create_task(made.edge.speak(wish()))
        await barrier.reached()
        await made.edge.speak(wish(directives=NO_CACHE))
        barrier.open()
        speech = await waiting
        assert isinstance(speech, Live)
        assert speech.joined
        going_on.open()
        await heard(speech)


async def test_who_leaves_at_any_step_leaves_nothing_behind_and_the_speech_is_kept() -> None:
    left = 0
    for steps in range(20):
        async with rig(Reply([WAV[:10], None, WAV[10:], None], before=[None, None])) as made:
            speaking = asyncio.create_task(made.edge.speak(wish()))
            for _ in range(steps):
                await asyncio.sleep(0)
            speaking.cancel()
            with suppress(asyncio.CancelledError):
                await speaking
            left += speaking.cancelled()
            await made.fills.drain()
            assert made.fills.led == len(made.clusters.asked) == len(made.tiers.memory)
            assert await heard(await made.edge.speak(wish())) == WAV
    assert 3 < left < 20


OWN = [("no-cache", NO_CACHE, True), ("no-store", NO_STORE, False)]


@pytest.mark.parametrize(("directives", "joinable"), [row[1:] for row in OWN], ids=[row[0] for row in OWN])
async def test_who_asks_for_a_new_take_joins_nobody(directives: Directives, joinable: bool) -> None:
    barrier = Barrier()
    async with rig(Reply([WAV[:100], barrier, WAV[100:]])) as made:
        first = await made.edge.speak(wish())
        own = await made.edge.speak(wish(directives=directives))
        after = await made.edge.speak(wish())
        flights = [speech.flight for speech in (first, own, after) if isinstance(speech, Live)]
        assert [flights.index(flight) for flight in flights] == ([0, 1, 1] if joinable else [0, 1, 0])
        barrier.open()
        assert await heard(own) == WAV


async def test_who_waits_for_the_first_audio_counts_as_a_reader() -> None:
    async with rig(Reply([WAV], before=[None])) as made:
        speech = await made.edge.speak(wish())
        assert isinstance(speech, Live)
        with speech.flight.reading():  # from here on it is the caller who counts
            await made.fills.drain()
            assert made.fills.held_bytes == len(WAV)
    barrier = Barrier()
    async with rig(Reply([WAV], before=[barrier])) as made:
        crowd = [asyncio.create_task(made.edge.speak(wish())) for _ in range(3)]
        await barrier.reached()
        flight = made.fills.flight(made.edge.asked(wish()).key)
        assert flight is not None
        assert flight.readers == 3
        barrier.open()
        await asyncio.wait(crowd)
        assert flight.readers == 0


# Errors, and speech past its time.

FAILING: list[tuple[str, Reply, type[SpeechError], int]] = [
    ("down", Reply(before=[DOWN]), UpstreamError, 503),
    ("too slow", Reply(before=[UpstreamFault(Fault.FIRST_BYTE_TIMEOUT, "c0", "")]), UpstreamError, 504),
    ("no audio", Reply([b"{}"]), UpstreamError, 502),
    ("our own failure", Reply([b"RIFF", RuntimeError()]), NodeError, 500),
    ("refused", Reply(before=[UpstreamFault(Fault.REFUSED, "c0", "", 422)]), ClientError, 422),
]


@pytest.mark.parametrize("where", ["memory", "redis"])
@pytest.mark.parametrize(("reply", "kind", "status"), [row[1:] for row in FAILING], ids=[row[0] for row in FAILING])
async def test_stale_speech_is_better_than_an_error_that_is_not_the_clients(
    reply: Reply, kind: type[SpeechError], status: int, where: str
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with rig(reply) as made:
        recording = made.put(wish(), where, age_s=STALE_S)
        if kind is ClientError:
            with pytest.raises(ClientError):
                await made.edge.speak(wish())
            assert made.edge.counters.stale_served == 0
        else:
            tier = Tier.MEMORY if where == "memory" else Tier.REDIS
            assert await made.edge.speak(wish()) == Recorded(recording, STALE_S, -400.0, tier, status)
            assert made.edge.counters.stale_served == 1
        with pytest.raises(kind) as told:
            await made.edge.speak(wish("never heard"))
        assert told.value.status == status


@pytest.mark.parametrize("directives", [NO_CACHE, NO_STORE], ids=["no-cache", "no-store"])
async def test_who_asks_for_a_new_take_is_not_given_an_old_one(directives: Directives) -> None:
    async with rig(Reply(before=[DOWN])) as made:
        made.put(wish(), "memory", age_s=STALE_S)
        with pytest.raises(UpstreamError):
            await made.edge.speak(wish(directives=directives))


@pytest.mark.parametrize("age_s", [STALE_S, GONE_S], ids=["stale", "gone"])
async def test_speech_past_its_time_is_made_anew(age_s: float) -> None:
    async with rig() as made:
        made.put(wish(), "memory", "redis", age_s=age_s)
        speech = await made.edge.speak(wish())
        assert isinstance(speech, Live)
        assert (speech.reason, await heard(speech)) == (Reason.STALE, WAV)
        assert isinstance(await made.edge.speak(wish()), Recorded)


async def test_what_breaks_off_after_its_first_audio_is_not_replaced_by_stale_speech() -> None:
    async with rig(Reply([WAV[:100], DOWN])) as made:
        made.put(wish(), "memory", age_s=STALE_S)
        speech = await made.edge.speak(wish())
        assert isinstance(speech, Live)
        with pytest.raises(UpstreamError, match="broken_off"):
            await heard(speech)
        assert speech.flight.state is State.BROKEN


IF_CACHED_ROWS = [
    ("nothing", (), FRESH_S, IF_CACHED, None),
    ("stale", ("memory", "redis"), STALE_S, IF_CACHED, None),
    ("in memory", ("memory",), FRESH_S, IF_CACHED, Tier.MEMORY),
    ("in Redis", ("redis",), FRESH_S, IF_CACHED, Tier.REDIS),
    ("and anew", ("memory",), FRESH_S, Directives(no_cache=True, only_if_cached=True), None),
    ("and not kept", ("memory",), FRESH_S, Directives(no_store=True, only_if_cached=True), None),
]


@pytest.mark.parametrize(
    ("where", "age_s", "directives", "tier"),
    [row[1:] for row in IF_CACHED_ROWS],
    ids=[row[0] for row in IF_CACHED_ROWS],
)
async def test_only_if_cached_never_goes_forward(
    where: tuple[str, ...], age_s: float, directives: Directives, tier: Tier | None
) -> None:
    async with rig() as made:
        made.put(wish(), *where, age_s=age_s)
        if tier is None:
            with pytest.raises(NodeError) as told:
                await made.edge.speak(wish(directives=directives))
            assert (told.value.status, told.value.code) == (504, "not_cached")
        else:
            speech = await made.edge.speak(wish(directives=directives))
            assert isinstance(speech, Recorded)
            assert speech.tier is tier
        assert (made.clusters.asked, made.fills.led) == ([], 0)


# Whose it is (rules 1 and 8).


@pytest.mark.parametrize("where", ["memory", "redis"])
async def test_rule_1_anothers_recording_under_our_key_is_counted_and_never_served(where: str) -> None:
    async with rig() as made:
        key = made.edge.asked(wish()).key
        other = made.recording(wish("Something else"))
        getattr(made.tiers, where)[key] = Recording(key, other.namespace, other.canonical, other.facts, other.audio)
        speech = await made.edge.speak(wish())
        assert await heard(speech) == WAV
        assert made.edge.counters.mismatches == 1
        assert await heard(await made.edge.speak(wish())) == WAV
        assert made.edge.counters.mismatches == 1


async def test_rule_8_a_key_opens_a_recording_only_to_its_own_namespace() -> None:
    async with rig() as made:
        key = made.put(wish(namespace="ann"), "memory").key
        assert (await made.edge.recorded(key, "ann")) is not None
        assert (await made.edge.recorded(key, "bob")) is None
        assert made.edge.asked(wish(namespace="bob")).key != key
        assert made.edge.counters.mismatches == 0  # to ask for another's is no fault of the store's


# What only looks.

LOOKS = [
    ("nowhere", (), FRESH_S, Miss, None),
    ("in memory", ("memory",), FRESH_S, Hit, Tier.MEMORY),
    ("in Redis", ("redis",), FRESH_S, Hit, Tier.REDIS),
    ("stale in memory", ("memory",), STALE_S, Stale, Tier.MEMORY),
    ("stale in Redis", ("redis",), STALE_S, Stale, Tier.REDIS),
    ("gone", ("memory",), GONE_S, Miss, Tier.MEMORY),
]
looks = pytest.mark.parametrize(
    ("where", "age_s", "verdict", "tier"), [row[1:] for row in LOOKS], ids=[row[0] for row in LOOKS]
)


@looks
async def test_explaining_changes_nothing(
    where: tuple[str, ...], age_s: float, verdict: type, tier: Tier | None
) -> None:
    async with rig() as made:
        made.put(wish(), *where, age_s=age_s)
        before = dict(made.tiers.memory), dict(made.tiers.redis)
        told = await made.edge.explain(wish())
        assert (type(told.verdict), told.tier, told.under_way) == (verdict, tier, False)
        assert (made.tiers.memory, made.tiers.redis) == before
        assert made.tiers.calls == (["look"] if "memory" in where else ["look", "find without backfill"])
        assert (made.clusters.asked, made.fills.led) == ([], 0)


async def test_explaining_does_not_count_and_tells_of_speech_under_way() -> None:
    barrier = Barrier()
    async with rig(Reply([WAV[:100], barrier, WAV[100:]])) as made:
        speech = await made.edge.speak(wish())
        other = made.recording(wish("Something else"))
        asked = made.edge.asked(wish())
        made.tiers.memory[asked.key] = other
        told = await made.edge.explain(wish())
        assert (told.under_way, told.verdict) == (True, Miss(Reason.URI_MISS, mismatch=True))
        assert (made.edge.counters.mismatches, made.fills.joined) == (0, 0)
        barrier.open()
        await heard(speech)


@looks
async def test_probing_never_goes_forward(where: tuple[str, ...], age_s: float, verdict: type, tier: Tier) -> None:
    async with rig() as made:
        made.put(wish(), *where, age_s=age_s)
        found = await made.edge.probe(wish())
        assert (found.tier if found else None) == (tier if verdict is Hit else None)
        assert (made.clusters.asked, made.fills.led) == ([], 0)


@looks
async def test_a_recording_is_had_by_its_key_while_it_is_fresh(
    where: tuple[str, ...], age_s: float, verdict: type, tier: Tier
) -> None:
    async with rig() as made:
        made.put(wish(), *where, age_s=age_s)
        found = await made.edge.recorded(made.edge.asked(wish()).key, "default")
        assert (found.tier if found else None) == (tier if verdict is Hit else None)
        assert (made.clusters.asked, made.fills.led) == ([], 0)
