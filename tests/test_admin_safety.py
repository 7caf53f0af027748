"""The admin listener towards strangers: it refuses to be open to all, says what helps, and our commands bring its token."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.daemon import HANG_S, Daemon, config, daemons
from tests.houses import cluster

pytestmark = pytest.mark.net

TOKEN = "a-token-of-tests"
EVERYWHERE = {"host": "0.0.0.0", "port": 0}


@asynccontextmanager
async def guarded() -> AsyncIterator[tuple[Daemon, Path]]:
    """A daemon whose admin listener is open to all who have the token in this file."""
    async with cluster() as origin, daemons() as start:
        token = start.directory / "admin-token.txt"
        token.write_text(TOKEN + "\n")
        yield await start.serve(config(origin.url, admin={**EVERYWHERE, "token_file": str(token)})), token


async def ran(daemon: Daemon, *arguments: str, **environ: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgecache", *arguments, "--admin", f"http://127.0.0.1:{daemon.admin_port}"),
        stdout=PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **environ},
    )
    async with asyncio.timeout(HANG_S):
        said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_open_to_all_without_a_token_it_does_not_start_and_says_what_helps() -> None:
    async with daemons() as start:
        daemon = await start.begin(config("http://127.0.0.1:9", admin=EVERYWHERE))
        assert await daemon.ended() == 2
    assert "0.0.0.0" in daemon.output
    assert "the admin listener asks for no token" in daemon.output
    assert "openssl rand -hex 32 > admin-token.txt" in daemon.output
    assert "Traceback" not in daemon.output


@pytest.mark.parametrize(
    "command", [("clusters",), ("slo",), ("workers",), ("top", "--once")], ids=lambda each: each[0]
)
async def test_commands_bring_the_token_of_a_file_or_of_the_environment(command: tuple[str, ...]) -> None:
    async with guarded() as (daemon, token):
        bare = await ran(daemon, *command)
        with_file = await ran(daemon, *command, "--admin-token-file", str(token))
        with_variable = await ran(daemon, *command, EDGECACHE_ADMIN_TOKEN=TOKEN)
        token.with_name("wrong.txt").write_text("another")
        wrong = await ran(daemon, *command, "--admin-token-file", str(token.with_name("wrong.txt")))

    assert bare[0] == wrong[0] == 1
    assert "see --admin-token-file" in bare[1]
    assert (with_file[0], with_variable[0]) == (0, 0), with_file[1] + with_variable[1]
    assert TOKEN not in bare[1] + with_file[1] + wrong[1]


async def test_health_is_told_to_anyone_and_nothing_else_is() -> None:
    async with guarded() as (daemon, _), aiohttp.ClientSession(f"http://127.0.0.1:{daemon.admin_port}") as stranger:
        told = {}
        for path in ("/livez", "/readyz", "/metrics", "/status", "/slo", "/clusters", "/errors", "/glance"):
            async with stranger.get(path) as answer:
                told[path] = answer.status
        async with stranger.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
            assert answer.status == 200

    assert {path for path, status in told.items() if status != 401} == {"/livez", "/readyz"}
