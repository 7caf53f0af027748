"""Recordings in Redis looked at one after the other, to count or erase some: only for an operator who asks for just that.

Keeps rules 6 and 7: it is bounded in time, goes on where it ended, and has a connection of its own, so that nobody waits for
it. What it sees is not checked, and never served. It does not know which are wanted.
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from edgecache.cache.key import Key, Naming, is_key
from edgecache.cache.recording import Recording, glimpse
from edgecache.store import scripts
from edgecache.store.connections import Address, Argument, Connections, Refusal, Reply, Unanswered
from edgecache.store.scanning import step
from edgecache.store.tiers import RedisAccess

#: A recording's beginning, with its utterance and facts; without them it is looked at once more, further.
START_BYTES = 8 << 10
FURTHER_BYTES = 2 << 20
ANSWER_S = 1.0
#: The cursor behind the last key, as SCAN has it before the first.
_OVER = "0"


Ask = Callable[..., Awaitable[Reply]]


class Looked(msgspec.Struct, frozen=True):
    """What was seen of some recordings. cursor: where to go on; "0": that was all. fault: why it ended before."""

    cursor: str
    recordings: int
    found: int
    fault: str = ""


class Searching:
    """Of one Redis."""

    def __init__(self, url: str, access: RedisAccess, naming: Naming) -> None:
        self._access = access
        self._naming = naming
        self._address = Address(url, access.password)
        self._looking: set[asyncio.Task[Looked]] = set()

    async def some(
        self, cursor: str, wanted: Callable[[Recording], bool], within_s: float, *, erase: bool = False
    ) -> Looked:
        """Looks at recordings for so long. wanted: whether one is counted, or erased and counted; it has no audio."""
        work = self._look(cursor, wanted, within_s, erase=erase)
        looking = asyncio.create_task(work, name="look through Redis")
        self._looking.add(looking)
        looking.add_done_callback(self._looking.discard)
        return await asyncio.shield(looking)  # who asked may leave; questions to Redis are not cancelled

    async def close(self) -> None:
        """Waits for what is under way; it is short."""
        await asyncio.gather(*self._looking)

    async def _look(self, cursor: str, wanted: Callable[[Recording], bool], within_s: float, *, erase: bool) -> Looked:
        connections = Connections(self._address, 1, self._access.connect_timeout_s)
        now = asyncio.get_running_loop().time
        until_s, recordings, found = now() + within_s, 0, 0

        async def ask(*command: Argument) -> Reply:
            return await connections.ask(command, ANSWER_S)

        try:
            while True:
                further, names = await step(connections, self._naming, cursor, ANSWER_S)
                for key in (Key(each) for each in names if is_key(each)):
                    seen, start = await self._seen(ask, key)
                    recordings += seen is not None
                    if seen is not None and wanted(seen):
                        found += not erase or await self._erased(ask, key, start)
                cursor = further or _OVER
                if cursor == _OVER or now() > until_s:
                    break
        except (Unanswered, Refusal) as fault:
            return Looked(cursor, recordings, found, str(fault))
        finally:
            await connections.close()
        return Looked(cursor, recordings, found)

    async def _erased(self, ask: Ask, key: Key, start: bytes) -> bool:
        """Whether it was still there: what another node has written in its place meanwhile stays."""
        where = self._naming.redis_key(key)
        return await ask("EVAL", scripts.ERASE, 1, where, start, len(start) - 1) == 1

    async def _seen(self, ask: Ask, key: Key) -> tuple[Recording | None, bytes]:
        """What begins there, and the bytes that told it."""
        for size in (START_BYTES, FURTHER_BYTES):
            try:
                start = await ask("GETRANGE", self._naming.redis_key(key), 0, size - 1)
            except Refusal:  # no text: none of ours
                break
            if not isinstance(start, bytes) or not start:
                break  # evicted since
            seen = glimpse(key, start)
            if seen is not None or len(start) < size:
                return seen, start
        return None, b""
