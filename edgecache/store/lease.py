"""Leases in Redis: who of all processes that share it may synthesize a key now, and what it tells the others.

Keeps rules 6 and 7: a lease is asked for within the budget of a read, on the reads' connection, and only while Redis
answers; whatever goes wrong means that there is none, and each process leads for itself. Renewing, telling and giving back
go over another connection, and nobody waits for them.

Theory. A lease is `SET NX PX` of a token that names the process; it is renewed at a third of its time, and given back when
the recording is written. The flight is told only if somebody calls: who finds the lease held writes the token into the
holder's mailbox, a stream that each process reads all the time, and the holder then tells the flight, from its beginning,
in a stream of that token. A process that lost its lease unawares goes on in its own stream, and nobody else's is mixed up
with it.
"""

import asyncio
import itertools
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from edgecache.cache.key import Key, Naming
from edgecache.cache.lookup import Asked
from edgecache.cache.recording import Recording
from edgecache.clock import Clock
from edgecache.errors import SpeechError
from edgecache.fill.flight import Flight, State
from edgecache.fill.priority import Priority
from edgecache.fill.sharing import Taken
from edgecache.fill.tail import Broken, frame
from edgecache.store import scripts
from edgecache.store.connections import Address, Refusal
from edgecache.store.pipeline import Answer, Pipeline, Question
from edgecache.store.post import AGAIN_S, Inbox, Post
from edgecache.store.telling import Telling, Untold
from edgecache.store.tiers import RedisAccess

#: More than this many tails are not followed at once: then each process leads for itself.
MAX_FOLLOWED = 256
#: Calls that wait in a mailbox; an older one is made again by whoever still waits.
MAX_CALLS = 1024
#: Replies to what is told are an id or nothing.
MAX_REPLY_BYTES = 4096
#: What Redis says of a number that is there; only asked of one whose answer was lost.
TOLD_ALREADY = "ERR"
#: A tail is there for so long after its last entry.
TAIL_LASTS_S = 5.0
#: How long `close` waits until leases are given back.
CLOSE_S = 0.5

_TOKEN = re.compile(rb"([0-9a-f]{16})\.[0-9]{1,18}")
_CALL = re.compile(rb"([0-9a-f]{64}) ([0-9a-f]{16}\.[0-9]{1,18}) ([0-9])")


def resolved(access: RedisAccess, *, several_workers: bool) -> RedisAccess:
    """With `auto` decided: leases cost a round trip, so they are had only where another process may be."""
    if access.lease != "auto":
        return access
    return replace(access, lease="on" if several_workers or access.url not in (None, "off") else "off")


class Redis(Protocol):
    """What else is asked of Redis: see `store.redis`."""

    @property
    def address(self) -> Address: ...
    def ask(self, command: bytes) -> "asyncio.Future[Answer] | None": ...
    def believed(self, key: Key, answer: Answer) -> Recording | None: ...
    async def written(self, key: Key) -> None: ...


@dataclass(slots=True)
class Counters:
    """What has happened so far. lost: leases that ran out although they were renewed, or were deleted. told, untold: tails,
    to their end or not. unwritten: leases given back before their recording was written."""

    lost: int = 0
    called: int = 0
    told: int = 0
    untold: int = 0
    unwritten: int = 0


class Lease:
    """One that is ours. It is renewed until it is given back."""

    def __init__(self, leases: "Leases", asked: Asked, token: str) -> None:
        self._leases = leases
        self.asked = asked
        self.token = token
        self.given_back = asyncio.get_running_loop().create_future()
        self.flight: Flight | None = None
        self.telling: asyncio.Task[None] | None = None
        self.lost = self.ending = False
        self._called: Callable[[Priority], None] = lambda _: None
        #: How urgently others wanted to hear it before there was anything to tell.
        self._wanted: Priority | None = None
        self._timer = self._again()

    def __repr__(self) -> str:
        return f"<Lease {self.asked.key[:8]} {self.token}{' lost' * self.lost}>"

    def tell(self, flight: Flight, called: Callable[[Priority], None]) -> None:
        """This is the flight that is led. called: told when another process listens."""
        self.flight, self._called = flight, called
        if self._wanted is not None:
            self.call(self._wanted)

    def call(self, priority: Priority) -> None:
        """Another process wants to hear it."""
        if self.flight is None:
            self._wanted = priority
            return
        self._called(priority)
        if self.telling is None:
            self.telling = self._leases.tell(self, self.flight)

    def end(self) -> None:
        """Its flight is over, or about to be: given back as soon as nobody can be misled by that."""
        if not self.ending:
            self.ending = True
            self._leases.end(self)

    def stop(self) -> None:
        """Renewed no more."""
        self._timer.cancel()

    def _again(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._leases.lasts_s / 3, self._renew)

    def _renew(self) -> None:
        self._leases.renew(self)
        if not self.lost:
            self._timer = self._again()


