"""One upstream of the fleet: how far it is, how well, how much it has to do, and how it is told to an operator. Pure.

It does not know the others: whether it is slow *for a cluster* is handed in, and who is asked is `selection`'s to say.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from edgecache.clusters.cluster import Cluster, HealthPolicy
from edgecache.clusters.estimate import Estimate
from edgecache.clusters.fault import Fault
from edgecache.clusters.health import Health, State
from edgecache.clusters.recent import Recent
from edgecache.clusters.selection import Candidate
from edgecache.clusters.wire import Peer, target

#: What is heard of an upstream while it speaks is believed for so long: fills may be rare.
HEARD_STALE_S = 300.0


@dataclass(frozen=True, slots=True)
class UpstreamStatus:
    """One upstream as an operator sees it. None: not measured. share: of the next requests, as things stand.

    faults: requests that came to nothing, by what went wrong; also those that are not its failures, as when it was busy.
    """

    name: str
    cluster: str
    url: str
    groups: tuple[str, ...]
    state: str
    drained: bool
    current: bool
    why: str
    share: float
    rtt_ms: float | None
    rtt_spread_ms: float | None
    first_byte_ms: float | None
    first_audio_ms: float | None
    real_time_factor: float | None
    error_rate: float
    warmth: float
    in_flight: int
    max_in_flight: int
    chosen: int
    failures: int
    faults: Mapping[str, int]
    back_in_s: float
    last_fault: str

    def told(self) -> Mapping[str, object]:
        """The same as a mapping, for JSON."""
        return asdict(self)


@dataclass(slots=True, eq=False)
class Member:
    """One upstream: one base URL of a cluster.

    address: where to connect; None: wherever the URL's host is found. most: how many requests it may be asked at once.
    """

    name: str
    cluster: Cluster
    url: str
    address: str | None
    most: int
    policy: HealthPolicy
    rtt: Estimate
    first_byte: Estimate = field(default_factory=lambda: Estimate(HEARD_STALE_S))
    first_audio: Estimate = field(default_factory=lambda: Estimate(HEARD_STALE_S))
    real_time_factor: Estimate = field(default_factory=lambda: Estimate(HEARD_STALE_S))
    #: The same first audio, for telling when it is late.
    lately: Recent = field(default_factory=lambda: Recent(HEARD_STALE_S))
    health: Health = field(init=False)
    state: State = State.UP  # as it was last reported
    drained: bool = False
    in_flight: int = 0
    chosen: int = 0
    failures: int = 0
    faults: Counter[Fault] = field(default_factory=Counter)
    last_fault: str = ""
    answered: bool = False
    #: Whom its connections are to.
    peer: Peer = field(init=False)

    def __post_init__(self) -> None:
        self.health = Health(self.policy)
        self.peer = target(self.url).peer._replace(address=self.address)

    def heard(self, now: float) -> bool:
        """Whether it has answered, or was measured."""
        return self.answered or self.rtt.value(now) is not None

    @property
    def told_state(self) -> str:
        """How it is, in a word: one that is up may not have been heard of yet."""
        return "not heard of" if self.health.state is State.UP else self.health.state.value

    def limit(self, now: float) -> int:
        """How many requests it may be asked at once, now: fewer for a while after it came back."""
        warmth = self.health.warmth(now)
        return self.most if warmth == 1.0 else max(1, int(self.most * warmth))

    def candidate(self, now: float, room: int, barred: str, *, slow: bool) -> Candidate:
        """As it stands. room: what its cluster leaves it."""
        limit = self.limit(now)
        return Candidate(
            self.name,
            self.cluster.name,
            self.health.standing(now),
            self.rtt.value(now),
            min(room, limit - self.in_flight),
            under_way=self.in_flight,
            size=limit * self.cluster.weight,
            barred=barred,
            drained=self.drained,
            slow=slow,
        )

    def status(self, now: float, *, current: bool, why: str, share: float) -> UpstreamStatus:
        """Everything of it."""
        standing = self.health.standing(now)
        return UpstreamStatus(
            name=self.name,
            cluster=self.cluster.name,
            url=self.url,
            groups=self.cluster.groups,
            state=standing.state.value,
            drained=self.drained,
            current=current,
            why=why,
            share=share,
            rtt_ms=_ms(self.rtt.value(now)),
            rtt_spread_ms=_ms(self.rtt.spread(now)),
            first_byte_ms=_ms(self.first_byte.value(now)),
            first_audio_ms=_ms(self.first_audio.value(now)),
            real_time_factor=self.real_time_factor.value(now),
            error_rate=self.health.lately.rate(now),
            warmth=self.health.warmth(now),
            in_flight=self.in_flight,
            max_in_flight=self.most,
            chosen=self.chosen,
            failures=self.failures,
            faults={fault.name.lower(): many for fault, many in self.faults.items()},
            back_in_s=standing.back_in_s,
            last_fault=self.last_fault,
        )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
