"""Several edges on one Redis that are asked for the same at once: one synthesizes, and the others hear it as it comes."""

import asyncio
from typing import Any

import aiohttp
import pytest

from edgecache.cache.key import Key
from edgecache.store.lease import resolved
from edgecache.store.scripts import TAKE, script
from edgecache.store.tiers import RedisAccess
from tests.daemon import eventually
from tests.lease_houses import BEGUN, FIRST, LAST, REST, WAV, edges, first_of, pair
from tests.redis_houses import written
from tests.redis_server import RedisServer, ScriptedRedis
from tests.redis_tier import tier
from tests.scripted_upstream import FIN, HOLD, RST, Script, ScriptedUpstream, closed_port, head, whole

pytestmark = [pytest.mark.net, pytest.mark.redis]

WHOLE: Script = [whole(WAV)]
#: Nothing is heard at all.
FAILS: Script = [head("500 Internal Server Error", "Content-Length: 0")]


async def test_who_follows_hears_the_first_bytes_before_the_cluster_has_said_the_last(
    redis_server: RedisServer,
) -> None:
    gate = asyncio.Event()
    async with pair(redis_server.url, [BEGUN, gate, LAST]) as (made, cluster):
        async with made.asking(0) as leads, made.asking(1) as follows:
            for answer in (leads, follows):
                assert await first_of(answer, len(FIRST)) == FIRST
            assert "; collapsed; stored; " in follows.headers["Cache-Status"]
            assert follows.headers["Cache-Status"].endswith("detail=followed/c0")
            assert "collapsed" not in leads.headers["Cache-Status"]
            gate.set()
            for answer in (leads, follows):
                assert await answer.read() == REST
        await made.let_go(0)
        assert len(cluster.requests) == 1
        assert [made.results(0), made.results(1)] == [{"taken": 1}, {"followed": 1}]
        # Who followed keeps it in memory and writes nothing to Redis, where it is already.
        assert made.nodes[1].status()["tiers"]["memory"]["recordings"] == 1  # type: ignore[index]
        async with made.asking(1) as again:
            assert (await again.read(), again.headers["Cache-Status"].partition("detail=")[2]) == (WAV, "memory")
            etag, age = again.headers["ETag"], again.headers["Age"]
        async with made.asking(0) as again:
            assert (await again.read(), again.headers["ETag"], again.headers["Age"]) == (WAV, etag, age)
        assert made.nodes[1]._redis is not None
        assert made.nodes[1]._redis.status()["written"] == 0


async def test_one_lease_serves_all_who_ask_at_once_and_later_ones_join_in_their_own_edge(
    redis_server: RedisServer,
) -> None:
    gate = asyncio.Event()
    async with pair(redis_server.url, [BEGUN, gate, LAST]) as (made, cluster):
        asked = [made.soon(n % 2) for n in range(20)]
        await cluster.asked()
        await eventually(lambda: made.leases(0)["following"] + made.leases(1)["following"] == 1)
        asked += [made.soon(n % 2) for n in range(20)]
        gate.set()
        assert await asyncio.gather(*asked) == [WAV] * 40
        assert len(cluster.requests) == 1


async def test_a_tail_is_written_only_if_somebody_follows(redis_server: RedisServer) -> None:
    async with pair(redis_server.url, [BEGUN, LAST]) as (made, _):
        assert await made.heard(0) == WAV
        await made.let_go(0)
        await written(made.nodes[0])
        assert [key for key in redis_server.call("KEYS", "*") if b"calls" not in key] == [f"tts:{made.key}".encode()]


async def test_every_key_of_ours_goes_by_itself(redis_server: RedisServer) -> None:
    gate = asyncio.Event()
    async with pair(redis_server.url, [BEGUN, gate, LAST]) as (made, _), made.asking(0), made.asking(1) as follows:
        await first_of(follows, len(FIRST))
        kinds = {key.split(b":")[1] for key in redis_server.call("KEYS", "*")}
        assert kinds == {b"lease", b"tail", b"calls"}
        assert all(redis_server.call("PTTL", key) > 0 for key in redis_server.call("KEYS", "*"))
        gate.set()
        assert await follows.read() == REST


