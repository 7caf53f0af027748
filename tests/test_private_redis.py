"""The Redis that the daemon runs itself: private, found again after a kill, never another's."""

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from edgecache.errors import SettingsError
from edgecache.store import private
from edgecache.store.private import PrivateRedis, default_directory
from edgecache.store.tiers import RedisAccess
from tests.redis_tier import until

pytestmark = pytest.mark.redis

#: A daemon as far as its private Redis goes: says what it started, and then only waits to be killed.
DAEMON = """
import asyncio, sys
from pathlib import Path
from edgecache.store.private import PrivateRedis
from edgecache.store.tiers import RedisAccess

async def main():
    server = PrivateRedis(RedisAccess(), Path(sys.argv[1]))
    print(await server.start(), server.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory with a short name, and no server left in it."""
    above = Path(tempfile.mkdtemp(prefix="edgecache-private-"))
    try:
        yield above / "redis"
    finally:
        for pid_file in above.glob("*/redis.pid"):
            left = private._Home(pid_file.parent, -1).recorded_pid()
            if left is not None:
                os.kill(left, signal.SIGKILL)
        shutil.rmtree(above)


def call(url: str, *command: str | int) -> object:
    with redis.Redis.from_url(url, protocol=2, decode_responses=True) as client:
        return client.execute_command(*command)


def killed_daemon(home: Path, mark: str) -> int:
    """The server that a daemon left behind when it was killed; it holds the mark."""
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, str(home)], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    with daemon.stdout as said:
        url, pid = said.readline().split()
    call(url, "SET", "mark", mark)
    daemon.kill()
    daemon.wait()
    return int(pid)


def waiting_process() -> subprocess.Popen[bytes]:
    """A process that has nothing to do with Redis, and ends with its input."""
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


async def gone(pid: int) -> None:
    await asyncio.wait_for(private._ended(pid), 10)


EXPECTED = {
    "port": "0",
    "save": "",
    "appendonly": "no",
    "maxmemory": str(8 << 20),
    "maxmemory-policy": "allkeys-lfu",
}


async def test_a_private_server_holds_nothing_on_disk_and_lets_nobody_in(home: Path) -> None:
    server = PrivateRedis(RedisAccess(private_max_memory_bytes=8 << 20), home)
    url = await server.start()
    assert url == f"unix://{home}/redis.sock"
    pid = server.pid
    assert pid is not None
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "redis.sock").stat().st_mode) == 0o700
    for name, value in EXPECTED.items():
        assert call(url, "CONFIG", "GET", name) == [name, value]
    assert os.getsid(pid) != os.getsid(0)  # a Ctrl-C in our terminal is not for it
    await server.close()
    await gone(pid)
    assert repr(server) == "<PrivateRedis down, 0 restarts>"
    assert sorted(path.name for path in home.iterdir()) == ["lock", "redis.log"]


async def test_two_daemons_do_not_share_one(home: Path) -> None:
    first, second = PrivateRedis(RedisAccess(), home), PrivateRedis(RedisAccess(), home)
    assert await first.start() != await second.start()
    assert (home.parent / "redis-2" / "redis.sock").exists()
    assert first.pid != second.pid
    await first.close()
    third = PrivateRedis(RedisAccess(), home)
    assert await third.start() == f"unix://{home}/redis.sock"
    await third.close()
    await second.close()


async def test_after_a_kill_the_next_start_finds_the_server_with_all_it_holds(home: Path) -> None:
    pid = killed_daemon(home, "warm")
    server = PrivateRedis(RedisAccess(private_max_memory_bytes=9 << 20), home)
    url = await server.start()
    assert url is not None
    assert (server.pid, server.reused) == (pid, True)
    assert call(url, "GET", "mark") == "warm"
    assert call(url, "CONFIG", "GET", "maxmemory") == ["maxmemory", str(9 << 20)]
    await server.close()
    await gone(pid)


