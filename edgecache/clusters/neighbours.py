"""What upstreams are to each other: the room they share, and who is slow beside the others. Pure.

Keeps: nobody is asked whom there would be no connection for, so that whoever waits for one waits in the queue of fills, in
its order, and never at the switchboard, in that of coming. It does not know who is asked.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from edgecache.clusters.cluster import Pool, SelectionPolicy
from edgecache.clusters.member import Member

if TYPE_CHECKING:
    from edgecache.clusters.wire import Peer


class Loads:
    """How many requests are under way: in all, by cluster, and by whom connections are to."""

    __slots__ = ("_by_cluster", "_by_peer", "_in_all", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._in_all = 0
        self._by_cluster: dict[str, int] = {}
        self._by_peer: dict[Peer, int] = {}

    def __repr__(self) -> str:
        return f"<Loads {self._in_all} under way>"

    def enter(self, member: Member) -> None:
        """One more is asked of this one."""
        self._count(member, 1)

    def leave(self, member: Member) -> None:
        """It is over. Also of one that DNS knows no more by then."""
        self._count(member, -1)
        if not self._by_peer[member.peer]:
            del self._by_peer[member.peer]

    def _count(self, member: Member, by: int) -> None:
        member.in_flight += by
        self._in_all += by
        name, peer = member.cluster.name, member.peer
        self._by_cluster[name] = self._by_cluster.get(name, 0) + by
        self._by_peer[peer] = self._by_peer.get(peer, 0) + by

    def room(self, member: Member) -> int:
        """How many more it may be asked for what it shares: its cluster, its host, all connections."""
        pool, cluster = self._pool, member.cluster
        left = pool.max_connections - self._in_all
        of_cluster = cluster.max_in_flight - self._by_cluster.get(cluster.name, 0)
        of_peer = pool.max_per_host - self._by_peer.get(member.peer, 0)
        return min(left, of_cluster, of_peer)


def slow(members: Collection[Member], policy: SelectionPolicy, now: float) -> set[str]:
    """Who speaks far later than the quickest does."""
    if len(members) < 2:
        return set()
    known = {each.name: first_s for each in members if (first_s := each.first_audio.value(now))}
    least_s = min(known.values(), default=0.0)
    border_s = max(least_s * policy.slow_by, least_s + policy.slow_by_s)
    return {name for name, first_s in known.items() if first_s > border_s}