class Other:
    """A lease that another process has."""

    def __init__(self, leases: "Leases", asked: Asked, token: str) -> None:
        self._leases = leases
        self._asked = asked
        self.token = token

    def follow(self, priority: Priority) -> Inbox:
        """What its holder tells from now on. It is called."""
        return self._leases.follow(self._asked.key, self.token, priority)

    async def void(self) -> None:
        """Its holder leads what nobody may hear any more: anyone may take it."""
        await self._leases.void(self._asked.key, self.token)


class Leases:
    """All leases that this process has or waits for."""

    def __init__(self, redis: Redis, access: RedisAccess, naming: Naming, clock: Clock) -> None:
        self._redis = redis
        self._access = access
        self._naming = naming
        self._clock = clock
        self._name = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._tells = Pipeline(redis.address, access.connect_timeout_s, clock, MAX_REPLY_BYTES)
        self._post = Post(redis.address, access, self._mailbox(self._name), self._heard)
        self._held: dict[Key, Lease] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._tellings: set[asyncio.Task[None]] = set()
        self._refused_until_s = 0.0
        self.lasts_s = access.lease_ttl_s
        self.counters = Counters()

    def __repr__(self) -> str:
        return f"<Leases {len(self._held)} held, {self._post!r}>"

    def status(self) -> dict[str, object]:
        """For `/status`."""
        return {**asdict(self.counters), "holding": len(self._held), "following": len(self._post)}

    async def start(self) -> None:
        """Begins to read the mailbox; Redis may be down."""
        self._post.start()

    async def close(self) -> None:
        """Gives every lease back, within bounds."""
        held = list(self._held.values())
        for lease in held:
            lease.end()
        if held:
            await asyncio.wait([lease.given_back for lease in held], timeout=CLOSE_S)
        tasks = [*self._ending, *self._tellings]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._post.close()
        await self._tells.close()

    # Where things lie.

    def _lease(self, key: Key) -> str:
        return f"{self._naming.prefix}lease:{key}"

    def _tail(self, key: Key, token: str) -> str:
        return f"{self._naming.prefix}tail:{key}:{token}"

    def _mailbox(self, process: str) -> str:
        return f"{self._naming.prefix}calls:{process}"

    # Taking.

    async def take(self, asked: Asked) -> Taken | Other | None:
        """The lease, or who has it. None: there are no leases now."""
        mine = self._held.get(asked.key)
        if mine is not None:  # of a flight that is over, or that nobody joins any more
            if not mine.ending:
                self._give_back(asked.key, mine.token, mine)
            await asyncio.wait([mine.given_back], timeout=self._access.budget_s)
        if not self._post.well or len(self._post) >= MAX_FOLLOWED or self._clock.monotonic() < self._refused_until_s:
            return None
        token = f"{self._name}.{next(self._numbers)}"
        taking = self._redis.ask(scripts.script(scripts.TAKE, self._lease(asked.key), token.encode(), self._lasts_ms))
        # In the same turn: what was stored since it was looked for.
        looking = self._redis.ask(scripts.command(b"GET", self._naming.redis_key(asked.key).encode()))
        if taking is None or looking is None:
            return None
        got: Taken | Other | None = None
        try:
            said, found = await asyncio.gather(taking, looking)
            got = self._understood(asked, token, said, found)
        finally:
            if got is None:  # it may be ours all the same, and too late
                self._give_back(asked.key, token)
        return got

    def _understood(self, asked: Asked, token: str, said: Answer, found: Answer) -> Taken | Other | None:
        if isinstance(said, memoryview):
            holder = bytes(said)
            if holder != token.encode():  # it may be ours already: who waits on a connection that ends is asked again
                return Other(self, asked, holder.decode()) if _TOKEN.fullmatch(holder) else None
        elif isinstance(said, Refusal):
            self._refused_until_s = self._clock.monotonic() + self._access.breaker_open_s
            return None
        elif said is not None:
            return None
        lease = self._held[asked.key] = Lease(self, asked, token)
        return Taken(lease, self._redis.believed(asked.key, found))

    @property
    def _lasts_ms(self) -> bytes:
        return b"%d" % max(1, round(self.lasts_s * 1000))

    # Holding.

    def renew(self, lease: Lease) -> None:
        """For as long again, if it is ours still."""

        def told(answer: Answer) -> None:
            if answer is None and not lease.lost:
                lease.lost = True
                self.counters.lost += 1

        self._send(
            scripts.script(scripts.RENEW, self._lease(lease.asked.key), lease.token.encode(), self._lasts_ms), told
        )

    def end(self, lease: Lease) -> None:
        """See `Lease.end`."""
        task = asyncio.create_task(self._end(lease), name="give a lease back")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, lease: Lease) -> None:
        flight = lease.flight
        try:
            if flight is not None:
                with suppress(SpeechError):
                    await flight.whole()
                if flight.state is not State.REFUSED and lease.telling is not None:
                    await asyncio.wait([lease.telling])
                if flight.state is State.SEALED:
                    async with asyncio.timeout(self.lasts_s):  # a Redis that does not take it holds nobody up
                        await self._redis.written(lease.asked.key)
        except TimeoutError:
            self.counters.unwritten += 1
        finally:
            lease.stop()
            if flight is None:
                self._deny(lease.asked.key, lease.token)
            # One that nobody has heard is given back before that is told: who waits for it leads at once.
            self._give_back(lease.asked.key, lease.token, lease)

    def _give_back(self, key: Key, token: str, lease: Lease | None = None) -> None:
        def done(_: Answer) -> None:
            if lease is not None:
                if self._held.get(key) is lease:
                    del self._held[key]
                if not lease.given_back.done():
                    lease.given_back.set_result(None)

        self._send(scripts.script(scripts.GIVE_BACK, self._lease(key), token.encode()), done)

    async def void(self, key: Key, token: str) -> None:
        """See `Other.void`. Ends when it is, or in time."""
        await asyncio.wait(
            [self._sent(scripts.script(scripts.GIVE_BACK, self._lease(key), token.encode()))],
            timeout=self._access.budget_s,
        )

    def _sent(self, words: bytes) -> asyncio.Future[Answer]:
        """The answer, when it comes."""
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._send(words, lambda answer: None if answered.done() else answered.set_result(answer))
        return answered

    def _send(self, words: bytes, told: Callable[[Answer], None] = lambda _: None) -> None:
        """Behind what was sent before."""
        self._tells.ask(Question(words, self._clock.monotonic() + self._access.write_timeout_s, told))

    # Telling those who follow.

    def _heard(self, called: bytes) -> None:
        """What lay in the mailbox."""
        call = _CALL.fullmatch(called)
        if call is None:
            return
        key, token = Key(call[1].decode()), call[2].decode()
        priority = Priority(min(int(call[3]), max(Priority)))
        lease = self._held.get(key)
        self.counters.called += 1
        if lease is not None and lease.token == token:
            lease.call(priority)
        else:
            self._deny(key, token)

    def _deny(self, key: Key, token: str) -> None:
        """Whoever waits for this lease waits in vain: it was given back, or never known to be had."""
        self._give_back(key, token)
        self._send(self._entry(self._tail(key, token), frame(Broken("given_back")), 1))

    def tell(self, lease: Lease, flight: Flight) -> asyncio.Task[None]:
        """Tells a flight from its beginning to its end."""
        task = asyncio.create_task(self._tell_all(lease, flight), name="tell a flight")
        self._tellings.add(task)
        task.add_done_callback(self._tellings.discard)
        return task

    async def _tell_all(self, lease: Lease, flight: Flight) -> None:
        telling = Telling(lease.asked, flight, self.lasts_s / 3)
        where = self._tail(lease.asked.key, lease.token)
        try:
            await telling.run(lambda value, number: self._tell(where, value, number))
            self.counters.told += 1
        except Untold:
            self.counters.untold += 1

    async def _tell(self, where: str, value: bytes, number: int) -> None:
        """Tells one entry, again and again for as long as those who follow have patience."""
        until_s, again = self._clock.monotonic() + self.lasts_s, False
        while True:
            answer = await self._sent(self._entry(where, value, number))
            if answer is None or (again and isinstance(answer, Refusal) and answer.code == TOLD_ALREADY):
                return
            if self._clock.monotonic() >= until_s:
                raise Untold
            again = True
            await asyncio.sleep(AGAIN_S)

    def _entry(self, where: str, value: bytes, number: int) -> bytes:
        lasts_ms = b"%d" % round(1000 * max(TAIL_LASTS_S, 3 * self.lasts_s))
        return scripts.script(scripts.ENTRY, where, b"%d-0" % number, value, lasts_ms)

    # Following.

    def follow(self, key: Key, token: str, priority: Priority) -> Inbox:
        """See `Other.follow`."""
        where = self._tail(key, token)
        if where in self._post:  # by a flight that nobody joins any more
            self._give_back(key, token)
        inbox = self._post.follow(where, self.lasts_s, self._wake)
        self._call(self._mailbox(token.partition(".")[0]), f"{key} {token} {priority.value}".encode())
        self._wake()
        return inbox

    def _wake(self) -> None:
        """Whoever waits for the post looks again at what it waits for."""
        self._call(self._mailbox(self._name), b"")

    def _call(self, mailbox: str, words: bytes) -> None:
        self._send(
            scripts.script(scripts.CALLS, mailbox, words, b"%d" % MAX_CALLS, b"%d" % round(1000 * 5 * self.lasts_s))
        )
