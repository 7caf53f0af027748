"""The region's shared tier: Redis, which is never needed to speak.

Keeps rule 6: a look never raises for anything Redis does, and costs at most its budget; after some faults in a row it costs
nothing, because a breaker opens. What Redis returns is checked before it is believed, and a broken value is a miss.
It asks at once, over one connection for all (see `pipeline`); writes go behind (see `behind`), over another one. It does
not know whose utterance was asked for: `cache.lookup` compares that.
"""

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

from edgecache.cache.key import Key, Naming
from edgecache.cache.record import Record, Records
from edgecache.cache.recording import BrokenRecord, Recording, tellable, unframe
from edgecache.clock import Clock
from edgecache.errors import SettingsError
from edgecache.fill.edge import Then
from edgecache.store.behind import WriteBehind
from edgecache.store.breaker import Breaker, BreakerState, Permit
from edgecache.store.connections import Address, Connections, Refusal, Reply, Unanswered
from edgecache.store.lease import Leases
from edgecache.store.pipeline import Answer, Pipeline, Question
from edgecache.store.replies import Unreadable
from edgecache.store.tiers import RedisAccess

#: No rendering is near this large. A larger value is not ours, and is neither checked nor kept.
MAX_VALUE_BYTES = 64 << 20
#: So many questions are kept spelled out.
COMMANDS_AT_MOST = 8192
#: A probe by hand may take longer than a hit.
PROBE_TIMEOUT_S = 2.0
#: Asks for what nobody keeps: that it answers is what is to be known.
_LOOK = b"*2\r\n$3\r\nGET\r\n$17\r\nedgecache:nothing\r\n"


@dataclass(slots=True)
class Counters:
    """What has happened so far. skipped: not asked, as the breaker was open."""

    hits: int = 0
    misses: int = 0
    timeouts: int = 0
    faults: int = 0
    broken_records: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Probe:
    """What one look at Redis found. fault: why there is no more to tell."""

    version: str | None = None
    max_memory_bytes: int | None = None
    policy: str | None = None
    pong_ms: float | None = None
    fault: str | None = None