@pytest.mark.parametrize("directive", ["no-cache", "no-store"])
async def test_what_nobody_may_join_is_nobodys_lease(redis_server: RedisServer, directive: str) -> None:
    gate = asyncio.Event()
    async with pair(redis_server.url, [BEGUN, gate, LAST], WHOLE) as (made, cluster):
        async with made.asking(0, **{"Cache-Control": directive}) as first, made.asking(1) as other:
            assert await other.read() == WAV
            gate.set()
            assert await first.read() == WAV
        assert len(cluster.requests) == 2
        assert made.results(0) == {}


async def test_a_far_edge_with_other_clusters_follows_all_the_same(redis_server: RedisServer) -> None:
    gate = asyncio.Event()
    async with ScriptedUpstream([BEGUN, gate, LAST]) as cluster:
        nowhere = f"http://127.0.0.1:{closed_port()}"
        async with edges(redis_server.url, cluster.url, nowhere) as made:
            heard = [made.soon(0)]
            await cluster.asked()
            heard.append(made.soon(1))
            await made.following(1)
            gate.set()
            assert await asyncio.gather(*heard) == [WAV, WAV]


async def test_what_was_stored_meanwhile_is_not_synthesized_again(redis_server: RedisServer) -> None:
    """The lease is had after the recording was looked for: by then another edge may have stored it."""
    async with pair(redis_server.url, WHOLE) as (made, cluster):
        asked = made.asked()
        tier = made.nodes[1]._redis
        assert tier is not None
        assert await tier.get(asked.key) is None
        assert await made.heard(0) == WAV
        await written(made.nodes[0])
        await made.let_go(0)
        tier.ask_for = lambda _, __: False  # type: ignore[method-assign,assignment]
        async with made.asking(1) as answer:
            assert await answer.read() == WAV
            assert answer.headers["Cache-Status"].endswith("detail=followed/c0")
        assert made.results(1) == {"recorded": 1}
        assert len(cluster.requests) == 1


@pytest.mark.parametrize(
    ("said", "url", "several", "are"),
    [
        pytest.param("auto", None, False, "off", id="one worker, its own Redis"),
        pytest.param("auto", None, True, "on", id="several workers, their own Redis"),
        pytest.param("auto", "redis://region", False, "on", id="one worker, a Redis that others may share"),
        pytest.param("auto", "off", False, "off", id="no Redis"),
        pytest.param("off", "redis://region", True, "off", id="not wanted"),
        pytest.param("on", None, False, "on", id="wanted"),
    ],
)
def test_leases_are_had_where_another_process_may_ask(said: Any, url: str | None, several: bool, are: str) -> None:
    assert resolved(RedisAccess(url=url, lease=said), several_workers=several).lease == are


async def test_without_leases_each_edge_synthesizes_for_itself(redis_server: RedisServer) -> None:
    gate = asyncio.Event()
    async with pair(redis_server.url, [BEGUN, gate, LAST], [BEGUN, gate, LAST], lease="off") as (made, cluster):
        asked = [made.soon(0), made.soon(1)]
        await cluster.asked(2)
        gate.set()
        assert await asyncio.gather(*asked) == [WAV, WAV]
        status: Any = made.nodes[0].status()
        assert (status["fills"]["leases"], status["tiers"]["redis"]["leases"]) == ("off", "off")
        assert redis_server.call("KEYS", "tts:calls:*") == []


# Failures.


async def test_a_failure_gives_the_lease_back_at_once(redis_server: RedisServer) -> None:
    async with pair(redis_server.url, FAILS, WHOLE, lease_ttl_s=60.0) as (made, cluster):
        async with made.asking(0) as answer:
            assert answer.status == 502
        assert await made.heard(0) == WAV
        assert len(cluster.requests) == 2


