"""A whole edge over a Redis that is away, hangs, is full, refuses or says odd things: every answer is right, and soon."""

import asyncio
import contextlib
import random
from collections.abc import Mapping
from typing import Any

import pytest
import redis

from edgecache.cache.key import KEY_HEX_DIGITS
from edgecache.store.tiers import RedisAccess
from tests.houses import House, house, running, settings, with_redis
from tests.redis_houses import (
    SlowWay,
    hit,
    mismatches,
    missed,
    recorded,
    redis_alone,
    said,
    told,
    until_hit,
    where,
    written,
)
from tests.redis_server import RedisServer, ScriptedRedis, bulk
from tests.redis_tier import HANG_S

pytestmark = [pytest.mark.net, pytest.mark.redis]

DEFAULTS = RedisAccess()


async def not_recorded(home: House) -> None:
    """What never goes forward finds nothing, and soon."""
    async with asyncio.timeout(HANG_S):
        for method, path, status in [
            ("GET", "/v1/audio/" + "a" * KEY_HEX_DIGITS, 404),
            ("HEAD", "/v1/tts?text=Never+said", 200),
            ("GET", "/readyz", 200),
        ]:
            async with home.client.request(method, home.url + path) as answer:
                assert answer.status == status
                assert "; hit;" not in answer.headers.get("Cache-Status", "")


# A healthy Redis.


async def test_what_one_edge_has_made_another_one_has_too(redis_server: RedisServer) -> None:
    cache = with_redis(redis_server.url)
    async with house(cache=cache) as home:
        made = await missed(home, "Made once")
        await written(home.node)
        async with running(settings(home.origin.url, cache=cache)) as node:
            other = House(home.origin, node, home.client)
            first = await hit(other, "Made once", "redis")
            second = await hit(other, "Made once", "memory")
        assert made.body == first.body == second.body
        for name in ("ETag", "Content-Location", "Content-Type"):
            assert first.headers[name] == second.headers[name]
        assert first.headers["Content-Location"] == made.headers["Content-Location"]
        assert "cache;desc=redis" in first.headers["Server-Timing"]
        assert home.origin.counters.syntheses == 1


async def test_redis_alone_is_a_cache_too(redis_server: RedisServer) -> None:
    async with house(cache=redis_alone(redis_server.url)) as home:
        key = await recorded(home, "No memory")
        for _ in range(3):
            await hit(home, "No memory")
        for method, path in [("GET", f"/v1/audio/{key}"), ("HEAD", "/v1/tts?text=No+memory")]:
            async with home.client.request(method, home.url + path) as answer:
                assert (answer.status, answer.headers["Content-Location"]) == (200, f"/v1/audio/{key}")
                assert answer.headers["Cache-Status"].endswith("detail=redis")
        assert told(home.node)["hits"] == 5
        assert home.origin.counters.syntheses == 1


@pytest.mark.parametrize(
    "command", [("DEL",), ("PEXPIRE", "0"), ("UNLINK",), ("FLUSHALL",)], ids=["DEL", "expired", "UNLINK", "FLUSHALL"]
)
async def test_what_redis_has_lost_is_made_again(redis_server: RedisServer, command: tuple[str, ...]) -> None:
    async with house(cache=redis_alone(redis_server.url)) as home:
        key = await recorded(home, "Lost")
        redis_server.call(command[0], *([where(key)] if command[0] != "FLUSHALL" else []), *command[1:])
        await recorded(home, "Lost")
        await hit(home, "Lost")


async def test_a_redis_that_evicts_all_the_time_is_no_fault(redis_server: RedisServer) -> None:
    redis_server.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    redis_server.call("CONFIG", "SET", "maxmemory", redis_server.call("INFO")["used_memory"] + 250_000)
    async with house(cache=redis_alone(redis_server.url)) as home:
        for turn in range(40):
            await said(home, f"Evicted {turn % 20}")
            await written(home.node)
        assert redis_server.call("INFO")["evicted_keys"] > 0
        assert told(home.node)["broken_records"] == 0
        assert told(home.node)["state"] == "closed"


# A Redis that is away, or comes and goes.


