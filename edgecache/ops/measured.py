"""What one worker counts, put together from what its parts count anyhow, when somebody asks.

It copies numbers and decides nothing: no part knows that there are metrics, and nothing here is on any request's way.
"""

import os
import resource
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import version
from itertools import product
from typing import Protocol

from edgecache.cache.purges import Kind, Scope
from edgecache.cache.status import Result
from edgecache.cache.tally import Count, Listened, Tally
from edgecache.clusters.member import UpstreamStatus
from edgecache.fill.fills import Fills
from edgecache.fill.priority import Priority
from edgecache.fill.shedding import Reason
from edgecache.measures.ladder import Spread
from edgecache.ops.families import PREFIX
from edgecache.ops.gathering import Counted
from edgecache.ops.modes import Mode

_BEGAN_S = time.time()
#: To look it up reads files, which takes long enough for hits to notice.
_VERSION = version("edgecache")
_STATES = ("up", "trial", "ejected")


class MemoryCounters(Protocol):
    """See `store.memory`."""

    hits: int
    misses: int
    evicted: int
    expired: int
    refused: int
    purged: int


class Memory(Protocol):
    """The first tier."""

    held_bytes: int
    max_size_bytes: int

    @property
    def counters(self) -> MemoryCounters: ...
    def __len__(self) -> int: ...


