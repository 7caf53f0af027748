"""Whatever else lies in Redis where leases and tails do: it is not believed, costs little, and harms no other key."""

import asyncio
from collections.abc import Callable

import aiohttp
import pytest
import xxhash

from edgecache.cache.lookup import Asked
from edgecache.fill.tail import VERSION, Alive, Begun, Broken, Ended, Entry, More, Opened, frame
from tests.lease_houses import BEGUN, FIRST, LAST, REST, WAV, Edges, edges, first_of
from tests.redis_server import RedisServer, ScriptedRedis
from tests.scripted_upstream import Script, ScriptedUpstream, whole

pytestmark = [pytest.mark.net, pytest.mark.redis]

WHOLE: Script = [whole(WAV)]
TOKEN = "0123456789abcdef.7"
HEAD = Begun("audio/wav", "c0", True, (), b"")
#: Some rows take one and a half of it; in a quarter of it a busy machine has to have read an entry.
SHORT_S = 3.0

Forgery = Callable[[RedisServer, Asked], object]


def lease(asked: Asked) -> str:
    return f"tts:lease:{asked.key}"


def tail(asked: Asked) -> str:
    return f"tts:tail:{asked.key}:{TOKEN}"


def opened(asked: Asked) -> Opened:
    return Opened(VERSION, asked.namespace, asked.canonical, 0)


def told(*entries: Entry | bytes) -> Forgery:
    """Someone holds the lease and tells this."""

    def forge(redis: RedisServer, asked: Asked) -> None:
        redis.call("SET", lease(asked), TOKEN)
        for number, each in enumerate(entries, 1):
            entry = opened(asked) if isinstance(each, Opened) and each.version == VERSION else each
            redis.call("XADD", tail(asked), f"{number}-0", "e", entry if isinstance(entry, bytes) else frame(entry))

    return forge


def held(value: str) -> Forgery:
    return lambda redis, asked: redis.call("SET", lease(asked), value)


def with_tail(*command: str | bytes) -> Forgery:
    def forge(redis: RedisServer, asked: Asked) -> None:
        redis.call("SET", lease(asked), TOKEN)
        redis.call(command[0], tail(asked), *command[1:])

    return forge


OURS = Opened(VERSION, "", b"", 0)
FORGED: list[tuple[str, Forgery]] = [
    ("a list for a lease", lambda redis, asked: redis.call("LPUSH", lease(asked), "x")),
    ("junk for a lease", held("what is this")),
    ("a holder's name with a colon", held("0123456789abcdef:7")),
    ("a string for a tail", with_tail("SET", "x")),
    ("an entry with other fields", with_tail("XADD", "1-0", "a", "b")),
    ("an entry with more fields", with_tail("XADD", "1-0", "e", "b", "e", "c")),
    ("junk in an entry", told(b"junk")),
    ("nothing in an entry", told(b"")),
    ("another utterance", told(frame(Opened(VERSION, "default", b"another", 0)), HEAD, More(0, WAV))),
    ("another version", told(Opened(VERSION + 1, "default", b"", 0))),
    ("audio before its head", told(OURS, More(0, WAV))),
    ("a head without audio", told(OURS, HEAD, Broken("so"))),
    ("a head that splits an answer's", told(OURS, frame(Begun("audio/wav\r\nX-Evil: 1", "c0", True, (), b"")))),
    ("what is no audio", told(OURS, HEAD, More(0, b'{"error": "no"}'), Broken("so"))),
    ("an end without audio", told(OURS, HEAD, Ended(0, xxhash.xxh3_128_digest(b""), None))),
    ("a break at once", told(Broken("so"))),
]


@pytest.mark.parametrize("forge", [row[1] for row in FORGED], ids=[row[0] for row in FORGED])
async def test_rule_1_what_is_forged_before_anything_is_heard_costs_a_wait_and_nothing_else(
    redis_server: RedisServer, forge: Forgery
) -> None:
    async with ScriptedUpstream(WHOLE) as cluster, edges(redis_server.url, cluster.url, lease_ttl_s=SHORT_S) as made:
        forge(redis_server, made.asked())
        assert await made.heard(0) == WAV
        assert len(cluster.requests) == 1
        assert made.results(0) == {"unavailable": 1}


async def test_a_lease_of_nobodys_is_taken_long_before_its_time(redis_server: RedisServer) -> None:
    """As when its holder was killed, or an edge was asked to stop and did not get to giving it back."""
    async with ScriptedUpstream(WHOLE) as cluster, edges(redis_server.url, cluster.url, lease_ttl_s=SHORT_S) as made:
        held(TOKEN)(redis_server, made.asked())  # for ever
        assert await made.heard(0) == WAV
        assert made.results(0) == {"taken_over": 1}


CUT: list[tuple[str, list[Entry]]] = [
    ("an end that does not agree", [Ended(len(FIRST), bytes(16), None)]),
    ("a gap", [More(len(FIRST) + 1, REST)]),
    ("the same bytes again", [More(0, FIRST)]),
    ("a second head", [HEAD]),
    ("a break", [Broken("so")]),
    ("no more", [Alive()]),
]