class RedisTier:
    """The second tier."""

    def __init__(
        self,
        access: RedisAccess,
        naming: Naming,
        clock: Clock,
        url: str | None = None,
        on_change: Callable[[BreakerState, str], None] | None = None,
    ) -> None:
        """url: in place of the one in `access`. on_change: told the breaker's new state and why, once per change."""
        where = url or access.url
        if where is None:
            raise SettingsError("cache.redis.url is missing")
        self._access = access
        self._naming = naming
        self._clock = clock
        self._on_change = on_change
        #: Why the breaker is open.
        self._why = ""
        self.address = Address(where, access.password)
        self._breaker = Breaker(access.breaker_failures, access.breaker_open_s)
        self._reads = Pipeline(self.address, access.connect_timeout_s, clock, MAX_VALUE_BYTES)
        self._records = Records()
        self._commands: dict[Key, bytes] = {}
        self._monotonic, self._budget_s = clock.monotonic, access.budget_s
        self._writes = Connections(self.address, 1, access.connect_timeout_s)
        self._behind = WriteBehind(access, naming, clock, self._writes)
        self.counters = Counters()
        self.leases = Leases(self, access, naming, clock) if access.lease == "on" else None

    def __repr__(self) -> str:
        return f"<RedisTier {self.state.value}, {self._reads!r}, {self._behind!r}>"

    @property
    def state(self) -> BreakerState:
        """Whether Redis is asked at all."""
        return self._breaker.state

    @property
    def lost(self) -> str:
        """Why Redis is not asked; empty: it is. While nobody asks, this is what finds out whether it is back."""
        if self.state is BreakerState.CLOSED:
            return ""
        now_s = self._clock.monotonic()
        permit = self._admit(now_s)
        if permit is not None:
            self._reads.ask(Question(_LOOK, now_s + self._access.budget_s, partial(self._looked, permit)))
        return f"Redis is not asked: {self._why}"

    @property
    def pending_bytes(self) -> int:
        """How much waits to be written."""
        return self._behind.pending_bytes

    def status(self) -> dict[str, object]:
        """Everything an operator may ask, by name."""
        return {
            "state": self.state.value,
            "pending_bytes": self.pending_bytes,
            "last_write_failure": self._behind.last_failure,
            **asdict(self.counters),
            **asdict(self._behind.counters),
            "leases": "off" if self.leases is None else self.leases.status(),
        }

    # Lifecycle.

    async def start(self) -> None:
        """Begins to write behind. Connects when it is asked something, so Redis may be down."""
        self._behind.start()
        if self.leases is not None:
            await self.leases.start()

    async def flush(self, timeout_s: float) -> bool:
        """Waits until all is written; False: it took too long."""
        return await self._behind.flush(timeout_s)

    async def close(self) -> None:
        """Drops the connections and what still waits; `flush` first to keep it."""
        if self.leases is not None:
            await self.leases.close()
        await self._writes.close()
        await self._behind.close()
        await self._reads.close()

    # Recordings.

    def ask_for(self, key: Key, then: Then) -> bool:
        """Asks for the record under this key; `then` is told, within the budget: None for every reason there can be.

        What is still to be written is newer than what Redis has, and told soon. False: Redis is not asked.
        """
        waiting = self._behind.waiting(key) if self._behind.pending_bytes else None
        if waiting is not None:
            asyncio.get_running_loop().call_soon(then, waiting.recording)
            return True
        now_s = self._monotonic()
        permit = self._breaker.standing or self._admit(now_s)
        if permit is None:
            self.counters.skipped += 1
            return False
        command = self._commands.get(key) or self._spelled(key)
        self._reads.ask(Look(command, now_s + self._budget_s, then, (self, key, permit)))
        return True

    def _spelled(self, key: Key) -> bytes:
        """What asks for this key; the same are asked for again and again."""
        if len(self._commands) >= COMMANDS_AT_MOST:
            self._commands.clear()
        where = self._naming.redis_key(key).encode()
        command = self._commands[key] = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(where), where)
        return command

    def waiting(self, key: Key) -> Recording | None:
        """What is still to be written under this key."""
        waiting = self._behind.waiting(key)
        return None if waiting is None else waiting.recording

    def get(self, key: Key) -> asyncio.Future[Recording | None]:
        """The recording under this key, or None, within the budget. Who cancels it leaves; the question goes on."""
        found: asyncio.Future[Recording | None] = asyncio.get_running_loop().create_future()

        def told(record: Recording | Record | None) -> None:
            if not found.done():
                found.set_result(record.whole() if isinstance(record, Record) else record)

        if not self.ask_for(key, told):
            found.set_result(None)
        return found

    def put(self, recording: Recording, lifetime_s: float) -> bool:
        """Write this recording behind. False: it is not going to be written."""
        if lifetime_s <= 0 or recording.size_bytes > MAX_VALUE_BYTES:
            return False
        return self._behind.put(recording, lifetime_s)

    def discard(self, key: Key) -> None:
        """Delete behind what is under this key; `get` does not find it from now on."""
        self._behind.discard(key)

    def _looked(self, permit: Permit, answer: Answer) -> None:
        if answer is None or isinstance(answer, memoryview):
            self._answered(permit)
        else:
            self._failed(permit, str(answer) if isinstance(answer, Unanswered | Refusal) else answer.why)

    # For leases.

    def ask(self, command: bytes) -> asyncio.Future[Answer] | None:
        """Asks at once, within the budget of a read. None: Redis is not asked now, as its last answer failed."""
        now_s = self._clock.monotonic()
        permit = self._admit(now_s) if self._breaker.steady else None
        if permit is None:
            return None
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def heard(answer: Answer) -> None:
            if isinstance(answer, Unanswered):
                self._count_unanswered(permit, answer)
            else:
                self._answered(permit)
            if not answered.done():  # who asked may have left; a value is lent
                answered.set_result(memoryview(bytes(answer)) if isinstance(answer, memoryview) else answer)

        self._reads.ask(Question(command, now_s + self._access.budget_s, heard))
        return answered

    def believed(self, key: Key, answer: Answer) -> Recording | None:
        """The recording that an answer is. It is not counted: it was looked for before."""
        try:
            found = unframe(key, answer) if isinstance(answer, memoryview) else None
        except BrokenRecord:
            return None
        return found if found is not None and tellable(found.facts) else None

    async def written(self, key: Key) -> None:
        """Waits until nothing waits to be written under this key."""
        await self._behind.written(key)

    def record(self, key: Key, permit: Permit, value: memoryview) -> Record | None:
        """The record that this value is, if it is one; it is counted."""
        if permit.fault or permit is not self._breaker.standing:
            self._answered(permit)
        try:
            found = self._records.read(key, value)
        except BrokenRecord:
            self._count_broken(key)
            return None
        self.counters.hits += 1
        return found

    def no_value(self, key: Key, permit: Permit, answer: Refusal | Unreadable | Unanswered | None) -> None:
        """There is none, and it is counted why."""
        if answer is None:
            self._answered(permit)
            self.counters.misses += 1
        elif isinstance(answer, Unanswered):
            self._count_unanswered(permit, answer)
        elif isinstance(answer, Refusal):
            self._count_refusal(key, permit, answer)
        elif answer.too_large:
            self._answered(permit)
            self._count_broken(key)
        else:
            self.counters.faults += 1
            self._failed(permit, answer.why)

    def _count_broken(self, key: Key) -> None:
        """Deleted, so that it can be filled again; unless a newer recording is already on its way."""
        self.counters.broken_records += 1
        if self._behind.waiting(key) is None:
            self._behind.discard(key)

    def _count_unanswered(self, permit: Permit, fault: Unanswered) -> None:
        if fault.timed_out:
            self.counters.timeouts += 1
        else:
            self.counters.faults += 1
        self._failed(permit, str(fault))

    def _count_refusal(self, key: Key, permit: Permit, refusal: Refusal) -> None:
        if refusal.code == "WRONGTYPE":
            self._answered(permit)
            self._count_broken(key)
        else:
            self.counters.faults += 1
            self._failed(permit, str(refusal))

    # The breaker, and who wants to know of it.

    def _admit(self, now_s: float) -> Permit | None:
        before = self._breaker.state
        permit = self._breaker.admit(now_s)
        if self._breaker.state is not before:
            self._tell("probing")
        return permit

    def _answered(self, permit: Permit) -> None:
        before = self._breaker.state
        self._breaker.answered(permit)
        if self._breaker.state is not before:
            self._tell("Redis answers again")

    def _failed(self, permit: Permit, why: str) -> None:
        before = self._breaker.state
        self._breaker.failed(permit, self._clock.monotonic())
        if self._breaker.state is not before:
            self._why = f"{self._breaker.faults_in_a_row} faults in a row; the last: {why}"
            self._tell(self._why)

    def _tell(self, why: str) -> None:
        if self._on_change is not None:
            self._on_change(self.state, why)

    # For operators.

    async def probe(self) -> Probe:
        """Looks at Redis once, on a connection of its own."""
        connections = Connections(self.address, 1, PROBE_TIMEOUT_S)
        asking = asyncio.create_task(self._probe(connections), name="probe Redis")
        try:
            return await asyncio.shield(asking)
        finally:
            await connections.close()
            await asyncio.wait([asking])

    async def _probe(self, connections: Connections) -> Probe:
        try:
            await connections.ask(("PING",), PROBE_TIMEOUT_S)
            began_s = self._clock.monotonic()
            await connections.ask(("PING",), PROBE_TIMEOUT_S)
            pong_ms = (self._clock.monotonic() - began_s) * 1000
        except (Unanswered, Refusal) as fault:
            return Probe(fault=str(fault))
        try:
            said = parse_info(await connections.ask(("INFO",), PROBE_TIMEOUT_S))
        except (Unanswered, Refusal) as fault:
            return Probe(pong_ms=pong_ms, fault=str(fault))
        limit = said.get("maxmemory", "")
        return Probe(
            said.get("valkey_version") or said.get("redis_version"),
            int(limit) if limit.isdigit() else None,
            said.get("maxmemory_policy"),
            pong_ms,
        )


class Look(Question):
    """One look for a record."""

    __slots__ = ("_of", "_then")

    def __init__(
        self,
        command: bytes,
        deadline_s: float,
        then: Callable[[Record | None], None],
        of: tuple[RedisTier, Key, Permit],
    ) -> None:
        self.command, self.deadline_s, self._then, self._of = command, deadline_s, then, of
        self.asked_again = self.over = False

    def answer(self, answer: Answer) -> None:
        """As any question; but the record is told, and what was lent of it is taken back."""
        if self.over:
            return
        self.over, record = True, None
        tier, key, permit = self._of
        try:
            if isinstance(answer, memoryview):
                record = tier.record(key, permit, answer)
            else:
                tier.no_value(key, permit, answer)
        finally:  # whoever waits goes on, even if we are wrong here
            self._then(record)
            if record is not None:
                record.audio.release()


def parse_info(reply: Reply) -> dict[str, str]:
    """The lines of INFO by name."""
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else ""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
