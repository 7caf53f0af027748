"""A Redis of our own, where none is configured and one is installed.

`redis-server` (or `valkey-server`) listens on a Unix socket in a directory that only this user may enter, keeps nothing
on disk, and goes when we go. When we were killed and could not take it down, the next start finds it and uses it, with
all it holds. It does not know what is kept there.

Who owns the directory is settled by a lock on a file in it, which ends with its process however that ends. A server is
killed only if the pid file names a process whose command line names our socket.
"""

import asyncio
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from edgecache.errors import SettingsError
from edgecache.store.connections import Address, Argument, Connections, Refusal, Reply, Unanswered
from edgecache.store.redis import parse_info
from edgecache.store.tiers import RedisAccess

PROGRAMS = ("redis-server", "valkey-server")
#: sockaddr_un.sun_path, with its final zero byte (unix(7)).
SOCKET_PATH_BYTES = 108
#: Daemons of one user on one machine that may each have a private Redis.
DIRECTORIES = 16
#: A server that was there before has to answer in this time, or it is replaced.
ANSWER_S = 1.0
#: A new one starts in 25 ms; a machine under load gets some more.
START_TIMEOUT_S = 5.0
#: Between two attempts to reach a server that has not bound its socket yet.
KNOCK_S = 0.005
STOP_TIMEOUT_S = 2.0
#: Pauses before a server that died is started again.
FIRST_RESTART_S = 0.2
LAST_RESTART_S = 30.0


def default_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the private Redis lives: systemd's runtime directory, or the user's, or one of this user's under /tmp."""
    given = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given) / "redis"
    given = environment.get("XDG_RUNTIME_DIR", "")
    if given:
        return Path(given) / "edgecache"
    return Path(tempfile.gettempdir()) / f"edgecache-{os.geteuid()}"


class PrivateRedis:
    """One server, ours alone."""

    def __init__(self, access: RedisAccess, directory: Path) -> None:
        self._access = access
        self._wanted = directory
        self._home: _Home | None = None
        self._program = ""
        self._pid: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._watch: asyncio.Task[None] | None = None
        self.restarts = 0
        self.reused = False
        #: Why there is no server, for people; empty while there is one.
        self.fault = ""

    def __repr__(self) -> str:
        return f"<PrivateRedis {'pid ' + str(self._pid) if self.alive else 'down'}, {self.restarts} restarts>"

    @property
    def alive(self) -> bool:
        """Whether the server runs and has answered."""
        return self._pid is not None

    @property
    def pid(self) -> int | None:
        """The server's process."""
        return self._pid

    async def start(self) -> str | None:
        """The URL of a running server, or None: see `fault`. SettingsError: the directory can't be used."""
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if program is None:
            self.fault = f"neither {' nor '.join(PROGRAMS)} is installed"
            return None
        self._program = program
        self._home = _claim(self._wanted)
        try:
            await self._adopt_or_launch(self._home)
        except BaseException:
            await self.close()
            raise
        if self._pid is None:
            fault = self.fault
            await self.close()
            self.fault = fault
            return None
        url = self._home.url
        self._watch = asyncio.create_task(self._keep_alive(self._home), name="watch the private Redis")
        return url

    async def close(self) -> None:
        """Takes the server down and leaves nothing behind but its log."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        if self._home is None:
            return
        pid = self._pid if self._pid is not None else (self._child.pid if self._child else None)
        if pid is not None:
            await _end(pid, signal.SIGTERM)
        self._reap()
        self._home.leave()
        self._home = self._pid = None

    async def _adopt_or_launch(self, home: "_Home") -> None:
        pid = await _answering(home, self._access)
        if pid is not None:
            self._pid, self.reused = pid, True
            return
        stale = home.recorded_pid()
        if stale is not None:
            await _end(stale, signal.SIGKILL)
        await self._launch(home)

    async def _launch(self, home: "_Home") -> None:
        home.socket.unlink(missing_ok=True)
        try:
            self._child = _spawn(self._program, home, self._access)
        except OSError as error:
            self.fault = f"{self._program} can't be run: {error.strerror}"
            return
        self._pid = await self._first_answer(home, self._child)
        if self._pid is None:
            await _end(self._child.pid, signal.SIGKILL)
            self.fault = f"{self._program} did not start: {home.last_words()} ({self._reap()})"
        else:
            self.fault = ""

    async def _first_answer(self, home: "_Home", child: subprocess.Popen[bytes]) -> int | None:
        with suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                while child.poll() is None:
                    if home.socket.exists() and await _answering(home, self._access) is not None:
                        return child.pid
                    await asyncio.sleep(KNOCK_S)
        return None

    async def _keep_alive(self, home: "_Home") -> None:
        """Starts the server again whenever it ends; slower each time it does not come up."""
        pause_s = FIRST_RESTART_S
        while True:
            if self._pid is not None:
                await _ended(self._pid)
                self._pid = None
                self.fault = f"{self._program} ended ({self._reap()})"
                pause_s = FIRST_RESTART_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_RESTART_S)
            self.restarts += 1
            await self._launch(home)

    def _reap(self) -> str:
        """How the server ended, which it has; only a child of ours lets us know."""
        if self._child is None:
            return "not a child of ours"
        code, self._child = self._child.wait(), None
        return f"signal {-code}" if code < 0 else f"exit code {code}"


class _Home:
    """The directory, locked for as long as we have it."""

    def __init__(self, directory: Path, lock: int) -> None:
        self._directory = directory
        self._lock = lock
        self.socket = directory / "redis.sock"
        self.pid_file = directory / "redis.pid"
        self.log = directory / "redis.log"

    @property
    def directory(self) -> Path:
        return self._directory

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self.socket))}"

    def recorded_pid(self) -> int | None:
        """The process in the pid file, if it is a server on our socket and not another that got its number."""
        try:
            pid = int(self.pid_file.read_text())
            command_line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self.socket) in command_line else None

    def last_words(self) -> str:
        """The last line the server wrote."""
        with suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()
            return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return "it said nothing"

    def leave(self) -> None:
        """Gives the directory up."""
        for path in (self.socket, self.pid_file):
            path.unlink(missing_ok=True)
        os.close(self._lock)


def _claim(wanted: Path) -> _Home:
    """The first of `wanted`, `wanted-2`, ... that no other daemon has."""
    for number in range(1, DIRECTORIES + 1):
        directory = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        _check_length(directory / "redis.sock")
        _make_private(directory)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return _Home(directory, lock)
    raise SettingsError(f"{wanted} and {DIRECTORIES - 1} beside it are all in use by other daemons")


def _check_length(socket: Path) -> None:
    length = len(os.fsencode(socket))
    if length >= SOCKET_PATH_BYTES:
        raise SettingsError(
            f"cache.redis.private_directory is too long: the path of a Unix socket must be shorter than "
            f"{SOCKET_PATH_BYTES} bytes, and {socket} has {length}"
        )


def _make_private(directory: Path) -> None:
    """Makes the directory, or sees to it that nobody else made it: in a shared /tmp anyone can."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise SettingsError(f"cache.redis.private_directory: {directory} can't be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise SettingsError(f"cache.redis.private_directory: {directory} is not a directory of this user")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise SettingsError(f"cache.redis.private_directory: others may enter {directory}; chmod it to 0700")


