"""Many askers over one Redis, some of whom leave, and edges that share it: every byte is its asker's own."""

import asyncio
import random
from collections.abc import Callable

import pytest
import uvloop

from edgecache.demo import tone
from tests.houses import House, house, running, settings, with_redis
from tests.redis_houses import SlowWay, mismatches, recorded, redis_alone, said, told
from tests.redis_server import RedisServer, ScriptedRedis, bulk

pytestmark = [pytest.mark.net, pytest.mark.redis]

#: Of different lengths, and so are their recordings.
TEXTS = [f"Number {n}{'!' * n}" for n in range(10)]


@pytest.mark.parametrize("budget_s", [5.0, 0.02], ids=["the client leaves first", "the edge gives up first"])
@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_rule_1_whoever_leaves_while_redis_answers_nobody_hears_anothers_speech(
    redis_server: RedisServer, loop_factory: Callable[[], asyncio.AbstractEventLoop], budget_s: float
) -> None:
    """A client that cancels a command while its reply is on its way gives it to the next asker (CVE-2023-28858)."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_storm(redis_server, budget_s))


async def _storm(server: RedisServer, budget_s: float) -> None:
    chance = random.Random(11)
    eager = {"budget_s": budget_s, "breaker_failures": 10_000, "max_pending_bytes": 0}
    async with (
        SlowWay(server.socket, (0.0, 0.02), chance) as way,
        house(cache=redis_alone(server.url)) as maker,
        house(cache=redis_alone(way.url, **eager)) as home,
    ):
        for text in TEXTS:
            await recorded(maker, text)
        for _ in range(12):
            await asyncio.gather(*(_come_and_go(home, chance) for _ in range(16)))
        counted = told(home.node)
        assert counted["hits"] > 50 if budget_s > 1 else counted["timeouts"] > 20
        assert (counted["broken_records"], counted["faults"], mismatches(home.node)) == (0, 0, 0)
        for text in TEXTS:
            await said(home, text)


async def _come_and_go(home: House, chance: random.Random) -> None:
    """One client: who stays, who leaves before anything is said, or who leaves in the middle."""
    text, leaves = chance.choice(TEXTS), chance.randrange(4)
    if leaves == 0:
        await said(home, text)
    elif leaves == 1:
        await _listen(home, text, chance.randrange(1, 30_000))
    else:
        saying = asyncio.create_task(said(home, text))
        await asyncio.wait([saying], timeout=chance.uniform(0.0, 0.03))
        saying.cancel()
        for outcome in await asyncio.gather(saying, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


async def _listen(home: House, text: str, size: int) -> None:
    """Hears so many bytes and hangs up."""
    async with home.client.post(f"{home.url}/v1/tts", json={"text": text}) as answer:
        assert answer.status == 200
        heard = b""
        while len(heard) < size and (chunk := await answer.content.readany()):
            heard += chunk
        answer.close()
    assert tone.owner_mismatch(heard, {"text": text}, whole=False) is None


async def test_rule_1_a_redis_that_gives_the_answer_to_the_question_before_is_not_believed() -> None:
    """What the storm looks for, brought about: every reply belongs to another question."""
    kept: dict[bytes, bytes] = {}
    before = b"$-1\r\n"

    async def answer(command: list[bytes]) -> bytes:
        nonlocal before
        if command[0] != b"GET":
            kept[command[1]] = command[2]
            return b"+OK\r\n"
        before, late = bulk(kept[command[1]]) if command[1] in kept else b"$-1\r\n", before
        return late

    async with ScriptedRedis(answer) as way, house(cache=redis_alone(way.url)) as home:
        for text in TEXTS[:3]:
            await recorded(home, text)
        for turn in range(12):
            await said(home, TEXTS[turn % 3])
        assert mismatches(home.node) >= 11
        assert home.origin.counters.syntheses >= 11


@pytest.mark.parametrize("memory_bytes", [0, 300_000, 64 << 20], ids=["no memory", "little memory", "memory"])
async def test_rule_1_two_edges_on_one_redis_each_say_what_they_were_asked(
    redis_server: RedisServer, memory_bytes: int
) -> None:
    chance = random.Random(memory_bytes)
    cache = with_redis(redis_server.url, memory_bytes=memory_bytes, budget_s=15.0)
    async with house(cache=cache) as home, running(settings(home.origin.url, cache=cache)) as node:
        edges = [home, House(home.origin, node, home.client)]
        for _ in range(10):
            await asyncio.gather(*(said(chance.choice(edges), chance.choice(TEXTS)) for _ in range(20)))
        assert home.origin.counters.syntheses <= len(TEXTS) * len(edges)
        for edge in edges:
            assert told(edge.node)["hits"] > 0
            assert (told(edge.node)["broken_records"], mismatches(edge.node)) == (0, 0)
