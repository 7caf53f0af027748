"""Memory and Redis as two dicts that tell what was asked of them, and wait where they are told to."""

from dataclasses import dataclass, field

from edgecache.cache.key import Key
from edgecache.cache.recording import Recording
from tests.scripted_clusters import Barrier


@dataclass
class ScriptedTiers:
    """See `fill.edge.Tiers`. calls: what was asked, in order. barrier: waited at by every look into Redis."""

    shared: bool = True
    memory: dict[Key, Recording] = field(default_factory=dict)
    redis: dict[Key, Recording] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    barrier: Barrier | None = None

    def peek(self, key: Key) -> Recording | None:
        self.calls.append("peek")
        return self.memory.get(key)

    def look(self, key: Key) -> Recording | None:
        self.calls.append("look")
        return self.memory.get(key)

    async def find(self, key: Key, *, backfill: bool = True) -> Recording | None:
        self.calls.append("find" if backfill else "find without backfill")
        if self.barrier is not None:
            await self.barrier.passed()
        found = self.redis.get(key)
        if found is not None and backfill:
            self.memory[key] = found
        return found

    def keep(self, recording: Recording) -> None:
        self.memory[recording.key] = self.redis[recording.key] = recording
