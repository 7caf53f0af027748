"""What each of several workers gets of what is configured for the daemon. Pure.

An operator says how much the daemon may hold, not each of its processes; so bounds on all of it are divided. Bounds on one
thing (a request, a rendering, a wait) are everyone's.
"""

import os
from dataclasses import replace
from typing import Literal

from edgecache.delivery.sheets import SHEETS_AT_MOST
from edgecache.settings import Settings

#: What a process needs besides connections of clients and to clusters: sockets it listens at, Redis, probes, files.
OWN_DESCRIPTORS = 48
#: A process that may have fewer keeps them for connections, and has no sheets.
FEW_DESCRIPTORS = 2048


def processes(workers: int | Literal["auto"]) -> int:
    """How many worker processes are meant. auto: one for each core that this process may run on."""
    return len(os.sched_getaffinity(0)) if workers == "auto" else workers


def portion(settings: Settings, workers: int) -> Settings:
    """The settings of each of so many workers."""
    if workers == 1:
        return settings
    memory, fills, limits = settings.cache.memory, settings.fills, settings.limits
    return replace(
        settings,
        cache=replace(settings.cache, memory=replace(memory, max_size_bytes=memory.max_size_bytes // workers)),
        fills=replace(
            fills,
            max_flights=_part(fills.max_flights, workers),
            max_held_bytes=max(fills.max_held_bytes // workers, fills.max_rendering_bytes),
        ),
        limits=replace(limits, connections=_part(limits.connections, workers)),
        fast_lane=replace(
            settings.fast_lane,
            memo_bytes=settings.fast_lane.memo_bytes // workers,
            sheets_bytes=settings.fast_lane.sheets_bytes // workers,
        ),
        pool=replace(
            settings.pool,
            max_connections=_part(settings.pool.max_connections, workers),
            max_per_host=_part(settings.pool.max_per_host, workers),
        ),
        clusters=tuple(replace(each, max_in_flight=_part(each.max_in_flight, workers)) for each in settings.clusters),
    )


def fitted(settings: Settings, descriptors: int) -> Settings:
    """The same with no more connections than a process has descriptors for, so that there is always one for a refusal."""
    towards_clusters = min(settings.pool.max_connections, max(1, descriptors // 4))
    few = descriptors < FEW_DESCRIPTORS
    own = OWN_DESCRIPTORS if few else OWN_DESCRIPTORS + SHEETS_AT_MOST
    of_clients = min(settings.limits.connections, max(1, descriptors - towards_clusters - own))
    return replace(
        settings,
        fast_lane=replace(settings.fast_lane, sheets_bytes=0) if few else settings.fast_lane,
        limits=replace(settings.limits, connections=of_clients),
        pool=replace(settings.pool, max_connections=towards_clusters),
    )


def _part(whole: int, workers: int) -> int:
    return max(1, -(-whole // workers))