async def test_a_server_that_was_left_and_does_not_answer_is_replaced(home: Path) -> None:
    pid = killed_daemon(home, "stuck")
    os.kill(pid, signal.SIGSTOP)
    server = PrivateRedis(RedisAccess(), home)
    url = await server.start()
    assert url is not None
    await gone(pid)
    assert (server.alive, server.reused) == (True, False)
    assert call(url, "GET", "mark") is None
    await server.close()


@pytest.mark.parametrize("written", ["", "not a number", "1", "999999999", "{pid}"])
async def test_a_stale_pid_file_kills_nobody(home: Path, written: str) -> None:
    home.mkdir(mode=0o700)
    bystander = waiting_process()
    (home / "redis.pid").write_text(written.format(pid=bystander.pid))
    (home / "redis.sock").write_text("not even a socket")
    server = PrivateRedis(RedisAccess(), home)
    assert await server.start() is not None
    assert bystander.poll() is None
    await server.close()
    bystander.communicate(b"\n")


async def test_a_server_that_dies_is_started_again(home: Path) -> None:
    server = PrivateRedis(RedisAccess(), home)
    url = await server.start()
    assert url is not None
    first = server.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: server.restarts == 1 and server.alive)
    assert server.pid != first
    assert call(url, "PING") is True
    await server.close()


async def test_a_server_that_was_found_and_dies_is_started_again(home: Path) -> None:
    pid = killed_daemon(home, "warm")
    server = PrivateRedis(RedisAccess(), home)
    await server.start()
    os.kill(pid, signal.SIGKILL)
    await until(lambda: server.restarts == 1 and server.alive)
    await server.close()


async def test_close_while_the_server_is_down_leaves_nothing(home: Path) -> None:
    server = PrivateRedis(RedisAccess(), home)
    await server.start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: not server.alive)
    assert "signal 9" in server.fault
    await server.close()
    await server.close()
    assert not (home / "redis.pid").exists()


async def test_none_where_none_is_installed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    server = PrivateRedis(RedisAccess(), home)
    assert await server.start() is None
    assert server.fault == "neither redis-server nor valkey-server is installed"
    assert not home.exists()
    await server.close()


async def test_a_program_that_does_not_start_is_no_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = home.parent / "bin"
    programs.mkdir()
    program = programs / "redis-server"
    program.write_text("#!/bin/sh\necho 'no such luck'\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    server = PrivateRedis(RedisAccess(), home)
    assert await server.start() is None
    assert server.fault.endswith("did not start: no such luck (exit code 3)")
    assert not server.alive


async def test_a_path_too_long_for_a_socket_is_said(home: Path) -> None:
    server = PrivateRedis(RedisAccess(), home / ("long" * 30))
    with pytest.raises(SettingsError, match="must be shorter than 108 bytes"):
        await server.start()


async def test_a_directory_that_others_may_enter_is_refused(home: Path) -> None:
    home.mkdir()
    home.chmod(0o755)
    with pytest.raises(SettingsError, match="others may enter"):
        await PrivateRedis(RedisAccess(), home).start()


async def test_a_link_in_place_of_the_directory_is_refused(home: Path) -> None:
    (home.parent / "elsewhere").mkdir(mode=0o700)
    home.symlink_to(home.parent / "elsewhere")
    with pytest.raises(SettingsError, match="not a directory of this user"):
        await PrivateRedis(RedisAccess(), home).start()


@pytest.mark.parametrize(
    ("environment", "directory"),
    [
        pytest.param({"RUNTIME_DIRECTORY": "/run/edgecache:/run/other"}, "/run/edgecache/redis", id="systemd"),
        pytest.param({"XDG_RUNTIME_DIR": "/run/user/7"}, "/run/user/7/edgecache", id="a user's session"),
        pytest.param({}, f"{tempfile.gettempdir()}/edgecache-{os.geteuid()}", id="neither"),
    ],
)
def test_where_it_lives(environment: dict[str, str], directory: str) -> None:
    assert default_directory(environment) == Path(directory)
