"""`edgecache purge`, asked of a real edge: what people read, what scripts read, and exit codes."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE

import pytest

from edgecache.commands.purging import Asked
from edgecache.commands.terminal import Misused
from tests.houses import House, house, with_redis
from tests.redis_houses import said, written
from tests.redis_server import RedisServer

pytestmark = pytest.mark.net
HANG_S = 60.0


async def ran(here: House, *arguments: str) -> tuple[int | None, str, str]:
    """The command as a process, with the edge on this loop: its exit code, and what it says where."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgecache", "purge", *arguments),
        *("--admin", f"http://127.0.0.1:{here.node.admin_port}"),
        stdout=PIPE,
        stderr=PIPE,
    )
    async with asyncio.timeout(HANG_S):
        told, talked = await process.communicate()
    return process.returncode, told.decode(), talked.decode()


async def test_purging_by_text_after_a_look() -> None:
    async with house() as here:
        await said(here, "Hello", speaking_rate=1.5)
        asked = ("--text", "Hello", "--field", "speaking_rate=1.5")
        code, told, _ = await ran(here, *asked, "--dry-run")
        assert (code, told.splitlines()[0].partition(":")[0]) == (0, "1 recording in memory would be purged")
        assert told.splitlines()[1] == "Redis is off"
        assert "; hit;" in (await said(here, "Hello", speaking_rate=1.5)).cache
        code, told, talked = await ran(here, *asked)
        assert (code, talked) == (0, "")
        assert told.splitlines()[1] == "1 worker reached, Redis off"
        assert "; hit;" not in (await said(here, "Hello", speaking_rate=1.5)).cache
        code, told, _ = await ran(here, "--tag", "a", "--tag", "b", "--soft", "--json")
        assert code == 0
        assert [(each["value"], each["kind"]) for each in json.loads(told)["purges"]] == [("a", "soft"), ("b", "soft")]


async def test_everything_is_purged_only_if_that_is_meant() -> None:
    async with house() as here:
        await said(here, "Hello")
        code, told, talked = await ran(here, "--all")
        assert (code, told, "--yes" in talked) == (2, "", True)
        assert "; hit;" in (await said(here, "Hello")).cache
        code, told, _ = await ran(here, "--all", "--yes")
        assert (code, told.partition(":")[0]) == (0, "1 recording in memory purged")


@pytest.mark.redis
async def test_what_is_not_done_everywhere_is_done_in_part(redis_server: RedisServer) -> None:
    async with house(cache=with_redis(redis_server.url)) as here:
        await said(here, "Hello")
        await written(here.node)
        _, told, _ = await ran(here, "--language", "en", "--dry-run")
        assert told.splitlines()[1].startswith("Redis is not searched")
        _, told, _ = await ran(here, "--language", "en", "--dry-run", "--count-redis")
        assert told.splitlines()[1] == "1 recording in Redis"
        code, told, _ = await ran(here, "--language", "en")
        assert (code, told.splitlines()[1]) == (0, "1 worker reached, Redis told")
        redis_server.kill()
        code, told, talked = await ran(here, "--language", "en")
        assert (code, told.splitlines()[1]) == (4, "1 worker reached, Redis not told")
        assert "Redis was not told" in talked


@pytest.mark.parametrize(
    "asked",
    [
        Asked(),
        Asked(voice="ava", language="en"),
        Asked(text="Hello", tag=("a",)),
        Asked(text="Hello", everything=True),
        Asked(voice="ava", fields=("speaking_rate=1",)),
        Asked(key=("a",), tag=("b",)),
    ],
)
def test_what_is_no_purge_is_said_to_be_none(asked: Asked) -> None:
    with pytest.raises(Misused):
        _ = asked.scope
