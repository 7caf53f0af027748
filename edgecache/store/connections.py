"""A few connections to one Redis, and one question at a time on each.

Keeps rule 6. A command is never cancelled in flight: it ends with its reply, or with its connection. When a reply is late
the connection is dropped, so that nobody can ever read that reply as the answer to another question (redis-py did so
once: CVE-2023-28858). It does not know what is asked, nor what an answer means.

Nothing is retried, with one exception: an idle connection may have been closed by the other side without our having
noticed. A question that finds its connection dead is asked once more on a new one, within the same time.

redis-py connects, authenticates, writes and parses. All its exceptions end here: see `Unanswered` and `Refusal`. Hits do
not come this way: their connection is handed over (`Wire.hand_over`) to `pipeline`, which keeps the same rule otherwise.
"""

import asyncio
import re
from collections import deque
from typing import Any, Protocol, cast

import redis.exceptions
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from edgecache.errors import SettingsError

#: When this process itself is later than this to notice that a reply's time is over, the reply may lie in the socket
#: already. Then it gets a moment to be read, and Redis is not blamed for our being slow.
LATE_S = 0.005
MOMENT_S = 0.010

#: What redis-py's parser raises besides its own errors when a reply is odd: a MOVED that says not where, a map with a list
#: for a key, an array of thousands of millions, a thousand notices in a row.
ODD = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, MemoryError)

_CODE = re.compile(r"[A-Z]{2,32}")

Argument = str | bytes | int
Reply = bytes | int | list[Any] | None


class Unanswered(Exception):
    """No reply: the time was over, or the connection did not come about or broke."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class Refusal(Exception):
    """Redis replied with an error. code: its first word, such as OOM or WRONGTYPE."""

    def __init__(self, code: str) -> None:
        super().__init__(f"Redis answered {code}")
        self.code = code


class Address:
    """Where Redis is and how to get in. SettingsError: the URL is not one."""

    def __init__(self, url: str, password: str | None) -> None:
        try:
            options: dict[str, Any] = dict(parse_url(url))
            self._kind: type[AbstractConnection] = options.pop("connection_class", Connection)
            if password is not None:
                options.setdefault("password", password)
            self._options = options | _OURS
            self.connection()
        except (ValueError, TypeError, redis.exceptions.RedisError) as error:
            raise SettingsError(f"cache.redis.url is not a Redis URL: {error}") from error

    def connection(self) -> AbstractConnection:
        """A connection that is not connected yet."""
        return self._kind(**self._options)


#: What a URL can't change. No socket time-out: the time belongs to the question, not to the socket.
_OURS: dict[str, Any] = {
    "socket_timeout": None,
    "socket_connect_timeout": None,
    "retry": Retry(NoBackoff(), 0),
    "retry_on_timeout": False,
    "health_check_interval": 0,
    "decode_responses": False,
    "protocol": 2,
    "driver_info": None,
}


class _Connecting(Protocol):
    """What redis-py leaves without types."""

    async def connect(self) -> None: ...


class Wire:
    """One connection of redis-py's. replies: how many it has given. given_up: its reply came too late."""

    __slots__ = ("connection", "given_up", "replies", "timer")

    def __init__(self, connection: AbstractConnection) -> None:
        self.connection = connection
        self.replies = 0
        self.given_up = False
        self.timer: asyncio.Handle | None = None

    async def connect(self, within_s: float) -> None:
        """Connects and logs in. Unanswered: it did not come about, and nothing is left of it."""
        try:
            async with asyncio.timeout(within_s):
                await cast("_Connecting", self.connection).connect()
        except TimeoutError as error:
            await self.forget()
            raise Unanswered("connecting took too long", timed_out=True) from error
        except (redis.exceptions.RedisError, OSError, *ODD) as error:
            await self.forget()
            raise Unanswered(f"not connected: {_reason(error)}") from error
        except asyncio.CancelledError:
            await self.forget()
            raise

    async def hand_over(self, protocol: asyncio.BaseProtocol) -> asyncio.StreamWriter:
        """All that comes from now on is the protocol's. Keep the writer: it closes the transport when it goes.

        Unanswered: something had come already, or the end.
        """
        writer = cast("asyncio.StreamWriter", self.connection._writer)
        transport = cast("asyncio.Transport", writer.transport)
        transport.pause_reading()  # or uvloop would go on to read for the one before
        transport.set_protocol(protocol)
        transport.resume_reading()
        quiet = await self.quiet()
        self.connection._writer = self.connection._reader = None  # or redis-py would close it with the connection
        if not quiet:
            writer.transport.abort()
            raise Unanswered("not connected: closed, or out of step")
        return writer

    def abort(self) -> None:
        """Drops the connection now; a `close` would wait until all that was written is taken (redis-py has no abort)."""
        writer = self.connection._writer
        if writer is not None:
            writer.transport.abort()

    async def forget(self) -> None:
        """Ends the connection for good."""
        self.abort()
        await self.connection.disconnect(nowait=True)

    async def quiet(self) -> bool:
        """Whether there is nothing to read: no reply nobody asked for, and no end."""
        try:
            return not await self.connection.can_read()
        except redis.exceptions.ConnectionError:
            return False


