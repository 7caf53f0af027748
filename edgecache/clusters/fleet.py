"""All clusters of this edge: how far each upstream is, how well it is, who is asked, and the asking.

Keeps: whoever asks gets a ticket from the upstream's health, and every way out of the exchange is an outcome for it, also
leaving unfinished. It decides nothing itself: `rtt`, `health` and `selection` do. It does not know recordings or clients.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field

from edgecache.clock import Clock
from edgecache.clusters import selection
from edgecache.clusters.cluster import Cluster, HealthPolicy, Pool, Probing, SelectionPolicy, Timeouts
from edgecache.clusters.fault import Fault, UpstreamFault
from edgecache.clusters.health import Event, Health, Outcome, State, Ticket
from edgecache.clusters.probe import Probed, Probes
from edgecache.clusters.rtt import STALE_AFTER_S, Rtt
from edgecache.clusters.selection import Candidate, Chosen, NoneLeft
from edgecache.clusters.upstream import Answer, Dialect, Lines
from edgecache.speech.utterance import Utterance

#: Probes of many edges and upstreams must not fall into step: each pause is this share shorter or longer.
JITTER = 0.25
#: A cluster that is busy and does not say for how long is asked again after this.
BUSY_S = 1.0

#: Told of (upstream, old state, new state, reason).
OnChange = Callable[[str, str, str, str], None]


@dataclass(frozen=True, slots=True)
class FleetPolicies:
    """How clusters are asked, measured, judged and chosen."""

    timeouts: Timeouts = field(default_factory=Timeouts)
    pool: Pool = field(default_factory=Pool)
    probing: Probing = field(default_factory=Probing)
    health: HealthPolicy = field(default_factory=HealthPolicy)
    selection: SelectionPolicy = field(default_factory=SelectionPolicy)


@dataclass(frozen=True, slots=True)
class UpstreamStatus:
    """One upstream as an operator sees it. rtt_ms: None when it is not measured."""

    name: str
    cluster: str
    url: str
    state: str
    current: bool
    rtt_ms: float | None
    rtt_spread_ms: float | None
    in_flight: int
    max_in_flight: int
    chosen: int
    failures: int
    back_in_s: float
    last_fault: str

    def told(self) -> Mapping[str, object]:
        """The same as a mapping, for JSON."""
        return asdict(self)


@dataclass(slots=True, eq=False)
class _Member:
    """One upstream: one base URL of a cluster."""

    name: str
    cluster: Cluster
    address: str
    dialect: Dialect
    health: Health
    rtt: Rtt
    state: State = State.UP  # as it was last reported
    in_flight: int = 0
    chosen: int = 0
    failures: int = 0
    last_fault: str = ""
    answered: bool = False


class Fleet:
    """Every upstream of every cluster. Construct, `start`, use, `close`."""

    def __init__(
        self,
        clusters: Sequence[Cluster],
        policies: FleetPolicies,
        dialects: Mapping[str, Dialect],
        clock: Clock,
        on_change: OnChange | None = None,
    ) -> None:
        self._policies = policies
        self._clock = clock
        self._on_change = on_change
        self._members = {each.name: each for cluster in clusters for each in _members(cluster, policies, dialects)}
        self._lines = Lines(policies.timeouts, policies.pool, clock)
        self._probes = Probes(policies.probing, policies.pool.dns_ttl_s, clock)
        self._current: str | None = None
        self._probers: list[asyncio.Task[None]] = []
        #: How the probers wait; a test has its own.
        self.pause: Callable[[float], Awaitable[None]] = asyncio.sleep

    def __repr__(self) -> str:
        return f"<Fleet {', '.join(f'{each.name} {each.health.state.value}' for each in self._members.values())}>"

    async def start(self, *, probing: bool = True) -> None:
        """Opens the connections and begins to measure; does not wait for the first measurement."""
        await self._lines.start()
        self._probes.open()
        if not probing:
            return
        self._probers = [
            asyncio.create_task(self._keep_probing(each), name=f"probe {each.name}") for each in self._members.values()
        ]

    async def close(self) -> None:
        """Stops measuring and closes every connection."""
        for prober in self._probers:
            prober.cancel()
        if self._probers:
            await asyncio.wait(self._probers)
        self._probers = []
        await self._probes.close()
        await self._lines.close()

    # Asking.

    def choose(self, tried: Collection[str]) -> Chosen | NoneLeft:
        """Whom to ask now, and why. tried: upstreams that were asked in vain for the same speech."""
        now = self._clock.monotonic()
        candidates = [self._candidate(each, now) for each in self._members.values()]
        choice = selection.choose(candidates, self._current, self._policies.selection, tried)
        if isinstance(choice, Chosen):
            self._current = choice.keep_to
            self._members[choice.upstream].chosen += 1
        return choice

    @asynccontextmanager
    async def ask(self, chosen: Chosen, utterance: Utterance, forwarding: Mapping[str, str]) -> AsyncIterator[Answer]:
        """One exchange with whom was chosen. An UpstreamFault out of the block, whoever raises it, is recorded; a clean
        end is a success; anything else says nothing about the upstream."""
        member = self._members[chosen.upstream]
        ticket = self._admit(member)
        outcome: Outcome = Event.ABANDONED
        reason = ""
        member.in_flight += 1
        try:
            outgoing = member.dialect.ask(member.address, member.cluster.api_key, utterance)
            async with self._lines.ask(member.cluster.name, outgoing, forwarding) as answer:
                yield answer
            outcome = Event.SUCCEEDED
        except UpstreamFault as fault:
            outcome, reason = self._met(member, fault)
            raise
        finally:
            member.in_flight -= 1
            self._record(member, ticket, outcome, reason)

    def _candidate(self, member: _Member, now: float) -> Candidate:
        standing = member.health.standing(now)
        self._report(member, "the cool-down is over")
        return Candidate(member.name, member.cluster.name, standing, member.rtt.estimate(now), self._room(member))

    def _room(self, member: _Member) -> int:
        """How many more requests it may be asked: its cluster's bound and the pool's both hold."""
        asked = sum(each.in_flight for each in self._members.values() if each.cluster is member.cluster)
        here = self._policies.pool.max_per_host - member.in_flight
        return min(member.cluster.max_in_flight - asked, here)

    def _admit(self, member: _Member) -> Ticket:
        ticket = member.health.admit(self._clock.monotonic())
        if ticket is None:  # chosen some time ago; someone else's trial or failure came between
            raise UpstreamFault(Fault.BUSY, member.cluster.name, "it is not to be asked now")
        return ticket

    def _met(self, member: _Member, fault: UpstreamFault) -> tuple[Outcome, str]:
        """The outcome that a fault is, noted for the operator."""
        reason = f"{fault.fault.value}: {fault.detail}"
        member.last_fault = reason
        if fault.fault is Fault.BUSY:
            wait_s = BUSY_S if fault.retry_after_s is None else fault.retry_after_s
            member.health.told_to_wait(wait_s, self._clock.monotonic())
        if not fault.counts:
            return Event.ANSWERED, reason
        member.failures += 1
        return Event.FAILED, reason

    def _record(self, member: _Member, ticket: Ticket, outcome: Outcome, reason: str) -> None:
        if outcome in (Event.SUCCEEDED, Event.ANSWERED, Event.PROBE_OK):
            member.answered = True
        member.health.record(ticket, outcome, self._clock.monotonic())
        self._report(member, reason or outcome.value)

    def _report(self, member: _Member, reason: str) -> None:
        """Tells of a change of state, once."""
        old, member.state = member.state, member.health.state
        if old is not member.state and self._on_change is not None:
            self._on_change(member.name, old.value, member.state.value, reason)

    # Measuring.

    async def probe_once(self, upstream: str) -> Probed | None:
        """Measures one upstream. None: its health does not allow a probe now."""
        member = self._members[upstream]
        ticket = member.health.admit(self._clock.monotonic())
        self._report(member, "the cool-down is over")
        if ticket is None:
            return None
        outcome: Outcome = Event.ABANDONED
        reason = ""
        try:
            probed = await self._probes.probe(member.address)
            outcome = Event.PROBE_OK if probed.alive else Event.PROBE_FAILED
            if probed.rtt_s is not None:
                member.rtt.observe(probed.rtt_s, self._clock.monotonic())
            if not probed.alive:
                member.last_fault = reason = probed.detail
            return probed
        finally:
            self._record(member, ticket, outcome, reason)

    async def probe_all(self) -> list[UpstreamStatus]:
        """Measures every upstream once and says what was found; needs no `start`, but a `close`."""
        self._probes.open()
        await asyncio.gather(*(self.probe_once(name) for name in self._members))
        return self.status()

    async def _keep_probing(self, member: _Member) -> None:
        while True:
            try:
                await self.probe_once(member.name)
            except Exception as error:  # the task's root: one odd probe must not end all measuring
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"a probe of {member.name} failed in an unforeseen way", "exception": error}
                )
            await self.pause(self._until_next_probe_s(member))

    def _until_next_probe_s(self, member: _Member) -> float:
        interval_s = self._policies.probing.interval_s * random.uniform(1 - JITTER, 1 + JITTER)
        standing = member.health.standing(self._clock.monotonic())
        cooling = standing.state is State.EJECTED
        return min(interval_s, standing.back_in_s) if cooling else interval_s

    # Telling.

    @property
    def ready(self) -> bool:
        """Whether at least one upstream is there and was heard of."""
        now = self._clock.monotonic()
        return any(
            each.health.state is not State.EJECTED and (each.answered or each.rtt.estimate(now) is not None)
            for each in self._members.values()
        )

    def status(self) -> list[UpstreamStatus]:
        """Every upstream, in the operator's order."""
        now = self._clock.monotonic()
        return [self._told(each, now) for each in self._members.values()]

    def _told(self, member: _Member, now: float) -> UpstreamStatus:
        rtt_s, spread_s = member.rtt.estimate(now), member.rtt.spread(now)
        standing = member.health.standing(now)
        self._report(member, "the cool-down is over")
        return UpstreamStatus(
            name=member.name,
            cluster=member.cluster.name,
            url=member.address,
            state=standing.state.value,
            current=member.name == self._current,
            rtt_ms=None if rtt_s is None else rtt_s * 1000,
            rtt_spread_ms=None if spread_s is None else spread_s * 1000,
            in_flight=member.in_flight,
            max_in_flight=min(member.cluster.max_in_flight, self._policies.pool.max_per_host),
            chosen=member.chosen,
            failures=member.failures,
            back_in_s=standing.back_in_s,
            last_fault=member.last_fault,
        )


def _members(cluster: Cluster, policies: FleetPolicies, dialects: Mapping[str, Dialect]) -> list[_Member]:
    stale_after_s = max(STALE_AFTER_S, 5 * policies.probing.interval_s)
    addresses = cluster.addresses
    return [
        _Member(
            name=cluster.name if len(addresses) == 1 else f"{cluster.name}/{n}",
            cluster=cluster,
            address=address,
            dialect=dialects[cluster.dialect],
            health=Health(policies.health),
            rtt=Rtt(stale_after_s),
        )
        for n, address in enumerate(addresses)
    ]