async def test_who_waits_for_a_lead_that_fails_leads_at_once(redis_server: RedisServer) -> None:
    gate = asyncio.Event()
    async with pair(redis_server.url, [gate, *FAILS], WHOLE, lease_ttl_s=60.0) as (made, cluster):
        async with asyncio.TaskGroup() as both:
            heard = [both.create_task(_status(made, 0))]
            await cluster.asked()
            heard.append(both.create_task(_status(made, 1)))
            await made.following(1)
            gate.set()
        assert [each.result() for each in heard] == [(502, b""), (200, WAV)]
        assert made.results(1) == {"taken_over": 1}


async def _status(made: Any, number: int) -> tuple[int, bytes]:
    async with made.asking(number) as answer:
        body = await answer.read()
        return answer.status, body if answer.status == 200 else b""


@pytest.mark.parametrize("end", [FIN, RST], ids=["closed", "reset"])
async def test_rule_3_a_break_of_the_lead_is_a_break_for_who_follows(redis_server: RedisServer, end: Any) -> None:
    gate = asyncio.Event()
    async with pair(redis_server.url, [BEGUN, gate, end], WHOLE) as (made, cluster):
        async with made.asking(0) as leads, made.asking(1) as follows:
            assert await first_of(follows, len(FIRST)) == FIRST
            gate.set()
            for answer in (leads, follows):
                with pytest.raises(aiohttp.ClientPayloadError):
                    await answer.read()
        assert redis_server.call("EXISTS", f"tts:{made.key}") == 0
        assert await made.heard(1) == WAV
        assert len(cluster.requests) == 2


async def test_rule_6_redis_dies_while_a_tail_is_heard(redis_server: RedisServer) -> None:
    gate = asyncio.Event()
    async with pair(redis_server.url, [BEGUN, gate, LAST], WHOLE, lease_ttl_s=5.0) as (made, _):
        async with made.asking(0) as leads, made.asking(1) as follows:
            assert await first_of(follows, len(FIRST)) == FIRST
            redis_server.kill()
            with pytest.raises(aiohttp.ClientPayloadError):
                await follows.read()
            gate.set()
            assert await leads.read() == WAV
        assert await made.heard(1) == WAV


async def test_redis_is_started_anew_while_a_tail_is_heard_and_nobody_notices(redis_server: RedisServer) -> None:
    gate = asyncio.Event()
    async with pair(redis_server.url, [BEGUN, gate, LAST], lease_ttl_s=30.0) as (made, cluster):
        async with made.asking(0) as leads, made.asking(1) as follows:
            assert await first_of(follows, len(FIRST)) == FIRST
            redis_server.kill()
            gate.set()
            assert await leads.read() == WAV
            redis_server.start()
            assert await follows.read() == REST
        assert len(cluster.requests) == 1


async def test_rule_6_redis_dies_before_anything_is_heard(redis_server: RedisServer) -> None:
    async with pair(redis_server.url, [HOLD], WHOLE) as (made, cluster):
        leads = made.soon(0)
        await cluster.asked()
        follows = made.soon(1)
        await made.following(1)
        redis_server.kill()
        assert await follows == WAV
        assert made.results(1) == {"unavailable": 1}
        leads.cancel()


async def test_redis_is_emptied_while_a_tail_is_heard(redis_server: RedisServer) -> None:
    gate = asyncio.Event()
    async with pair(redis_server.url, [BEGUN, gate, LAST], WHOLE) as (made, cluster):
        async with made.asking(0) as leads, made.asking(1) as follows:
            assert await first_of(follows, len(FIRST)) == FIRST
            redis_server.call("FLUSHALL")
            gate.set()
            assert (await leads.read(), await follows.read()) == (WAV, REST)
        assert len(cluster.requests) == 1
        await made.let_go(0)
        assert all(redis_server.call("PTTL", key) > 0 for key in redis_server.call("KEYS", "*"))