def _spawn(program: str, home: _Home, access: RedisAccess) -> subprocess.Popen[bytes]:
    options = {
        "port": "0",
        "unixsocket": str(home.socket),
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "no",
        "maxmemory": str(access.private_max_memory_bytes),
        "maxmemory-policy": "allkeys-lfu",
        "daemonize": "no",
        "dir": str(home.directory),
        "pidfile": str(home.pid_file),
        "logfile": str(home.log),
        "loglevel": "warning",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    with home.log.open("wb") as log:  # begun anew; what is said before the log file is known comes here too
        return subprocess.Popen(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=home.directory,
            env={},  # our secrets may be in ours
            umask=0o077,
            start_new_session=True,  # a Ctrl-C is for us; we take the server down ourselves
        )


async def _answering(home: _Home, access: RedisAccess) -> int | None:
    """The process that answers on our socket, told how much it may hold; None: nobody does."""
    connections = Connections(Address(home.url, None), 1, ANSWER_S)
    asking = asyncio.create_task(_greet(connections, access), name="greet the private Redis")
    try:
        return await asyncio.shield(asking)
    finally:
        await connections.close()
        await asyncio.wait([asking])


async def _greet(connections: Connections, access: RedisAccess) -> int | None:
    async def ask(*command: Argument) -> Reply:
        return await connections.ask(command, ANSWER_S)

    try:
        if await ask("PING") != b"PONG":
            return None
        await ask("CONFIG", "SET", "maxmemory", access.private_max_memory_bytes)
        return int(parse_info(await ask("INFO", "server")).get("process_id", ""))
    except (Unanswered, Refusal, ValueError):
        return None


async def _ended(pid: int) -> None:
    """Returns when the process has ended; a pid descriptor becomes readable then (pidfd_open(2))."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def _end(pid: int, how: signal.Signals) -> None:
    """Ends the process; one that does not go when asked to is killed."""
    with suppress(ProcessLookupError):
        os.kill(pid, how)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await _ended(pid)
                return
        os.kill(pid, signal.SIGKILL)
        await _ended(pid)
