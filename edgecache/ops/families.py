"""Every metric there is: its name, what it is, its labels, and how those of several workers become one.

Keeps rules 7 and 8: a label is a word from a closed set (routes, methods, statuses, results, tiers, causes, reasons in the
code) or a name from the configuration (clusters, upstreams). Nothing that a client sends can become one.
"""

from dataclasses import dataclass
from enum import Enum

PREFIX = "edgecache_"


class Kind(Enum):
    """As Prometheus has them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(Enum):
    """How the workers' figures become the daemon's."""

    SUM = "sum"
    LARGEST = "largest"
    LEAST = "least"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. name: without the suffix `_total`, which counters have besides."""

    name: str
    kind: Kind
    doc: str
    labels: tuple[str, ...] = ()
    merge: Merge = Merge.SUM


def _counter(name: str, doc: str, *labels: str) -> Family:
    return Family(PREFIX + name, Kind.COUNTER, doc, labels)


def _gauge(name: str, doc: str, *labels: str, merge: Merge = Merge.SUM) -> Family:
    return Family(PREFIX + name, Kind.GAUGE, doc, labels, merge)


def _histogram(name: str, doc: str, *labels: str) -> Family:
    return Family(PREFIX + name, Kind.HISTOGRAM, doc, labels)


_KIND = ("route", "method", "code", "cache")
_STREAM = ("cluster", "cache")
_UPSTREAM = ("cluster", "upstream")
_PROMISE = ("slo", "subject")