@pytest.mark.parametrize("then", [row[1] for row in CUT], ids=[row[0] for row in CUT])
async def test_rules_2_and_3_what_is_forged_later_is_a_break_and_is_not_kept(
    redis_server: RedisServer, then: list[Entry]
) -> None:
    async with ScriptedUpstream(WHOLE) as cluster, edges(redis_server.url, cluster.url, lease_ttl_s=SHORT_S) as made:
        told(OURS, HEAD, More(0, FIRST), *then)(redis_server, made.asked())
        async with made.asking(0) as answer:
            assert await first_of(answer, len(FIRST)) == FIRST
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        assert redis_server.call("EXISTS", f"tts:{made.key}") == 0
        redis_server.call("DEL", lease(made.asked()))
        assert await made.heard(0) == WAV
        assert len(cluster.requests) == 1


async def test_what_a_forger_tells_whole_is_heard_and_not_kept_unless_it_is_what_was_sealed(
    redis_server: RedisServer,
) -> None:
    """Who may write to Redis may write recordings too; but an end without a recording's facts is none."""
    async with ScriptedUpstream(WHOLE) as cluster, edges(redis_server.url, cluster.url, lease_ttl_s=SHORT_S) as made:
        end = Ended(len(WAV), xxhash.xxh3_128_digest(WAV), None)
        told(OURS, HEAD, More(0, WAV), end)(redis_server, made.asked())
        assert await made.heard(0) == WAV
        memory = made.nodes[0].status()["tiers"]["memory"]  # type: ignore[index]
        assert memory["recordings"] == 0
        assert made.nodes[0].fills.unstored == {"not sealed by who led": 1}
        assert cluster.requests == []


async def test_a_tail_that_is_no_stream_harms_no_other(redis_server: RedisServer) -> None:
    gate = asyncio.Event()
    async with (
        ScriptedUpstream([BEGUN, gate, LAST], WHOLE) as cluster,
        edges(redis_server.url, cluster.url, cluster.url) as made,
        made.asking(0) as leads,
        made.asking(1) as follows,
    ):
        assert await first_of(follows, len(FIRST)) == FIRST
        other = made.asked("Something else")
        with_tail("SET", "x")(redis_server, other)
        heard = asyncio.create_task(made.heard(1, "Something else"))
        await made.following(1, 2)
        gate.set()
        assert await follows.read() == REST
        assert await leads.read() == WAV
        redis_server.call("DEL", lease(other))
        assert await heard == WAV
        assert made.results(1) == {"followed": 1, "taken_over": 1}


async def test_calls_that_nobody_could_have_meant_change_nothing(redis_server: RedisServer) -> None:
    async with ScriptedUpstream(WHOLE) as cluster, edges(redis_server.url, cluster.url) as made:
        (mailbox,) = await mailboxes(made, redis_server)
        for call in (b"junk", b"", b"0" * 64, b"%b %b 9" % (b"a" * 64, TOKEN.encode()), b"\xff" * 100_000):
            redis_server.call("XADD", mailbox, "*", "e", call)
        redis_server.call("XADD", mailbox, "*", "a", "b")
        assert await made.heard(0) == WAV
        assert made.results(0) == {"taken": 1}


async def mailboxes(made: Edges, redis: RedisServer) -> list[bytes]:
    """Where the edges read; each has woken itself once."""
    found: list[bytes] = []
    for node in made.nodes:
        assert node._redis is not None
        assert node._redis.leases is not None
        node._redis.leases._wake()
    async with asyncio.timeout(10):
        while len(found) < len(made.nodes):
            found = list(redis.call("KEYS", "tts:calls:*"))
            await asyncio.sleep(0.01)
    return found


@pytest.mark.parametrize(
    "refusal", [b"-NOPERM no\r\n", b"-ERR unknown command\r\n", b"-OOM no\r\n"], ids=["forbidden", "unknown", "full"]
)
async def test_rule_6_a_redis_that_has_no_leases_is_a_tier_all_the_same(refusal: bytes) -> None:
    async def answer(command: list[bytes]) -> bytes:
        match command[0]:
            case b"GET":
                return b"$-1\r\n"
            case b"EVAL":
                return refusal
            case b"XREAD":
                await asyncio.sleep(60)
                return b"*-1\r\n"
            case _:
                return b"+OK\r\n"

    async with (
        ScriptedUpstream(WHOLE) as cluster,
        ScriptedRedis(answer) as peer,
        edges(peer.url, cluster.url, breaker_failures=1) as made,
    ):
        for number in range(3):
            assert await made.heard(0, f"Text {number}") == WAV
        assert made.results(0) == {"unavailable": 3}
        tier = made.nodes[0]._redis
        assert tier is not None
        assert (tier.state.value, tier.counters.faults) == ("closed", 0)