class Book:
    """One worker's counts being written down."""

    def __init__(self) -> None:
        self.counted = Counted()

    def _add(self, name: str, figure: "float | Spread", *labels: str) -> None:
        self.counted.add(PREFIX + name, figure, *labels)

    def requests(self, tally: Tally) -> None:
        """Exchanges and streams."""
        for count in tally:
            if count.exchanges:
                self._requests(count)
        for route, many in tally.under_way.items():
            self._add("http_requests_in_flight", many, route)
        for (result, cluster), listened in tally.listened.items():
            self._streams(listened, cluster, result.value)

    def _requests(self, count: Count) -> None:
        route, method, status, result = count.kind
        kind, cache = (route, method, str(status), result.value), result.value
        self._add("http_requests", count.exchanges, *kind)
        self._add("http_requests_broken", count.broken, *kind)
        self._add("http_response_bytes", count.sent_bytes, route, cache)
        if result is not Result.NONE:
            self._add("http_time_to_first_byte_seconds", count.first_byte, route, cache)
            self._add("http_request_duration_seconds", count.last_byte, route, cache)
        if count.saved:
            self._add("saved_syntheses", count.saved, cache)
            self._add("saved_characters", count.saved_characters, cache)
            self._add("saved_speech_seconds", count.saved_ms / 1000, cache)

    def _streams(self, listened: Listened, cluster: str, cache: str) -> None:
        self._add("cluster_time_to_first_byte_seconds", listened.first_byte, cluster, cache)
        self._add("cluster_first_audio_seconds", listened.first_audio, cluster)
        self._add("streams", listened.played, cluster, cache)
        on_time = Spread()
        on_time.buckets[0] = listened.in_time
        self._add("stream_jitter_seconds", on_time, cluster, cache, "none")
        for cause, spread in listened.jitter.items():
            self._add("stream_jitter_seconds", spread, cluster, cache, cause.value)
        for cause, streams in listened.dry.items():
            self._add("stream_underruns", streams, cluster, cache, cause.value)
        for cause, gaps in listened.gaps.items():
            self._add("stream_gaps", gaps, cluster, cache, cause.value)
        for cause, seconds in listened.silent_s.items():
            self._add("stream_silence_seconds", seconds, cluster, cache, cause.value)

    def memory(self, memory: Memory) -> None:
        """The first tier."""
        counters, tier = memory.counters, "memory"
        self._add("cache_requests", counters.hits, tier, "hit")
        self._add("cache_requests", counters.misses, tier, "miss")
        for reason in ("evicted", "expired", "refused", "purged"):
            self._add("cache_evictions", getattr(counters, reason), tier, reason)
        self._add("cache_entries", len(memory), tier)
        self._add("cache_size_bytes", memory.held_bytes, tier)
        self._add("cache_capacity_bytes", memory.max_size_bytes, tier)

    def redis(self, told: Mapping[str, object]) -> None:
        """The second tier, as its own status tells it."""
        results = {"hits": "hit", "misses": "miss", "timeouts": "timeout", "faults": "fault"}
        for name, result in {**results, "broken_records": "broken", "skipped": "skipped"}.items():
            self._add("cache_requests", _number(told.get(name)), "redis", result)
        self._add("redis_up", float(told.get("state") == "closed"))
        self._add("redis_pending_bytes", _number(told.get("pending_bytes")))

    def purges(self, given: Mapping[tuple[Scope, Kind], int], standing: int) -> None:
        """What was purged. given: how often."""
        for (scope, kind), many in given.items():
            self._add("purges", many, scope.value, kind.value)
        self._add("purges_standing", standing)

    def fills(self, fills: Fills) -> None:
        """What was asked of clusters for those who waited."""
        unstored = sum(fills.unstored.values())
        outcomes = {"sealed": fills.sealed, "unstored": unstored, "broken": fills.broken, "refused": fills.refused}
        for outcome, many in outcomes.items():
            self._add("fills", many, outcome)
        for reason, many in fills.unstored.items():
            self._add("fills_unstored", many, reason)
        for why, priority in product(Reason, Priority):
            self._add("fills_shed", fills.shedding.refused[why, priority], why.value, priority.word)
        self._asking(fills)
        self._add("fill_joins", fills.joined)
        for result, many in fills.leases.items():
            self._add("lease", many, result)
        self._add("fills_in_flight", fills.under_way)
        self._add("fill_held_bytes", fills.held_bytes)

    def _asking(self, fills: Fills) -> None:
        """What was asked again and beside, and who waited for room."""
        asking, admission = fills.asking, fills.admission
        for result, many in (("made", asking.retried), ("refused", asking.retries.refused)):
            self._add("fill_retries", many, result)
        hedges = {"made": asking.hedged, "won": asking.hedge_wins, "refused": asking.hedges.refused}
        for result, many in hedges.items():
            self._add("fill_hedges", many, result)
        for priority in Priority:
            self._add("fills_waiting", admission.waiting[priority.word], priority.word)
            self._add("fills_queued", admission.queued[priority.word], priority.word)
        for reason, many in (("sent_away", admission.sent_away), ("gave_up", admission.gave_up)):
            self._add("fills_unplaced", many, reason)
        for cluster, spread in admission.waits.items():
            self._add("cluster_queue_wait_seconds", spread, cluster)

    def clusters(self, upstreams: Iterable[UpstreamStatus], connects: Mapping[str, Spread]) -> None:
        """Every upstream; connects: how long connections took to make, by cluster."""
        for each in upstreams:
            labels = (each.cluster, each.name)
            for name, milliseconds in (("rtt", each.rtt_ms), ("first_audio", each.first_audio_ms)):
                if milliseconds is not None:
                    self._add(f"upstream_{name}_seconds", milliseconds / 1000, *labels)
            self._add("upstream_share", each.share, *labels)
            for state in (*_STATES, "drained"):
                now = "drained" if each.drained else each.state
                self._add("upstream_state", float(state == now), *labels, state)
            self._add("upstream_requests_in_flight", each.in_flight, *labels)
            self._add("upstream_requests", each.chosen, *labels)
            self._add("upstream_failures", each.failures, *labels)
            for fault, many in each.faults.items():
                self._add("upstream_faults", many, *labels, fault)
        for cluster, spread in connects.items():
            self._add("cluster_connect_seconds", spread, cluster)

    def streams(self, streaming: Mapping[str, int], sessions: int) -> None:
        """Streams under way, by how they are told."""
        for way, transport in (("raw", "http"), ("events", "sse"), ("protobuf", "protobuf")):
            self._add("stream_connections", streaming.get(way, 0), transport)
        self._add("stream_connections", sessions, "ws")

    def connections(self, many: int, limit: int, startup: Mapping[str, Spread]) -> None:
        """Clients; startup: how long they waited for a connection, by whose part it is."""
        self._add("http_connections", many)
        self._add("http_connections_limit", limit)
        for part, spread in startup.items():
            self._add("connection_startup_seconds", spread, part)

    def node(self, lag: Spread, answered: int, mismatches: int, stale: int) -> None:
        """What is the whole worker's. answered: by the fast lane."""
        self._add("build_info", 1.0, _VERSION, f"{sys.version_info.major}.{sys.version_info.minor}")
        self._add("workers", 1.0)
        self._add("event_loop_lag_seconds", lag)
        self._add("fast_lane_answers", answered)
        self._add("cache_mismatches", mismatches)
        self._add("cache_stale", stale)

    def standing(self, now: Mode, causes: Collection[Mode]) -> None:
        """In which mode this worker is, and what else it has cause to be."""
        for mode in Mode:
            self._add("mode", float(mode is now), mode.value)
            self._add("mode_causes", float(mode in causes), mode.value)

    def keys(self, fault: str) -> None:
        """Who may ask. fault: why a keys file was not taken over."""
        self._add("keys_last_reload_successful", float(not fault))

    def process(self, tasks: int) -> None:
        """What the system says of this process; on systems without /proc a part of it. tasks: of its event loop."""
        self._add("asyncio_tasks", tasks)
        used = resource.getrusage(resource.RUSAGE_SELF)
        add = self.counted.add
        add("process_cpu_seconds", used.ru_utime + used.ru_stime)
        add("process_start_time_seconds", _BEGAN_S)
        add("process_max_fds", float(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
        try:
            with open("/proc/self/statm", encoding="ascii") as statm:
                pages = int(statm.read().split()[1])
            # Since Linux 6.2 the size of the directory is their number; counting ten thousand would take milliseconds.
            open_fds = os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
        except OSError:
            return
        add("process_resident_memory_bytes", float(pages * os.sysconf("SC_PAGE_SIZE")))
        add("process_open_fds", float(open_fds))


def _number(told: object) -> float:
    return float(told) if isinstance(told, int | float) else 0.0