async def test_rule_6_down_at_start_and_there_later(redis_server: RedisServer) -> None:
    redis_server.kill()
    async with house(cache=with_redis(redis_server.url, breaker_open_s=0.05)) as home:
        for turn in range(DEFAULTS.breaker_failures + 3):
            await missed(home, f"Without Redis {turn}")
        await hit(home, "Without Redis 0", "memory")
        await not_recorded(home)
        assert told(home.node)["faults"] >= DEFAULTS.breaker_failures
        assert told(home.node)["state"] == "open"
        redis_server.start()
        async with running(settings(home.origin.url, cache=redis_alone(redis_server.url))) as node:
            await until_hit(House(home.origin, node, home.client), "Without Redis 0")
        async with asyncio.timeout(HANG_S):
            while told(home.node)["state"] != "closed":
                await missed(home, f"With Redis {home.origin.counters.requests}")
                await written(home.node)


async def test_rule_6_killed_under_load_and_started_again(redis_server: RedisServer) -> None:
    chance = random.Random(3)
    texts = [f"Killed under load {n}" for n in range(16)]
    async with house(cache=redis_alone(redis_server.url)) as home:
        for text in texts:
            await recorded(home, text)
        asked = 0

        async def listen() -> None:
            nonlocal asked
            for _ in range(25):
                await said(home, chance.choice(texts))
                asked += 1

        async with asyncio.timeout(30), asyncio.TaskGroup() as load:
            for _ in range(8):
                load.create_task(listen())
            while asked < 60:
                await asyncio.sleep(0)
            redis_server.kill()
        assert asked == 200
        assert told(home.node)["hits"] >= 10
        assert told(home.node)["faults"] > 0
        assert mismatches(home.node) == 0
        redis_server.start()
        for text in texts:
            await until_hit(home, text)
        assert told(home.node)["state"] == "closed"


async def test_rule_6_a_hung_redis_costs_the_budget_and_then_nothing(redis_server: RedisServer) -> None:
    """With redis-py as it comes, each of these would take 4.8 s."""
    async with house(cache=with_redis(redis_server.url, memory_bytes=0, budget_s=DEFAULTS.budget_s)) as home:
        await recorded(home, "Before")
        redis_server.stop()
        try:
            for turn in range(20):
                await missed(home, f"Hung {turn}")
            await not_recorded(home)
            counted = told(home.node)
            assert counted["timeouts"] >= DEFAULTS.breaker_failures
            assert counted["skipped"] > 0
            assert counted["state"] == "open"
            assert counted["faults"] == 0
        finally:
            redis_server.go_on()
        await until_hit(home, "Before")
        assert told(home.node)["state"] == "closed"


async def test_rule_6_a_hung_redis_takes_nothing_from_memory_nor_from_those_who_join(redis_server: RedisServer) -> None:
    # All thirty have to ask before the first is told that its time is over.
    async with house(cache=with_redis(redis_server.url, budget_s=4.0), knobs={"rtf": 0.05}) as home:
        await missed(home, "Remembered")
        await written(home.node)
        before = told(home.node)["timeouts"]
        redis_server.stop()
        try:
            crowd = await asyncio.gather(*(said(home, "All at once") for _ in range(30)))
            assert home.origin.counters.syntheses == 2
            assert len({heard.body for heard in crowd}) == 1
            await hit(home, "Remembered", "memory")
            assert told(home.node)["timeouts"] == before + 1
        finally:
            redis_server.go_on()


async def test_rule_6_a_redis_that_pauses_is_waited_for_no_longer_than_the_budget(redis_server: RedisServer) -> None:
    access = {"budget_s": DEFAULTS.budget_s, "breaker_open_s": 0.05}
    async with house(cache=with_redis(redis_server.url, memory_bytes=0, **access)) as home:
        await recorded(home, "Paused")
        redis_server.call("CLIENT", "PAUSE", "500", "ALL")
        for turn in range(DEFAULTS.breaker_failures):
            await missed(home, f"Paused {turn}")
        assert told(home.node)["timeouts"] >= DEFAULTS.breaker_failures
        await until_hit(home, "Paused")


