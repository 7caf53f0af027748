"""Which upstreams a cluster has: one for each base URL, and one for each address where a name has several. Pure.

Keeps: a name that has one address, or none that is known, is one upstream, wherever it is found; one with several is as
many, each measured, judged and chosen by itself; and who is in DNS under two families is not two. It does not know DNS.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgecache.clusters import wire
from edgecache.clusters.cluster import Cluster
from edgecache.clusters.resolving import Address, literal

#: What is known of a name and a port.
Known = Callable[[str, int], Sequence[Address]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One upstream to be. address: where to connect; None: wherever the URL's host is found."""

    name: str
    cluster: Cluster
    url: str
    address: str | None = None


def names(clusters: Sequence[Cluster]) -> list[tuple[str, int]]:
    """Every host and port that DNS has to be asked for."""
    peers = (wire.target(url).peer for cluster in clusters for url in cluster.addresses)
    return list(dict.fromkeys((each.host, each.port) for each in peers if not literal(each.host)))


def entries(cluster: Cluster, known: Known) -> list[Entry]:
    """The cluster's upstreams as things stand, in the operator's order and then in that of DNS."""
    urls = cluster.addresses
    told: list[Entry] = []
    for number, url in enumerate(urls):
        name = cluster.name if len(urls) == 1 else f"{cluster.name}/{number}"
        peer = wire.target(url).peer
        hosts = [] if literal(peer.host) else _favourites(known(peer.host, peer.port))
        if len(hosts) > 1:
            told += [Entry(f"{name}@{host}", cluster, url, host) for host in hosts]
        else:
            told.append(Entry(name, cluster, url))
    return told


def _favourites(addresses: Sequence[Address]) -> list[str]:
    """Those of the family that the system puts first, in an order that does not change with each answer."""
    by_family = [each.host for each in addresses if (":" in each.host) == (":" in addresses[0].host)]
    return sorted(dict.fromkeys(by_family))
