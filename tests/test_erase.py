"""What is purged goes out of Redis too, when an operator asks for just that; and nothing else does."""

import json
from typing import Any

import pytest

from edgecache.cache.key import Naming
from edgecache.store.searching import Searching
from edgecache.store.tiers import RedisAccess
from tests.houses import House, house
from tests.redis_houses import redis_alone, said, written
from tests.redis_server import RedisServer
from tests.test_purge import AVA, BEN, is_hit, purged
from tests.test_purge_command import ran

pytestmark = [pytest.mark.net, pytest.mark.redis]


async def erased(home: House, due: int = 200, **asked: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{home.node.admin_port}/purge/erase"
    async with home.client.post(url, json=asked) as answer:
        told: dict[str, Any] = await answer.json()
        assert answer.status == due, told
    return told


def keys(redis: RedisServer) -> set[str]:
    return {each.decode() for each in redis.call("KEYS", "tts:*") if len(each) == len("tts:") + 64}


async def test_what_is_gone_is_erased_and_what_is_stale_or_was_not_meant_stays(redis_server: RedisServer) -> None:
    async with house(cache=redis_alone(redis_server.url)) as home:
        gone = (await said(home, "Gone", **AVA)).headers["Content-Location"].rpartition("/")[2]
        await said(home, "Stale", **BEN)
        await said(home, "Meant by nobody", voice_id="default", language="fr")
        await written(home.node)
        await purged(home.node, voice="tone")
        await purged(home.node, language="en", soft=True)
        redis_server.call("SET", f"tts:{'0' * 64}", "none of ours")
        before = keys(redis_server)
        assert f"tts:{gone}" in before, "a purge by voice looks for nothing"

        assert await erased(home) == {"erased": 1, "looked_at": 3, "cursor": "0", "redis_fault": ""}
        assert before - keys(redis_server) == {f"tts:{gone}"}
        assert (await erased(home))["erased"] == 0
        assert is_hit(await said(home, "Meant by nobody", voice_id="default", language="fr"))
        await said(home, "Gone", **AVA)
        await written(home.node)
        assert (await erased(home))["erased"] == 0, "what was made since is not purged"


async def test_it_goes_on_where_it_ended(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look of no time at all is one step: some hundred keys."""
    monkeypatch.setattr("edgecache.purging.SEARCH_S", 0.0)
    monkeypatch.setattr("edgecache.ops.purge.SEARCH_S", -1.0)
    async with house(cache=redis_alone(redis_server.url)) as home:
        await said(home, "Gone", **AVA)
        await written(home.node)
        for number in range(1000):
            redis_server.call("SET", f"tts:other:{number}", "x")
        await purged(home.node, all=True)
        told = [await erased(home)]
        while told[-1]["cursor"] != "0":
            told.append(await erased(home, cursor=told[-1]["cursor"]))
    assert len(told) > 2
    assert sum(each["erased"] for each in told) == 1


async def test_what_was_written_since_it_was_looked_at_stays(redis_server: RedisServer) -> None:
    async with house(cache=redis_alone(redis_server.url)) as home:
        await said(home, "Hello")
        await written(home.node)
    (where,) = keys(redis_server)
    searching = Searching(redis_server.url, RedisAccess(), Naming())

    def written_anew(_: object) -> bool:
        redis_server.call("APPEND", where, "")
        redis_server.call("SETRANGE", where, 100, "another")
        return True

    assert (await searching.some("0", written_anew, 1.0, erase=True)).found == 0
    assert keys(redis_server) == {where}
    assert (await searching.some("0", lambda _: True, 1.0, erase=True)).found == 1
    assert keys(redis_server) == set()
    await searching.close()


@pytest.mark.parametrize("asked", [{"cursor": 0}, {"cursor": "x"}, {"voice": "a"}], ids=["number", "word", "voice"])
async def test_what_is_no_cursor_is_said_to_be_none(asked: dict[str, Any]) -> None:
    async with house() as home:
        assert (await erased(home, 400, **asked))["error"]["code"] == "not_a_cursor"


async def test_the_command_purges_and_erases_or_erases_what_was_purged_before(redis_server: RedisServer) -> None:
    async with house(cache=redis_alone(redis_server.url)) as home:
        for said_as in (AVA, BEN):
            await said(home, "Hello", **said_as)
        await written(home.node)
        code, told, _ = await ran(home, "--voice", "tone", "--erase")
        assert (code, told.splitlines()[-1]) == (0, "1 recording erased out of Redis, of 2 looked at")
        await ran(home, "--language", "en")
        code, told, _ = await ran(home, "--erase", "--json")
        assert (code, json.loads(told)) == (0, {"erased": {"recordings": 1, "looked_at": 1, "redis_fault": ""}})
        code, _, talked = await ran(home, "--voice", "tone", "--soft", "--erase")
        assert (code, "--soft" in talked) == (2, True)
        redis_server.kill()
        code, _, talked = await ran(home, "--erase")
        assert (code, "once more" in talked) == (4, True)


async def test_without_redis_there_is_nothing_to_erase() -> None:
    async with house() as home:
        assert (await ran(home, "--erase"))[:2] == (0, "Redis is off: there is nothing to erase\n")