async def test_rule_6_a_redis_slower_than_the_budget_is_left_alone(redis_server: RedisServer) -> None:
    async with (
        SlowWay(redis_server.socket, (0.04, 0.06), random.Random(5)) as way,
        house(cache=with_redis(way.url, memory_bytes=0, budget_s=DEFAULTS.budget_s, breaker_open_s=30.0)) as home,
    ):
        for turn in range(7):
            await missed(home, f"Slow {turn}")
        assert told(home.node)["timeouts"] == DEFAULTS.breaker_failures
        assert told(home.node)["skipped"] == 7 - DEFAULTS.breaker_failures
        await written(home.node)  # writes are behind: nobody waits for them, so they may be slow
        assert redis_server.call("DBSIZE") == 7


async def test_idle_connections_that_were_killed_are_not_noticed(redis_server: RedisServer) -> None:
    async with house(cache=redis_alone(redis_server.url)) as home:
        await recorded(home, "Killed while idle")
        for turn in range(5):
            await asyncio.gather(*(hit(home, "Killed while idle") for _ in range(4)))
            redis_server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await hit(home, "Killed while idle")
            redis_server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await recorded(home, f"Written after a kill {turn}")
        assert told(home.node)["faults"] == told(home.node)["failed_writes"] == 0


async def test_rule_6_no_room_for_another_client(redis_server: RedisServer) -> None:
    with contextlib.closing(
        redis.Redis(unix_socket_path=str(redis_server.socket), single_connection_client=True)
    ) as holder:
        holder.config_set("maxclients", 1)
        async with house(cache=redis_alone(redis_server.url)) as home:
            for turn in range(8):
                await missed(home, f"No room {turn}")
            await not_recorded(home)
            assert told(home.node)["faults"] >= DEFAULTS.breaker_failures
            holder.config_set("maxclients", 100)
            await until_hit(home, "No room 0")


# A Redis that refuses.

#: What to do to it, how it then answers a write, and how to mend it.
TAKES_NO_WRITES: list[tuple[str, list[str], str, list[str]]] = [
    ("full", ["CONFIG SET maxmemory 1mb"], "OOM", ["CONFIG SET maxmemory 0"]),
    ("replica", ["REPLICAOF 127.0.0.1 1"], "READONLY", ["REPLICAOF NO ONE"]),
    ("no replicas", ["CONFIG SET min-replicas-to-write 1"], "NOREPLICAS", ["CONFIG SET min-replicas-to-write 0"]),
    ("not allowed", ["ACL SETUSER default -set"], "NOPERM", ["ACL SETUSER default +set"]),
]


@pytest.mark.parametrize(
    ("spoil", "code", "mend"), [row[1:] for row in TAKES_NO_WRITES], ids=[row[0] for row in TAKES_NO_WRITES]
)
async def test_rule_6_a_redis_that_takes_no_writes_is_read_from_all_the_same(
    redis_server: RedisServer, spoil: list[str], code: str, mend: list[str]
) -> None:
    async with house(cache=redis_alone(redis_server.url)) as home:
        await recorded(home, "Before")
        order(redis_server, spoil)
        for turn in range(6):
            await said(home, f"Meanwhile {turn}")
            await hit(home, "Before")
        await written(home.node)
        counted = told(home.node)
        assert counted["last_write_failure"] == f"Redis answered {code}"
        assert (counted["failed_writes"], counted["pending_bytes"], counted["state"]) == (6, 0, "closed")
        await missed(home, "Meanwhile 0")
        order(redis_server, mend)
        await written(home.node)
        await until_hit(home, "Afterwards")


TAKES_NO_READS: list[tuple[str, list[str], list[str]]] = [
    (
        "replica without its master",
        ["CONFIG SET replica-serve-stale-data no", "REPLICAOF 127.0.0.1 1"],
        ["REPLICAOF NO ONE"],
    ),
    ("not allowed", ["ACL SETUSER default -get"], ["ACL SETUSER default +get"]),
    ("another's keys", ["ACL SETUSER default resetkeys ~other:*"], ["ACL SETUSER default allkeys"]),
]


@pytest.mark.parametrize(("spoil", "mend"), [row[1:] for row in TAKES_NO_READS], ids=[row[0] for row in TAKES_NO_READS])
async def test_rule_6_a_redis_that_takes_no_reads_is_left_alone(
    redis_server: RedisServer, spoil: list[str], mend: list[str]
) -> None:
    async with house(cache=redis_alone(redis_server.url)) as home:
        await recorded(home, "Before")
        order(redis_server, spoil)
        for turn in range(DEFAULTS.breaker_failures):
            await missed(home, f"Meanwhile {turn}")
        assert told(home.node)["faults"] == DEFAULTS.breaker_failures
        await not_recorded(home)
        order(redis_server, mend)
        await until_hit(home, "Before")