async def test_an_edge_that_stops_breaks_off_for_who_follows_and_gives_its_lease_back(
    redis_server: RedisServer,
) -> None:
    async with pair(redis_server.url, [BEGUN, HOLD], WHOLE, lease_ttl_s=60.0) as (made, _):
        async with made.asking(0), made.asking(1) as follows:
            assert await first_of(follows, len(FIRST)) == FIRST
            await made.nodes[0].close()
            with pytest.raises(aiohttp.ClientPayloadError):
                await follows.read()
        assert await made.heard(1) == WAV


async def test_what_is_purged_is_led_anew_while_the_old_lead_goes_on(redis_server: RedisServer) -> None:
    gate = asyncio.Event()
    async with pair(redis_server.url, [BEGUN, gate, LAST], WHOLE, lease_ttl_s=60.0) as (made, cluster):
        async with made.asking(0) as leads, made.asking(1) as follows:
            assert await first_of(follows, len(FIRST)) == FIRST
            admin = f"http://127.0.0.1:{made.nodes[1].admin_port}"
            async with made.client.post(f"{admin}/purge", json={"all": True}) as purged:
                assert purged.status == 200
            assert await made.heard(1) == WAV  # anew, though a lease was held by what was begun before
            assert len(cluster.requests) == 2
            gate.set()
            assert (await leads.read(), await follows.read()) == (WAV, REST)
        assert await made.heard(0) == WAV
        assert len(cluster.requests) == 2
        assert made.results(1) == {"followed": 1, "taken_over": 1}


async def test_a_lead_that_has_nothing_to_tell_yet_is_waited_for_past_the_lease(redis_server: RedisServer) -> None:
    gate = asyncio.Event()
    async with pair(redis_server.url, [gate, *WHOLE], lease_ttl_s=4.5) as (made, cluster):
        asked = [made.soon(0)]
        await cluster.asked()
        asked.append(made.soon(1))
        await made.following(1)
        (tail,) = await tails(redis_server)
        # That it is called, and five times that it is still there: that is longer than a lease lasts.
        await eventually(lambda: redis_server.call("XLEN", tail) >= 6)
        gate.set()
        assert await asyncio.gather(*asked) == [WAV, WAV]
        assert len(cluster.requests) == 1
        assert made.leases(0)["lost"] == 0


async def tails(redis: RedisServer) -> list[bytes]:
    found: list[bytes] = []

    def there() -> bool:
        found[:] = redis.call("KEYS", "tts:tail:*")
        return bool(found)

    await eventually(there)
    return found


async def test_rule_4_who_leads_is_not_delayed_by_a_redis_that_hangs_nor_is_who_follows_cut_off(
    redis_server: RedisServer,
) -> None:
    gate = asyncio.Event()
    async with pair(redis_server.url, [BEGUN, gate, LAST], lease_ttl_s=60.0) as (made, cluster):
        async with made.asking(0) as leads, made.asking(1) as follows:
            assert await first_of(follows, len(FIRST)) == FIRST
            redis_server.stop()
            gate.set()
            assert await leads.read() == WAV
            redis_server.go_on()
            assert await follows.read() == REST
        assert len(cluster.requests) == 1


async def test_who_leaves_while_a_lease_is_asked_for_leaves_the_connection_as_it_was() -> None:
    """The reply is read in its turn, though nobody waits for it, and the next one's is the next one's."""
    gate, asked = asyncio.Event(), asyncio.Event()

    async def answer(command: list[bytes]) -> bytes:
        if command[0] == b"EVAL":
            asked.set()
            await gate.wait()
        return b"$-1\r\n"

    async with ScriptedRedis(answer) as peer, tier(peer.url, budget_s=10.0) as redis:
        taking = redis.ask(script(TAKE, "lease", b"token", b"1000"))
        assert taking is not None
        await asked.wait()
        taking.cancel()
        found = redis.get(Key("ab" * 32))
        gate.set()
        assert await found is None
        assert (redis.counters.misses, redis.counters.faults, peer.connections) == (1, 0, 1)
