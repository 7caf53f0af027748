"""Purging as an operator does it, over the admin listener: what clients then hear, and what clusters are asked."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from edgecache.cache.key import Naming, VoiceRevision
from edgecache.cache.purges import Kind, Purge, Scope
from edgecache.fill.edge import Live, Recorded, Wish
from edgecache.node import Node
from edgecache.speech.utterance import utterance
from tests.daemon import HANG_S
from tests.edge_rig import Rig, heard, rig, wish
from tests.fake_clock import FakeClock
from tests.houses import Heard, House, cluster, house, running, settings, with_redis
from tests.redis_houses import hit, mismatches, missed, redis_alone, said, written
from tests.redis_server import RedisServer
from tests.scripted_clusters import WAV, Barrier, Reply
from tests.test_fastlane import answered, post, talking

pytestmark = pytest.mark.net


async def purged(node: Node, due: int = 200, **asked: Any) -> dict[str, Any]:
    """What the admin listener says to this purge."""
    url = f"http://127.0.0.1:{node.admin_port}/purge"
    async with aiohttp.ClientSession() as client, client.post(url, json=asked) as answer:
        told: dict[str, Any] = await answer.json()
        assert answer.status == due, told
    return told


async def purge_method(node: Node, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    url = f"http://127.0.0.1:{node.admin_port}{path}"
    async with aiohttp.ClientSession() as client, client.request("PURGE", url, headers=headers) as answer:
        return answer.status, await answer.json()


async def key_of(home: House, text: str, **others: Any) -> str:
    return (await said(home, text, **others)).headers["Content-Location"].rpartition("/")[2]


def is_hit(told: Heard) -> bool:
    return "; hit;" in told.cache


#: The demo cluster has these two voices.
AVA = {"voice_id": "tone", "language": "de", "demo": {"tags": "a news"}}
BEN = {"voice_id": "default", "language": "en", "demo": {"tags": "b"}}
#: What is purged, and whether Ava's and Ben's recordings fall under it.
SCOPES: list[tuple[str, dict[str, Any], bool, bool]] = [
    ("all", {"all": True}, True, True),
    ("voice", {"voice": "tone"}, True, False),
    ("language", {"language": "en"}, False, True),
    ("namespace", {"namespace": "default"}, True, True),
    ("another namespace", {"namespace": "key-acme"}, False, False),
    ("cluster", {"cluster": "c0"}, True, True),
    ("another cluster", {"cluster": "c1"}, False, False),
    ("tag", {"tag": "news"}, True, False),
    ("tags", {"tags": ["b", "nothing"]}, False, True),
    ("text", {"utterance": {"text": "Hello", **AVA}}, True, False),
    ("text, with another voice", {"utterance": {"text": "Hello", "voice_id": "eve"}}, False, False),
    ("text, in another namespace", {"utterance": {"text": "Hello", **AVA}, "namespace": "key-acme"}, False, False),
]


@pytest.mark.parametrize(("asked", "ava", "ben"), [row[1:] for row in SCOPES], ids=[row[0] for row in SCOPES])
async def test_what_falls_under_a_purge_is_asked_for_anew_and_nothing_else(
    asked: dict[str, Any], ava: bool, ben: bool
) -> None:
    async with house() as home:
        for said_as in (AVA, BEN):
            await said(home, "Hello", **said_as)
        looked = await purged(home.node, dry_run=True, **asked)
        assert looked["memory"]["recordings"] == ava + ben
        assert is_hit(await said(home, "Hello", **AVA))
        told = await purged(home.node, **asked)
        assert told["done"]
        assert (told["memory"]["recordings"], told["memory"]["whole"]) == (ava + ben, True)
        assert (told["memory"]["bytes"] > 0) == bool(ava + ben)
        assert len(home.node._memory) == 2 - ava - ben
        for said_as, gone in ((AVA, ava), (BEN, ben)):
            assert is_hit(await said(home, "Hello", **said_as)) == (not gone)
            assert is_hit(await said(home, "Hello", **said_as))
        assert home.origin.counters.syntheses == 2 + ava + ben


async def test_a_recording_is_purged_by_its_key_or_by_its_address() -> None:
    async with house() as home:
        key = await key_of(home, "Hello")
        assert (await purged(home.node, key=key))["memory"]["recordings"] == 1
        assert "fwd=uri-miss" in (await said(home, "Hello")).cache
        status, told = await purge_method(home.node, f"/v1/audio/{key}")
        assert (status, told["memory"]["recordings"]) == (200, 1)
        assert "fwd=uri-miss" in (await said(home, "Hello")).cache
        status, told = await purge_method(home.node, "/v1/tts?text=Hello")
        assert (status, told["purges"][0]["value"]) == (200, key)
        await said(home, "Tagged", demo={"tags": "x y"})
        assert (await purge_method(home.node, "/", {"Surrogate-Key": "z y"}))[1]["memory"]["recordings"] == 1
        assert not is_hit(await said(home, "Tagged", demo={"tags": "x y"}))


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("nothing", {}, "only one"),
    ("two", {"voice": "ava", "tag": "a"}, "only one"),
    ("no such scope", {"mood": "sad"}, "mood"),
    ("not a key", {"key": "xyz"}, "64 hexadecimal digits"),
    ("not text", {"voice": 7}, "voice"),
    ("no names", {"tags": []}, "tags"),
    ("too many names", {"tags": [str(n) for n in range(257)]}, "256"),
    ("too long", {"voice": "x" * 257}, "256"),
    ("not a switch", {"voice": "ava", "soft": "yes"}, "soft"),
    ("not all", {"all": False}, "only one"),
    ("an utterance and more", {"utterance": {"text": "a"}, "voice": "ava"}, "utterance"),
    ("no utterance", {"utterance": "Hello"}, "utterance"),
    ("an utterance without text", {"utterance": {"voice_id": "ava"}}, "text"),
]


@pytest.mark.parametrize(("asked", "word"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
async def test_what_is_no_purge_is_refused_and_purges_nothing(asked: dict[str, Any], word: str) -> None:
    async with house() as home:
        await said(home, "Hello")
        assert word in (await purged(home.node, 400, **asked))["error"]["message"]
        status, told = await purge_method(home.node, "/")
        assert (status, told["error"]["code"]) == (400, "not_a_purge")
        assert is_hit(await said(home, "Hello"))


async def test_long_text_is_purged_with_its_sentences() -> None:
    text = " ".join(f"This is sentence number {n}." for n in range(3))
    async with house() as home:
        await spoken_by_sentence(home, text)
        await home.node.fills.drain()
        before = home.origin.counters.syntheses
        told = await purged(home.node, utterance={"text": text, "chunking": "sentence"})
        assert told["memory"]["recordings"] == before
        await spoken_by_sentence(home, text)
        assert home.origin.counters.syntheses == 2 * before > 2
        # Of the whole there is no recording; its key is purged all the same.
        assert len(told["purges"]) == before + 1


async def spoken_by_sentence(home: House, text: str) -> None:
    async with home.client.post(f"{home.url}/v1/tts", json={"text": text, "chunking": "sentence"}) as answer:
        assert answer.status == 200
        await answer.read()


async def test_soft_purged_speech_is_asked_for_anew_and_served_only_if_clusters_fail() -> None:
    async with house() as home:
        first = await said(home, "Hello")
        told = await purged(home.node, voice="default", soft=True)
        assert told["memory"]["recordings"] == len(home.node._memory) == 1
        home.origin.knobs = replace(home.origin.knobs, status=503)
        stale = await said(home, "Hello")
        assert "fwd=stale; fwd-status=" in stale.cache
        assert stale.body == first.body
        home.origin.knobs = replace(home.origin.knobs, status=200)
        async with asyncio.timeout(HANG_S):
            while "fwd=stale; stored" not in (await said(home, "Hello")).cache:
                pass
        assert is_hit(await said(home, "Hello"))
        # What was soft is gone if it is purged for good.
        await purged(home.node, voice="default")
        home.origin.knobs = replace(home.origin.knobs, status=503)
        assert (await home.say("Hello")).status == 503


async def test_no_memo_of_the_fast_lane_leads_past_a_purge() -> None:
    clock = FakeClock()
    async with talking(clock) as talk:
        assert "; hit;" in (await talk.known(post())).cache
        for soft in (False, True):
            clock.advance(0.3)  # in the midst of a second, of which every word stays true from now on
            before = answered(talk.node)
            # So often that no step of it is taken again.
            assert "; hit;" in (await talk.ask(*[post()] * 5)).cache
            await purged(talk.node, voice="default", soft=soft)
            assert "; hit;" not in (await talk.ask(post())).cache
            assert answered(talk.node) == before + 5
            assert "; hit;" in (await talk.known(post())).cache


async def test_a_purge_of_something_else_leaves_the_fast_lane_to_its_hits() -> None:
    async with talking() as talk:
        await talk.known(post())
        await purged(talk.node, voice="another")
        before = answered(talk.node)
        assert "; hit;" in (await talk.ask(post(), post())).cache
        assert answered(talk.node) == before + 2


# Fills under way.


def purge(made: Rig, scope: Scope, value: str, kind: Kind = Kind.HARD) -> None:
    standing_ = made.fills.purges
    standing_.add(Purge(scope, value, kind, standing_.serial(made.clock.wall())))


UNDER_WAY = [
    (Scope.ALL, "", True),
    (Scope.VOICE, "ava", True),
    (Scope.VOICE, "ben", False),
    (Scope.NAMESPACE, "default", True),
    (Scope.CLUSTER, "c0", True),
    (Scope.CLUSTER, "c1", False),
    (Scope.TAG, "news", True),
    (Scope.TAG, "other", False),
]


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(("scope", "value", "falls"), UNDER_WAY)
async def test_a_fill_begun_before_a_purge_is_neither_joined_nor_stored(
    scope: Scope, value: str, falls: bool, kind: Kind
) -> None:
    barrier, tagged = Barrier(), {"surrogate-key": "news"}
    async with rig(Reply([WAV[:1000], barrier, WAV[1000:]], headers=tagged), Reply(headers=tagged)) as made:
        ava = Wish(utterance({"text": "Hello", "voice_id": "ava"}), "default")
        before = await made.edge.speak(ava)
        await barrier.reached()
        purge(made, scope, value, kind)
        after = await made.edge.speak(ava)
        assert isinstance(before, Live)
        assert isinstance(after, Live)
        assert (after.flight is before.flight) == (not falls)
        barrier.open()
        # Who heard it already hears it to its end.
        assert await heard(before) == await heard(after) == WAV
        await made.fills.drain()
        assert made.fills.unstored == ({"purged": 1} if falls else {})
        assert isinstance(await made.edge.speak(ava), Recorded)
        assert len(made.clusters.asked) == 1 + falls


async def test_a_fill_that_may_turn_out_to_be_purged_is_not_joined() -> None:
    barrier = Barrier()
    async with rig(Reply(before=[barrier], headers={"cache-tag": "news"}), Reply()) as made:
        first = asyncio.create_task(made.edge.speak(wish()))
        await barrier.reached()
        purge(made, Scope.TAG, "news")
        second = await made.edge.speak(wish())
        barrier.open()
        assert isinstance(second, Live)
        assert not second.joined
        await heard(await first)
        await heard(second)
        await made.fills.drain()
        assert made.fills.unstored == {"purged": 1}


async def test_a_fill_that_nobody_may_be_given_is_not_finished_for_its_own_sake() -> None:
    barrier = Barrier()
    async with rig(Reply([WAV[:1000], barrier, WAV[1000:]])) as made:
        speech = await made.edge.speak(wish())
        await barrier.reached()
        purge(made, Scope.ALL, "")
        assert isinstance(speech, Live)
        assert made.fills.purged_under_way == 1
        assert made.fills.flight(speech.flight.key) is None
        barrier.open()
    assert made.tiers.memory == made.tiers.redis == {}


async def test_what_redis_finds_while_it_is_purged_is_not_served() -> None:
    async with rig(Reply()) as made:
        made.put(wish(), "redis")
        made.tiers.barrier = Barrier()
        asking = asyncio.create_task(made.edge.speak(wish()))
        await made.tiers.barrier.reached()
        purge(made, Scope.NAMESPACE, "default")
        made.tiers.barrier.open()
        assert isinstance(await asking, Live)


# Redis, and other nodes.


@pytest.mark.redis
async def test_what_redis_holds_is_purged_without_looking_for_it(redis_server: RedisServer) -> None:
    async with house(cache=redis_alone(redis_server.url)) as home:
        await missed(home, "Hello")
        await written(home.node)
        await hit(home, "Hello")
        redis_server.call("CONFIG", "RESETSTAT")
        told = await purged(home.node, voice="default")
        assert (told["done"], told["redis"]) == (True, True)
        assert calls(redis_server) - {"config|resetstat", "info"} <= {"hget", "hlen", "hgetall", "hset"}
        await missed(home, "Hello")
        await written(home.node)
        await hit(home, "Hello")
        key = await key_of(home, "Hello")
        assert (await purged(home.node, key=key))["done"]
        await written(home.node)
        assert redis_server.call("EXISTS", f"tts:{key}") == 0


def calls(server: RedisServer) -> set[str]:
    """What Redis was asked since it was told to begin counting."""
    return {name.removeprefix("cmdstat_") for name in server.call("INFO", "commandstats")}


@asynccontextmanager
async def two(server: RedisServer, budget_s: float = 15.0) -> AsyncIterator[tuple[House, House]]:
    """Two nodes of one region, and one cluster."""
    async with (
        cluster() as origin,
        running(settings(origin.url, cache=with_redis(server.url, budget_s=budget_s))) as one,
        running(settings(origin.url, cache=with_redis(server.url, budget_s=budget_s))) as other,
        aiohttp.ClientSession() as client,
    ):
        yield House(origin, one, client), House(origin, other, client)


async def until_it_knows(home: House) -> None:
    """Until this node knows of a purge, and has swept its memory."""
    async with asyncio.timeout(HANG_S):
        while home.node.purges.newest == 0 or home.node._purging._sweeps:
            await asyncio.sleep(0.005)


@pytest.mark.redis
@pytest.mark.parametrize("soft", [False, True])
async def test_a_purge_reaches_other_nodes_of_the_same_redis(redis_server: RedisServer, soft: bool) -> None:
    async with two(redis_server) as (one, other):
        await missed(one, "Hello")
        await written(one.node)
        await hit(other, "Hello")
        await hit(other, "Hello", "memory")
        await purged(one.node, voice="default", soft=soft)
        await until_it_knows(other)
        assert len(other.node._memory) == soft  # what is gone holds no memory
        assert not is_hit(await said(other, "Hello"))
        await written(other.node)
        # What was made after the purge is everyone's.
        assert is_hit(await said(one, "Hello"))
        assert one.origin.counters.syntheses == 2


@pytest.mark.redis
async def test_a_fill_on_another_node_that_was_begun_before_a_purge_is_not_stored(redis_server: RedisServer) -> None:
    async with two(redis_server) as (one, other):
        begun = asyncio.create_task(said(other, "Hello", demo={"first_byte_ms": 700}))
        async with asyncio.timeout(HANG_S):
            while not other.node.fills.under_way:
                await asyncio.sleep(0.005)
        await purged(one.node, language="en")
        await until_it_knows(other)
        await begun
        await other.node.fills.drain()
        assert other.node.fills.unstored == {"purged": 1}
        assert len(other.node._memory) == 0


@pytest.mark.redis
async def test_a_node_that_starts_later_knows_what_was_purged(redis_server: RedisServer) -> None:
    async with cluster() as origin, aiohttp.ClientSession() as client:
        ours = settings(origin.url, cache=redis_alone(redis_server.url))
        async with running(ours) as node:
            await missed(House(origin, node, client), "Hello")
            await written(node)
            await purged(node, tag="x")
            await purged(node, voice="default")
        async with running(ours) as node:
            assert len(node.purges) == 2
            await missed(House(origin, node, client), "Hello")


@pytest.mark.redis
async def test_a_purge_that_can_be_about_nothing_any_more_is_taken_out_of_redis(redis_server: RedisServer) -> None:
    redis_server.call("HSET", "tts:purges", "change", "x", "hard:voice:ava", "1000", "soft:all:", "2000")
    async with house(cache=with_redis(redis_server.url)) as home:
        assert len(home.node.purges) == 0
        assert redis_server.call("HKEYS", "tts:purges") == [b"change"]
        await purged(home.node, voice="ben")
        assert set(redis_server.call("HKEYS", "tts:purges")) == {b"change", b"hard:voice:ben"}


@pytest.mark.redis
async def test_rule_7_a_list_of_purges_that_is_none_is_not_read(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecache.store.standing.MAX_FIELDS", 10)
    redis_server.call(
        "HSET", "tts:purges", *(part for n in range(11) for part in (f"hard:tag:{n}", "9999999999999999"))
    )
    async with house(cache=with_redis(redis_server.url)) as home:
        assert len(home.node.purges) == 0
        await said(home, "Hello")
        told = await purged(home.node, 207, voice="default")
        assert "too long" in told["redis_fault"]
        assert not is_hit(await said(home, "Hello"))


@pytest.mark.redis
async def test_purges_that_redis_lost_are_told_to_it_again(redis_server: RedisServer) -> None:
    async with two(redis_server) as (one, other):
        await purged(one.node, voice="ava")
        redis_server.call("FLUSHALL")
        async with asyncio.timeout(HANG_S):
            while redis_server.call("HEXISTS", "tts:purges", "hard:voice:ava") != 1:
                await asyncio.sleep(0.01)
        assert len(other.node.purges) <= 1


@pytest.mark.redis
@pytest.mark.parametrize("how", ["dead", "hanging"])
async def test_rule_6_without_redis_a_purge_holds_here_says_so_and_is_told_to_redis_later(
    redis_server: RedisServer, how: str
) -> None:
    async with two(redis_server, budget_s=1.5) as (one, other):
        await missed(one, "Hello")
        await written(one.node)
        await hit(other, "Hello")
        (redis_server.kill if how == "dead" else redis_server.stop)()
        told = await purged(one.node, 207, voice="default")
        assert (told["done"], told["redis"], told["workers"]["missing"]) == (False, False, [])
        assert told["redis_fault"]
        assert not is_hit(await said(one, "Hello"))
        assert is_hit(await said(other, "Hello"))  # nobody could tell it
        (redis_server.start if how == "dead" else redis_server.go_on)()
        await until_it_knows(other)
        assert not (await said(other, "Hello")).cache.endswith("detail=memory")


@pytest.mark.redis
@pytest.mark.parametrize(
    "junk",
    [
        ("SET", "tts:purges", "x"),
        ("HSET", "tts:purges", "change", "1", "hard:voice:", "7", "x", "y", "hard:mood:x", "1"),
        ("RPUSH", "tts:purges", "a"),
    ],
)
async def test_rule_6_what_redis_says_of_purges_is_not_believed(
    redis_server: RedisServer, junk: tuple[str, ...]
) -> None:
    async with two(redis_server) as (one, _):
        await missed(one, "Hello")
        redis_server.call(*junk)
        await one.node._purging.standing.look()  # type: ignore[union-attr]  # there is one: there is a Redis
        assert len(one.node.purges) == 0
        assert is_hit(await said(one, "Hello"))
        await purged(one.node, 207 if junk[0] != "HSET" else 200, voice="default")
        assert not is_hit(await said(one, "Hello"))


async def test_rule_7_no_more_purges_stand_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecache.purging.MAX_STANDING", 2)
    async with house() as home:
        await purged(home.node, tags=["a", "b"])
        told = await purged(home.node, 409, tag="c")
        assert told["error"]["code"] == "too_many_purges"
        await purged(home.node, all=True)
        assert len(home.node.purges) == 1
        await purged(home.node, tag="c")


# Looking before purging.


LOOKS: list[tuple[dict[str, Any], int]] = [
    ({"voice": "tone"}, 1),
    ({"tag": "news"}, 1),
    ({"language": "en"}, 2),
    ({"all": True}, 3),
    ({"cluster": "c7"}, 0),
]


@pytest.mark.redis
async def test_redis_is_counted_only_if_that_is_asked_for(redis_server: RedisServer) -> None:
    async with house(cache=redis_alone(redis_server.url)) as home:
        await said(home, "Hello", **AVA)
        for text in ("One", "Two"):
            await said(home, text, language="en", voice_id="default")
        await written(home.node)
        redis_server.call("SET", f"tts:{'0' * 64}", "none of ours")
        redis_server.call("HSET", f"tts:{'1' * 64}", "neither", "is this")
        for asked, due in LOOKS:
            assert (await purged(home.node, dry_run=True, **asked))["redis"] is None
            told = await purged(home.node, dry_run=True, count_redis=True, **asked)
            assert (told["redis"], told["redis_looked"], told["redis_whole"]) == (due, 3, True)
        assert len(home.node.purges) == 0
        await purged(home.node, voice="tone")
        told = await purged(home.node, dry_run=True, count_redis=True, all=True)
        assert told["redis"] == 2
        assert "dry_run" in (await purged(home.node, 400, voice="tone", count_redis=True))["error"]["message"]
        redis_server.kill()
        told = await purged(home.node, dry_run=True, count_redis=True, all=True)
        assert (told["redis"], told["redis_whole"], bool(told["redis_fault"])) == (0, False, True)


@pytest.mark.redis
async def test_a_key_that_redis_holds_is_counted_without_a_search(redis_server: RedisServer) -> None:
    async with house(cache=redis_alone(redis_server.url)) as home:
        key = await key_of(home, "Hello")
        await written(home.node)
        assert (await purged(home.node, dry_run=True, keys=[key, "0" * 64]))["redis"] == 1
        assert (await purged(home.node, dry_run=True, utterance={"text": "Hello"}))["redis"] == 1


# Voices that were made anew.


@pytest.mark.redis
async def test_another_revision_of_a_voice_is_asked_for_anew_and_going_back_finds_the_old_one(
    redis_server: RedisServer,
) -> None:
    plain = redis_alone(redis_server.url)
    revised = replace(plain, key=Naming(voice_revisions=(VoiceRevision("tone", "2"),)))
    async with cluster() as origin, aiohttp.ClientSession() as client:
        for cache, made in ((plain, True), (revised, True), (revised, False), (plain, False)):
            async with running(settings(origin.url, cache=cache)) as node:
                here = House(origin, node, client)
                assert is_hit(await said(here, "Hello", voice_id="tone")) != made
                key = await key_of(here, "Hello", voice_id="default")
                await written(node)
                if cache is revised:
                    async with client.get(f"{here.url}/v1/audio/{key}") as answer:
                        assert answer.status == 200
                else:
                    old = await key_of(here, "Hello", voice_id="tone")
                async with client.get(f"{here.url}/v1/audio/{old}") as answer:
                    assert answer.status == (404 if cache is revised else 200)
                assert mismatches(node) == 0
        assert origin.counters.syntheses == 3