class Connections:
    """At most `limit` connections, opened when they are needed and kept."""

    def __init__(self, address: Address, limit: int, connect_timeout_s: float) -> None:
        self._address = address
        self._limit = limit
        self._connect_timeout_s = connect_timeout_s
        self._idle: list[Wire] = []
        self._busy: set[Wire] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._waiting: deque[asyncio.Future[Wire]] = deque()
        self._closed = False

    def __repr__(self) -> str:
        return (
            f"<Connections {len(self._busy)} busy, {len(self._idle)} idle, {len(self._connecting)} connecting, "
            f"{len(self._waiting)} waiting>"
        )

    @property
    def count(self) -> int:
        """Connections that are open or being opened."""
        return len(self._busy) + len(self._idle) + len(self._connecting)

    async def ask(self, command: tuple[Argument, ...], within_s: float) -> Reply:
        """Redis's reply. Unanswered, Refusal: there is none. Run it in a task of its own that nobody cancels."""
        deadline_s = asyncio.get_running_loop().time() + within_s
        line = await self._take(deadline_s)
        used_before = line.replies > 0
        try:
            return await self._exchange(line, command, deadline_s)
        except Unanswered as error:
            if error.timed_out or not used_before:
                raise
        # If one was closed unnoticed, so were probably all that were idle.
        while self._idle:
            await self._idle.pop().forget()
        return await self._exchange(await self._take(deadline_s), command, deadline_s)

    async def close(self) -> None:
        """Drops all connections; who still waits for a reply is told that there is none."""
        self._closed = True
        for line in self._busy:
            line.abort()
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        self._tell_waiting(Unanswered("closed"))
        while self._idle:
            await self._idle.pop().forget()

    async def _take(self, deadline_s: float) -> Wire:
        """A connection to be used by the caller alone."""
        while self._idle:
            line = self._idle.pop()
            if await line.quiet():
                self._busy.add(line)
                return line
            await line.forget()
        return await self._wait(deadline_s)

    async def _wait(self, deadline_s: float) -> Wire:
        if self._closed:
            raise Unanswered("closed")
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Wire] = loop.create_future()
        timer = loop.call_at(deadline_s, waiter.cancel)
        self._waiting.append(waiter)
        self._connect_more()
        try:
            await asyncio.wait([waiter])
        finally:
            timer.cancel()
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        if waiter.cancelled():
            raise Unanswered("no connection in time", timed_out=True)
        return waiter.result()

    def _connect_more(self) -> None:
        while len(self._waiting) > len(self._connecting) and self.count < self._limit and not self._closed:
            task = asyncio.create_task(self._connect(), name="connect to Redis")
            self._connecting.add(task)

    async def _connect(self) -> None:
        """Goes on when nobody waits any more: a connection that takes longer than one read's budget must come about too."""
        line, failure = Wire(self._address.connection()), None
        try:
            await line.connect(self._connect_timeout_s)
        except Unanswered as error:
            failure = error
        finally:
            self._connecting -= {asyncio.current_task()}
        if failure is None:
            await self._hand_on(line)
        else:
            self._tell_waiting(failure)

    def _tell_waiting(self, failure: Unanswered) -> None:
        """One connection less than hoped for; without any, nobody needs to go on waiting."""
        alive = self._busy or self._idle
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(failure)
                if alive:
                    break
        self._connect_more()

    async def _hand_on(self, line: Wire) -> None:
        """The connection is free: to who has waited longest, or to the idle ones."""
        self._busy.discard(line)
        if self._closed or line.given_up or not await line.quiet():
            await line.forget()
            self._connect_more()
            return
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._busy.add(line)
                waiter.set_result(line)
                return
        self._idle.append(line)

    async def _exchange(self, line: Wire, command: tuple[Argument, ...], deadline_s: float) -> Reply:
        """One command and its reply, until the deadline; then the connection is dropped, which ends the reading."""
        line.timer = asyncio.get_running_loop().call_at(deadline_s, _time_over, line, deadline_s)
        try:
            await line.connection.send_command(*command, check_health=False)
            reply: Reply = await line.connection.read_response()
        except redis.exceptions.ResponseError as error:
            raise Refusal(_code(error)) from error
        except (redis.exceptions.RedisError, OSError, *ODD) as error:
            if isinstance(error, redis.exceptions.ConnectionError) and error.status_code:
                raise Refusal(_code(error)) from error
            if line.given_up:
                raise Unanswered("no reply in time", timed_out=True) from error
            raise Unanswered(f"connection lost: {_reason(error)}") from error
        finally:
            line.timer.cancel()
            line.replies += 1
            await self._hand_on(line)
        return reply


def _time_over(line: Wire, deadline_s: float | None) -> None:
    loop = asyncio.get_running_loop()
    if deadline_s is not None and loop.time() - deadline_s > LATE_S:
        line.timer = loop.call_later(MOMENT_S, _time_over, line, None)
    else:
        line.given_up = True
        line.abort()


def _code(error: redis.exceptions.RedisError) -> str:
    return code_of(str(error.status_code or error))


def code_of(error: str) -> str:
    """The first word of Redis's error, if it is a code; the rest may quote what was asked."""
    word = error.partition(" ")[0]
    return word if _CODE.fullmatch(word) else "an error"


def _reason(error: Exception) -> str:
    if isinstance(error, ODD):
        return f"an odd reply ({type(error).__name__})"  # its message may quote the reply
    cause = error.__cause__ if error.__cause__ is not None else error
    return f"{type(error).__name__}: {cause}"