def order(server: RedisServer, commands: list[str]) -> None:
    for command in commands:
        server.call(*command.split())


# A Redis that says odd things.

ODD: list[tuple[str, bytes | None]] = [
    ("loading", b"-LOADING Redis is loading the dataset in memory\r\n"),
    ("busy", b"-BUSY Redis is busy running a script\r\n"),
    ("master down", b"-MASTERDOWN Link with MASTER is down\r\n"),
    ("cluster down", b"-CLUSTERDOWN The cluster is down\r\n"),
    ("moved", b"-MOVED 3999 127.0.0.1:6381\r\n"),
    ("moved nowhere", b"-MOVED\r\n"),
    ("ask whom", b"-ASK 1\r\n"),
    ("an error in a list", b"*1\r\n-MOVED x\r\n"),
    ("an error without a word", b"-\r\n"),
    ("an endless error", b"-" + b"x" * 70_000 + b"\r\n"),
    ("no text", b"-\xff\xfe\r\n"),
    ("a number", b":1\r\n"),
    ("a word", b"+OK\r\n"),
    ("a list", b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
    ("a map with a list for a key", b"%1\r\n*1\r\n+a\r\n+b\r\n"),
    ("an empty notice", b">0\r\n"),
    ("a thousand notices", b">1\r\n+a\r\n" * 2000),
    ("lists in lists", b"*1\r\n" * 20),
    ("a length below zero", b"$-5\r\n"),
    ("a length beyond all", b"$99999999999999999999\r\n"),
    ("never ends", b"$100000\r\nabc"),
    ("silence", b""),
    ("HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    ("noise", b"\x00\xff\x00\xff"),
    ("closes", None),
]


@pytest.mark.parametrize("odd", [row[1] for row in ODD], ids=[row[0] for row in ODD])
async def test_rule_6_an_odd_reply_is_a_miss_and_is_got_over(odd: bytes | None) -> None:
    await got_over(odd, budget_s=0.03, write_timeout_s=0.05)


@pytest.mark.parametrize("odd", [b"-MOVED\r\n", b"%1\r\n*1\r\n+a\r\n+b\r\n", b"-WRONGPASS \r\n"], ids=repr)
async def test_rule_6_an_odd_reply_to_the_password_is_got_over(odd: bytes) -> None:
    counted = await got_over(odd, password="swordfish")
    assert counted["faults"] >= DEFAULTS.breaker_failures
    assert counted["timeouts"] == 0


async def got_over(odd: bytes | None, **access: Any) -> Mapping[str, Any]:
    """All is well with an odd Redis, and again with a sane one. What was counted in between."""
    peer = _Peer(odd)
    async with ScriptedRedis(peer.answer) as way:
        cache = redis_alone(way.url, **access)
        async with house(cache=cache) as home:
            for turn in range(DEFAULTS.breaker_failures + 2):
                await said(home, f"Odd {turn % 3}")
            await not_recorded(home)
            counted = told(home.node)
            assert (counted["hits"], mismatches(home.node)) == (0, 0)
            assert len(counted["last_write_failure"]) < 120
            peer.odd = False
            await until_hit(home, "Odd 0")
            assert told(home.node)["state"] == "closed"
            return counted


class _Peer:
    """Says one odd thing to every command; later it is as Redis is."""

    def __init__(self, reply: bytes | None) -> None:
        self.odd = True
        self._reply = reply
        self._kept: dict[bytes, bytes] = {}

    async def answer(self, command: list[bytes]) -> bytes | None:
        if self.odd:
            return self._reply
        match command:
            case [b"AUTH", *_]:
                return b"+OK\r\n"
            case [b"SET", key, value, *_]:
                self._kept[key] = value
                return b"+OK\r\n"
            case [b"DEL", key]:
                return b":%d\r\n" % (self._kept.pop(key, None) is not None)
            case [_, key]:
                return bulk(self._kept[key]) if key in self._kept else b"$-1\r\n"
        return b"-ERR unknown command\r\n"
