"""All that may be configured, composed of what each part declares. `loading` reads, checks and shows it.

It does not know what YAML, the environment or a report look like, and it builds no part.
"""
# ruff: noqa: RUF009 - option() calls dataclasses.field(), which is what the rule asks for

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from edgecache.cache.key import Naming
from edgecache.cache.lookup import Freshness
from edgecache.clusters.cluster import (
    Cluster,
    FleetPolicies,
    HealthPolicy,
    Pool,
    Probing,
    SelectionPolicy,
    Timeouts,
)
from edgecache.clusters.routing import Route
from edgecache.delivery.auth import Auth
from edgecache.delivery.limits import FastLane, Listen, RequestLimits, WebSockets
from edgecache.fill.limits import FillLimits
from edgecache.fill.longform import LongText
from edgecache.ops.access import AdminAccess
from edgecache.ops.log import Logging
from edgecache.ops.objectives import Promises
from edgecache.ops.tracing import Tracing
from edgecache.option import option, required
from edgecache.store.tiers import MemoryLimits, RedisAccess


def _like(part: type[Any], name: str) -> Any:
    """The same option as in that part."""
    found = next(each for each in fields(part) if each.name == name)
    return field(default=found.default, metadata=found.metadata)


@dataclass(frozen=True, slots=True)
class NodeName:
    """Who this edge is."""

    name: str = option("edge", "What this edge is called in `Via`, `Cache-Status`, metrics and logs.")
    region: str | None = option(None, "Where it is; for people and metrics.")


@dataclass(frozen=True, slots=True)
class Cache:
    """What is kept, where, and for how long."""

    ttl_s: float = _like(Freshness, "ttl_s")
    stale_if_error_s: float = _like(Freshness, "stale_if_error_s")
    memory: MemoryLimits = option(MemoryLimits, "The memory tier: each worker has its part of it.")
    redis: RedisAccess = option(RedisAccess, "The region's shared tier. Never needed to speak.")
    key: Naming = option(Naming, "How recordings are named.")

    @property
    def freshness(self) -> Freshness:
        """How long a recording may be spoken."""
        return Freshness(self.ttl_s, self.stale_if_error_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of it."""

    node: NodeName = option(NodeName, "Who this edge is.")
    listen: Listen = option(Listen, "Where clients are served.")
    admin: AdminAccess = option(AdminAccess, "Where metrics and admin calls are served, and to whom.")
    workers: int | Literal["auto"] = option(
        1,
        "Processes that serve; auto: one for each core. Bounds on the whole daemon are divided among them.",
        minimum=1,
    )
    auth: Auth | None = option(None, "Who may ask. Absent: anyone, and then only loopback is served.")
    cache: Cache = option(Cache, "What is kept, where, and for how long.")
    clusters: tuple[Cluster, ...] = required(
        'The TTS clusters that are asked on a miss, such as `- {name: syd, url: "http://127.0.0.1:9001"}`.'
    )
    routes: tuple[Route, ...] = option(
        (), 'Where utterances may go at all, such as `- {name: eu-only, namespaces: ["key-acme"], groups: [eu]}`.'
    )
    timeouts: Timeouts = option(Timeouts, "How long a cluster may take.")
    pool: Pool = option(Pool, "Warm connections to clusters.")
    probing: Probing = option(Probing, "How the distance to clusters is measured.")
    health: HealthPolicy = option(HealthPolicy, "When a cluster is left alone, and for how long.")
    selection: SelectionPolicy = option(SelectionPolicy, "Which cluster is asked of those that are near and well.")
    fills: FillLimits = option(FillLimits, "Bounds on what is under way.")
    limits: RequestLimits = option(RequestLimits, "Bounds on what a client may send, and how slowly.")
    long_text: LongText = option(LongText, "When text is spoken sentence by sentence, and how.")
    fast_lane: FastLane = option(FastLane, "How hits are answered without delay.")
    websockets: WebSockets = option(WebSockets, "Sessions over WebSocket.")
    log: Logging = option(Logging, "What the daemon says of itself, on standard error.")
    slo: Promises = option(Promises, "What is promised, and when someone is to be told that it is not kept.")
    tracing: Tracing = option(Tracing, "Spans for OpenTelemetry.")
    drain_s: float = option(20.0, "How long streams may finish when the daemon stops.", minimum=0)

    @property
    def fleet(self) -> FleetPolicies:
        """How clusters are asked, measured, judged and chosen."""
        return FleetPolicies(self.timeouts, self.pool, self.probing, self.health, self.selection, self.routes)
