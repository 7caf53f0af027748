"""What is still to be written to Redis, and the one task that writes it: behind the answer, never before it.

Keeps rules 6 and 7: who puts never waits; what waits is bounded in bytes, and beyond that bound dropped and counted. There
is one waiting write for a key, the latest, and one writer: so a purge can't be overtaken by what it purges. It does not
know reads, tiers or freshness.

A write that fails is dropped and counted, for a cache can lose it; a discard that got no answer is tried again, for a
purge must not be lost. After any failure nothing is written for a moment.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from edgecache.cache.key import Key, Naming
from edgecache.cache.recording import Recording, frame
from edgecache.clock import Clock
from edgecache.store.connections import Argument, Connections, Refusal, Unanswered
from edgecache.store.tiers import RedisAccess

#: What a waiting discard is counted as; also so much may wait beyond the bound, so that a purge finds room.
DISCARD_BYTES = 256
DISCARD_ROOM_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Write:
    """What Redis shall hold under a key; None: nothing. expires_s: on the clock's monotonic time."""

    recording: Recording | None
    expires_s: float

    @property
    def size_bytes(self) -> int:
        """What it counts for while it waits."""
        return DISCARD_BYTES if self.recording is None else self.recording.size_bytes


@dataclass(slots=True)
class WriteCounters:
    """What has happened so far."""

    written: int = 0
    dropped_writes: int = 0
    failed_writes: int = 0


class WriteBehind:
    """The queue and its writer."""

    def __init__(self, access: RedisAccess, naming: Naming, clock: Clock, connections: Connections) -> None:
        self._access = access
        self._naming = naming
        self._clock = clock
        self._connections = connections
        self._pending: dict[Key, Write] = {}
        self._writing: tuple[Key, Write] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._watched: dict[Key, list[asyncio.Future[None]]] = {}
        self._drained = asyncio.Event()
        self._drained.set()
        self._closing = asyncio.Event()
        self.pending_bytes = 0
        self.counters = WriteCounters()
        self.last_failure = ""

    def __repr__(self) -> str:
        return f"<WriteBehind {len(self._pending)} waiting, {self.pending_bytes} bytes>"

    def start(self) -> None:
        """Begins to write."""
        self._writer = asyncio.create_task(self._write_all(), name="write to Redis")

    async def flush(self, timeout_s: float) -> bool:
        """Waits until nothing waits to be written; False: it took too long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._drained.wait(), timeout_s)
        return self._drained.is_set()

    async def close(self) -> None:
        """Stops. Close the connections first: that ends a write under way."""
        self._closing.set()
        self._wake.set()
        if self._writer is not None:
            await self._writer
        self.counters.dropped_writes += len(self._pending)
        self._pending.clear()
        self.pending_bytes = 0
        for key in list(self._watched):
            self._tell_watchers(key)

    def put(self, recording: Recording, lifetime_s: float) -> bool:
        """Write this recording soon. False: too much waits already."""
        room_bytes = self._access.max_pending_bytes
        return self._add(recording.key, Write(recording, self._clock.monotonic() + lifetime_s), room_bytes)

    def discard(self, key: Key) -> bool:
        """Delete what is under this key soon. False: too much waits already."""
        return self._add(key, Write(None, 0.0), self._access.max_pending_bytes + DISCARD_ROOM_BYTES)

    def waiting(self, key: Key) -> Write | None:
        """What Redis is yet to be told about this key, which is newer than what it would answer."""
        pending = self._pending.get(key)
        if pending is None and self._writing is not None and self._writing[0] == key:
            return self._writing[1]
        return pending

    async def written(self, key: Key) -> None:
        """Waits until nothing waits to be written under this key, or never will be."""
        while self.waiting(key) is not None and not self._closing.is_set():
            watch: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._watched.setdefault(key, []).append(watch)
            await watch

    def _tell_watchers(self, key: Key) -> None:
        for watch in self._watched.pop(key, []):
            if not watch.done():
                watch.set_result(None)

    def _add(self, key: Key, write: Write, room_bytes: int) -> bool:
        before = self._pending.get(key)
        more_bytes = write.size_bytes - (0 if before is None else before.size_bytes)
        if self._closing.is_set() or self.pending_bytes + more_bytes > room_bytes:
            self.counters.dropped_writes += 1
            return False
        self._pending[key] = write
        self.pending_bytes += more_bytes
        self._drained.clear()
        self._wake.set()
        return True

    async def _write_all(self) -> None:
        while not self._closing.is_set():
            if not self._pending:
                self._drained.set()
                self._wake.clear()
                await self._wake.wait()
                continue
            key = next(iter(self._pending))
            self._writing = key, self._pending.pop(key)
            if not await self._write(*self._writing):
                await self._pause()

    async def _write(self, key: Key, write: Write) -> bool:
        """Whether to go straight on."""
        try:
            command = self._command(key, write)
            if command is not None:
                await self._connections.ask(command, self._access.write_timeout_s)
                self.counters.written += 1
        except (Unanswered, Refusal) as failure:
            self.last_failure = str(failure)
            if write.recording is None and isinstance(failure, Unanswered) and not self._closing.is_set():
                self._pending.setdefault(key, write)
                self.pending_bytes += write.size_bytes if self._pending[key] is write else 0
            else:
                self.counters.failed_writes += 1
            return False
        finally:
            self._writing = None
            self.pending_bytes -= write.size_bytes
            self._tell_watchers(key)
        return True

    def _command(self, key: Key, write: Write) -> tuple[Argument, ...] | None:
        where = self._naming.redis_key(key)
        if write.recording is None:
            return "DEL", where
        left_ms = int((write.expires_s - self._clock.monotonic()) * 1000)
        return ("SET", where, frame(write.recording), "PX", left_ms) if left_ms > 0 else None

    async def _pause(self) -> None:
        """A Redis that is full or gone is not helped by more writes."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), self._access.breaker_open_s)
