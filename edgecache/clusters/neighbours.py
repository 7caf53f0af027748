"""What upstreams are to each other: the room they share, and who is slow beside the others. Pure.

Keeps: nobody is asked whom there would be no connection for, so that whoever waits for one waits in the queue of fills, in
its order, and never at the switchboard, in that of coming. It does not know who is asked.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from edgecache.clusters.cluster import Pool, SelectionPolicy
from edgecache.clusters.member import Member

if TYPE_CHECKING:
    from edgecache.clusters.wire import Peer


def rooms(members: Collection[Member], leaving: Collection[Member], pool: Pool) -> Mapping[str, int]:
    """How many more requests each may be asked, by its name, for what it shares: its cluster, its host, all connections.

    leaving: upstreams that DNS knows no more, while they still speak.
    """
    by_cluster: Counter[str] = Counter()
    by_peer: Counter[Peer] = Counter()
    for each in (*members, *leaving):
        if each.in_flight:
            by_cluster[each.cluster.name] += each.in_flight
            by_peer[each.peer] += each.in_flight
    left = pool.max_connections - by_cluster.total()
    return {
        each.name: min(
            left, each.cluster.max_in_flight - by_cluster[each.cluster.name], pool.max_per_host - by_peer[each.peer]
        )
        for each in members
    }


def slow(members: Collection[Member], policy: SelectionPolicy, now: float) -> set[str]:
    """Who speaks far later than the quickest does."""
    known = {each.name: first_s for each in members if (first_s := each.first_audio.value(now))}
    least_s = min(known.values(), default=0.0)
    border_s = max(least_s * policy.slow_by, least_s + policy.slow_by_s)
    return {name for name, first_s in known.items() if first_s > border_s}