_ALL = (
    _gauge("build_info", "Which version this is, on which Python.", "version", "python", merge=Merge.LARGEST),
    _gauge("workers", "Processes that serve."),
    _gauge("mode", "1 for the mode that the daemon is in: the gravest of its workers'.", "mode", merge=Merge.LARGEST),
    _gauge("mode_causes", "Workers that have a cause to be in a mode, whatever else they have.", "mode"),
    _gauge(
        "keys_last_reload_successful",
        "Whether the keys file was taken over when it was last read; 0: the keys from before hold.",
        merge=Merge.LEAST,
    ),
    # Requests.
    _counter("http_requests", "Exchanges that ended.", *_KIND),
    _counter("http_requests_broken", "Of these, the ones that the client was not given whole.", *_KIND),
    _counter("http_response_bytes", "Bytes of bodies that were sent.", "route", "cache"),
    _histogram(
        "http_time_to_first_byte_seconds", "From the request's head to the first byte of the body.", "route", "cache"
    ),
    _histogram("http_request_duration_seconds", "From the request's head to the last byte.", "route", "cache"),
    _gauge("http_requests_in_flight", "Requests that are being answered, but for hits of the fast lane.", "route"),
    _gauge("http_connections", "Client connections that are open."),
    _gauge("http_connections_limit", "How many there may be."),
    _histogram("connection_startup_seconds", "What a client waits for a connection, by whose part it is.", "part"),
    _counter("fast_lane_answers", "Requests answered without aiohttp."),
    # The cache.
    _counter("cache_requests", "Looks into a tier, by what came of them.", "tier", "result"),
    _counter("cache_evictions", "Recordings that left a tier, or were not taken, by why.", "tier", "reason"),
    _gauge("cache_entries", "Recordings that a tier holds.", "tier"),
    _gauge("cache_size_bytes", "What they weigh.", "tier"),
    _gauge("cache_capacity_bytes", "What they may weigh.", "tier"),
    _counter("cache_mismatches", "Recordings that were found and were not what was asked for: has to stay at 0."),
    _counter("cache_stale", "Recordings past their time that were served, as no cluster answered."),
    _counter("purges", "Purges that this daemon was asked for.", "scope", "kind"),
    _gauge("purges_standing", "Purges that what is found is judged by.", merge=Merge.LARGEST),
    _gauge("redis_up", "Whether Redis is asked.", merge=Merge.LEAST),
    _gauge("redis_pending_bytes", "What waits to be written to Redis."),
    # Fills.
    _counter("fills", "Fills that ended, by how.", "outcome"),
    _counter("fills_unstored", "Fills that were heard whole and not stored, by why.", "reason"),
    _counter("fill_joins", "Requests that joined a fill that was under way."),
    _counter(
        "fills_shed", "Fills that were refused at once, by why and by how urgent they were.", "reason", "priority"
    ),
    _counter("lease", "Leases asked for before a fill, by what came of it.", "result"),
    _gauge("fills_in_flight", "Fills under way."),
    _gauge("fill_held_bytes", "Bytes of renderings held for readers."),
    _counter("fill_retries", "Other clusters asked after one failed, or not, as the budget forbade it.", "result"),
    _counter("fill_hedges", "Clusters that were asked beside one that was late, by what came of it.", "result"),
    _gauge("fills_waiting", "Fills that wait for room at a cluster.", "priority"),
    _counter("fills_queued", "Fills that had to wait.", "priority"),
    _counter("fills_unplaced", "Fills that got no room, having waited or not, by why.", "reason"),
    # What was not bought.
    _counter("saved_syntheses", "Syntheses that need not be bought.", "cache"),
    _counter("saved_characters", "Their characters.", "cache"),
    _counter("saved_speech_seconds", "How long they speak.", "cache"),
    # Clusters.
    _histogram("cluster_first_audio_seconds", "From a fill's beginning to the cluster's first audio.", "cluster"),
    _histogram("cluster_time_to_first_byte_seconds", "What clients waited for the first byte of a stream.", *_STREAM),
    _histogram("cluster_connect_seconds", "To make a connection to a cluster: name, TCP and TLS.", "cluster"),
    _gauge("upstream_rtt_seconds", "The round trip to an upstream, as estimated.", *_UPSTREAM, merge=Merge.LEAST),
    _gauge("upstream_first_audio_seconds", "How soon it speaks, as estimated.", *_UPSTREAM, merge=Merge.LEAST),
    _gauge("upstream_share", "Its share of the next requests.", *_UPSTREAM, merge=Merge.LARGEST),
    _gauge("upstream_state", "1 for the state it is in.", *_UPSTREAM, "state", merge=Merge.LARGEST),
    _gauge("upstream_requests_in_flight", "Requests it is being asked.", *_UPSTREAM),
    _counter("upstream_requests", "Requests it was asked.", *_UPSTREAM),
    _counter("upstream_failures", "Of these, the ones that failed by its fault.", *_UPSTREAM),
    _counter("upstream_faults", "Requests that came to nothing there, by what went wrong.", *_UPSTREAM, "fault"),
    _histogram(
        "cluster_queue_wait_seconds", "How long fills waited for room, by the cluster that they got.", "cluster"
    ),
    # Streams, as imagined players hear them.
    _gauge("stream_connections", "Streams that are being told, and sessions over WebSocket.", "transport"),
    _counter("streams", "Streams of which it is known what a player would have heard.", *_STREAM),
    _histogram(
        "stream_jitter_seconds", "How long a player without a cushion waits for a piece, by cause.", *_STREAM, "cause"
    ),
    _counter("stream_underruns", "Streams in which a player with a cushion runs dry, by cause.", *_STREAM, "cause"),
    _counter("stream_gaps", "Its gaps, by cause.", *_STREAM, "cause"),
    _counter("stream_silence_seconds", "How long they last.", *_STREAM, "cause"),
    # Promises.
    _counter("slo_good", "Events within the target of an objective.", *_PROMISE),
    _counter("slo_events", "All its events.", *_PROMISE),
    _gauge("slo_target_ratio", "The share of events that has to be good.", "slo", merge=Merge.LARGEST),
    _gauge("slo_state", "1 for the state an objective is in.", *_PROMISE, "state", merge=Merge.LARGEST),
    # The process.
    _histogram("event_loop_lag_seconds", "How late the event loop is."),
    _gauge("asyncio_tasks", "Tasks that are under way in the event loops."),
    Family("process_cpu_seconds", Kind.COUNTER, "Processor time of all workers, user and system."),
    Family("process_resident_memory_bytes", Kind.GAUGE, "Memory of all workers that is in RAM."),
    Family("process_open_fds", Kind.GAUGE, "Descriptors that the workers have open."),
    Family("process_max_fds", Kind.GAUGE, "How many one may have open.", merge=Merge.LEAST),
    Family("process_start_time_seconds", Kind.GAUGE, "When the oldest worker began.", merge=Merge.LEAST),
)

FAMILIES = {family.name: family for family in _ALL}


def reference() -> str:
    """Every metric in a row, for the documentation."""
    rows = ["| metric | kind | labels | what it is |", "|---|---|---|---|"]
    for family in _ALL:
        name = family.name + ("_total" if family.kind is Kind.COUNTER else "")
        labels = ", ".join(f"`{label}`" for label in family.labels)
        rows.append(f"| `{name}` | {family.kind.value} | {labels} | {family.doc} |")
    return "\n".join(rows) + "\n"
