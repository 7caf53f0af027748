"""What the operator says of a cluster, and of how clusters are asked."""

from dataclasses import dataclass, field
from typing import Literal

from edgecache.clusters.routing import Route
from edgecache.option import option, required


@dataclass(frozen=True, slots=True)
class Cluster:
    """One TTS deployment: upstreams chosen together."""

    name: str = required("What it is called in metrics, logs and Cache-Status.")
    url: str | None = option(None, "Its base URL, as http://host:port or https://host.")
    urls: tuple[str, ...] = option((), "Several base URLs of the same cluster, instead of `url`.")
    dialect: str = option("speeko", "The wire API it speaks.")
    api_key: str | None = option(None, "What it is asked with.", secret=True)
    max_in_flight: int = option(64, "How many requests it is asked at once.", minimum=1)
    groups: tuple[str, ...] = option((), "Groups it is in, such as `eu`; `routes` go by them.")
    weight: float = option(
        1.0, "Its share among clusters that are as near: twice the weight, twice as much.", minimum=0.01
    )
    drained: bool = option(False, "Takes no new requests from the start; `edgecache clusters --drain` does it later.")

    @property
    def addresses(self) -> tuple[str, ...]:
        """All its base URLs, without a trailing slash."""
        return tuple(each.rstrip("/") for each in ((self.url,) if self.url else ()) + self.urls)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a cluster may take."""

    connect_s: float = option(0.5, "To connect (and shake hands).", minimum=0.01)
    first_byte_s: float = option(5.0, "From the request to the first byte of audio.", minimum=0.01)
    between_bytes_s: float = option(5.0, "Between two reads of the body.", minimum=0.01)
    total_s: float = option(120.0, "For the whole body.", minimum=0.1)


@dataclass(frozen=True, slots=True)
class Pool:
    """Warm connections to clusters."""

    max_connections: int = option(100, "In all.", minimum=1)
    max_per_host: int = option(30, "To one host and port.", minimum=1)
    dns_ttl_s: float = option(300.0, "How long a DNS answer is kept.", minimum=0)
    allow_networks: tuple[str, ...] = option(
        (),
        "Networks, such as 127.0.0.0/8, that names of clusters may lead to though they are loopback, link-local or a "
        "metadata service's; else such addresses are refused, unless the URL itself says the address, or localhost.",
    )
    keep_alive_s: float = option(60.0, "How long an idle connection is kept.", minimum=0)


@dataclass(frozen=True, slots=True)
class Probing:
    """How the distance to clusters is measured."""

    path: str = option("/healthz", "What is asked for; any answer below 500 counts.")
    measure: Literal["tcp", "answer"] = option(
        "tcp",
        "tcp: the round trip as TCP itself measured it, where the platform tells; answer: until the answer to a probe. "
        "With a proxy or balancer between, TCP's is only the way to that.",
    )
    interval_s: float = option(2.0, "Between two probes of one upstream.", minimum=0.05)
    timeout_s: float = option(2.0, "For one probe.", minimum=0.01)
    per_second: float = option(
        20.0, "Probes of all upstreams in a second; with more upstreams each waits longer.", minimum=0.1
    )
    idle_factor: float = option(4.0, "So much rarer are probes of upstreams that are far away and not used.", minimum=1)


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """When a cluster is left alone, and for how long."""

    failures: int = option(3, "Failures in a row after which it is ejected.", minimum=1)
    error_rate: float = option(
        0.5,
        "The share of requests that fail, of late, from which on it is ejected too; 1: never.",
        minimum=0.01,
        maximum=1,
    )
    error_requests: int = option(10, "So many requests it takes, of late, to tell that share.", minimum=1)
    error_window_s: float = option(10.0, "What is of late: what is this long ago counts for a third.", minimum=0.1)
    max_ejected: float = option(
        0.5, "The share of all upstreams that the error rate may have ejected at once.", minimum=0, maximum=1
    )
    ejected_s: float = option(2.0, "How long, the first time; doubles each time it fails again.", minimum=0.05)
    ejected_max_s: float = option(60.0, "How long at the most.", minimum=0.05)
    slow_start_s: float = option(
        10.0, "How long one that comes back is given less than its share: from a tenth, growing.", minimum=0
    )


@dataclass(frozen=True, slots=True)
class SelectionPolicy:
    """When a nearer cluster takes over, and which are as good as near."""

    better_by: float = option(0.15, "A cluster takes over when its RTT is this share smaller ...", minimum=0)
    better_by_s: float = option(0.002, "... and smaller by at least this much.", minimum=0)
    slow_by: float = option(
        3.0, "One is passed over whose first audio takes so many times that of the quickest ...", minimum=1
    )
    slow_by_s: float = option(0.5, "... and so much longer.", minimum=0)


@dataclass(frozen=True, slots=True)
class FleetPolicies:
    """How clusters are asked, measured, judged and chosen."""

    timeouts: Timeouts = field(default_factory=Timeouts)
    pool: Pool = field(default_factory=Pool)
    probing: Probing = field(default_factory=Probing)
    health: HealthPolicy = field(default_factory=HealthPolicy)
    selection: SelectionPolicy = field(default_factory=SelectionPolicy)
    routes: tuple[Route, ...] = ()
