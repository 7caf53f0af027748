"""How often the memory tier hits, beside LRU with the same budget, on requests like those of a voice product.

The trace: recordings of 8 to 120 KiB asked for by a Zipf law, and between them one-hit wonders that are never asked for
again. Run it with `python -m bench.hit_ratio`, or with `--json` for programs. The seed makes it the same every time.
"""

import argparse
import bisect
import itertools
import json
import random
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from edgecache.cache.key import Key
from edgecache.cache.recording import Facts, Recording
from edgecache.store.memory import MemoryTier
from edgecache.store.tiers import MemoryLimits

FACTS = Facts("audio/wav", "wav", 1000, 24_000, 1, 0.0, 0.0, 0.0, "bench", "")
#: 8 to 120 KiB; shared, so that the trace itself needs little memory.
AUDIO = [bytes(kibibytes << 10) for kibibytes in range(8, 121)]
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Trace:
    """What is asked for. wonders: the part of requests that is never heard again. exponent: of the Zipf law."""

    requests: int = 100_000
    utterances: int = 5_000
    exponent: float = 0.9
    wonders: float = 0.3
    seed: int = 20_231

    def recordings(self) -> Iterator[Recording]:
        """One recording for each request; the same one for the same utterance."""
        chance = random.Random(self.seed)
        weights = list(itertools.accumulate(1 / rank**self.exponent for rank in range(1, self.utterances + 1)))
        known = [_recording(f"{n}", chance) for n in range(self.utterances)]
        for n in range(self.requests):
            if chance.random() < self.wonders:
                yield _recording(f"wonder {n}", chance)
            else:
                yield known[bisect.bisect(weights, chance.random() * weights[-1])]


class Lru:
    """The cache that everyone has: what was asked for longest ago leaves."""

    def __init__(self, max_size_bytes: int) -> None:
        self.max_size_bytes = max_size_bytes
        self.held_bytes = 0
        self._held: OrderedDict[Key, Recording] = OrderedDict()

    def get(self, key: Key) -> Recording | None:
        """The recording under this key."""
        found = self._held.get(key)
        if found is not None:
            self._held.move_to_end(key)
        return found

    def put(self, recording: Recording) -> None:
        """Hold this recording."""
        self._held[recording.key] = recording
        self.held_bytes += recording.size_bytes
        while self.held_bytes > self.max_size_bytes:
            self.held_bytes -= self._held.popitem(last=False)[1].size_bytes


@dataclass(frozen=True, slots=True)
class Ratios:
    """The part of requests that hit. budget: the tier's, as a part of all recordings that are asked for twice."""

    budget: float
    memory_tier: float
    lru: float


def measure(trace: Trace, budget: float) -> Ratios:
    """Both caches on one trace."""
    limit = int(budget * trace.utterances * (64 << 10))
    tier, lru = MemoryTier(MemoryLimits(limit)), Lru(limit)
    tier_hits = lru_hits = 0
    for recording in trace.recordings():
        if tier.get(recording.key, 0.0) is not None:
            tier_hits += 1
        else:
            tier.put(recording, FOREVER, 0.0)
        if lru.get(recording.key) is not None:
            lru_hits += 1
        else:
            lru.put(recording)
    return Ratios(budget, tier_hits / trace.requests, lru_hits / trace.requests)


def _recording(name: str, chance: random.Random) -> Recording:
    return Recording(Key(name), "", b"", FACTS, chance.choice(AUDIO))


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.hit_ratio", description="Hit ratio of the memory tier beside LRU"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--requests", type=int, default=Trace().requests, help="length of the trace")
    asked = parser.parse_args()
    trace = Trace(requests=asked.requests)
    rows = [measure(trace, budget) for budget in (0.01, 0.05, 0.10, 0.25, 0.50)]
    if asked.json:
        print(json.dumps({"trace": asdict(trace), "rows": [asdict(row) for row in rows]}, indent=2))
        return
    print(f"{trace.requests} requests, {trace.utterances} utterances (Zipf {trace.exponent}), ", end="")
    print(f"{trace.wonders:.0%} one-hit wonders, seed {trace.seed}")
    print(f"{'budget':>8} {'S3-FIFO':>9} {'LRU':>9} {'ratio':>7}")
    for row in rows:
        print(f"{row.budget:8.0%} {row.memory_tier:9.1%} {row.lru:9.1%} {row.memory_tier / row.lru:7.2f}")


if __name__ == "__main__":
    main()
