"""All clusters of this edge: how far each upstream is, how well it is, who is asked, and the asking.

Keeps: whoever asks gets a ticket from the upstream's health, and every way out of the exchange is an outcome for it, also
leaving unfinished. It decides nothing itself: `rtt`, `health` and `selection` do. It does not know recordings or clients.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress

from edgecache.clock import Clock
from edgecache.clusters import neighbours, roster, selection
from edgecache.clusters.cluster import Cluster, FleetPolicies
from edgecache.clusters.estimate import STALE_AFTER_S, Estimate
from edgecache.clusters.exchange import Exchange
from edgecache.clusters.fault import Fault, UpstreamFault
from edgecache.clusters.health import Event, Outcome, State, Ticket
from edgecache.clusters.member import Member, UpstreamStatus
from edgecache.clusters.probe import Probed, Probes
from edgecache.clusters.resolving import Resolver, Unresolved
from edgecache.clusters.routing import Whose, barring
from edgecache.clusters.selection import Candidate, Chosen, NoneLeft
from edgecache.clusters.upstream import Asking, Dialect, Lines
from edgecache.measures.ladder import Spread
from edgecache.speech.utterance import Utterance

#: Probes of many edges and upstreams must not fall into step: each pause is this share shorter or longer.
JITTER = 0.25
#: A sample that does not fit may be chance or a changed path: the next ones tell, soon.
STRAYED_S = 0.2
#: What is known of names is looked at so often; DNS itself is asked when its answer is `pool.dns_ttl` old.
FOLLOW_S = 5.0
#: So many times the distance of the one that is asked is far away.
FAR_TIMES = 2.0
#: Whom no route is for.
ANYONE = Whose("", "", "")
#: Later than all but this share of the last times is late.
LATE_SHARE = 0.05
#: A cluster that is busy and does not say for how long is asked again after this.
BUSY_S = 1.0

#: Told of (upstream, old state, new state, reason).
OnChange = Callable[[str, str, str, str], None]


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
        self.clock = clock
        self._on_change = on_change
        self._dialects = dialects
        self._clusters = clusters
        self._resolver = Resolver(policies.pool.dns_ttl_s, clock, allow_networks=policies.pool.allow_networks)
        self._resolver.on_refused = self._misled
        #: Told of (host, what DNS says of it that is not believed).
        self.on_refused: Callable[[str, str], None] | None = None
        self._members: dict[str, Member] = {}
        self._loads = neighbours.Loads(policies.pool)
        self._lines = Lines(policies.timeouts, policies.pool, clock, self._resolver)
        self._probes = Probes(policies.probing, policies.pool.dns_ttl_s, clock, self._resolver)
        self._current: str | None = None
        self._room_freed: Callable[[], None] = _nobody_waits
        self._probing = False
        self._probers: dict[str, asyncio.Task[None]] = {}
        self._followers: list[asyncio.Task[None]] = []
        #: How the probers wait; a test has its own.
        self.pause: Callable[[float], Awaitable[None]] = asyncio.sleep
        self._enrol()

    def __repr__(self) -> str:
        return f"<Fleet {', '.join(f'{each.name} {each.health.state.value}' for each in self._members.values())}>"

    async def start(self, *, probing: bool = True) -> None:
        """Opens the connections and begins to measure; does not wait for the first measurement."""
        await self._lines.start()
        self._probing = probing
        if not probing:
            return
        for each in self._members.values():
            self._begin_probing(each)
        self._followers = [
            asyncio.create_task(self._keep_following(host, port), name=f"follow {host}")
            for host, port in roster.names(self._clusters)
        ]

    async def close(self) -> None:
        """Stops measuring and closes every connection."""
        tasks = [*self._probers.values(), *self._followers]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._probers, self._followers = {}, []
        await self._probes.close()
        await self._lines.close()

    # Who there is.

    def _enrol(self) -> None:
        """The upstreams as the operator and DNS have them now. Who stays keeps all that is known of it."""
        before = self._members
        wanted = [each for cluster in self._clusters for each in roster.entries(cluster, self._resolver.known)]
        self._members = {each.name: before.get(each.name) or self._newcomer(each) for each in wanted}
        gone = [each for name, each in before.items() if name not in self._members]
        for each in gone:
            if (prober := self._probers.pop(each.name, None)) is not None:
                prober.cancel()
        for name, each in self._members.items():
            if self._probing and name not in before:
                self._begin_probing(each)
        self._room_freed()

    def _newcomer(self, entry: roster.Entry) -> Member:
        member = _member(entry, self._policies)
        kin = [each for each in self._members.values() if each.cluster is entry.cluster]
        member.drained = all(each.drained for each in kin) if kin else entry.cluster.drained
        return member

    def _begin_probing(self, member: Member) -> None:
        self._probers[member.name] = asyncio.create_task(self._keep_probing(member), name=f"probe {member.name}")

    async def follow(self, host: str, port: int) -> None:
        """Takes over what DNS says of this name now; what it said last well, if it has nothing to say."""
        with suppress(Unresolved):
            await self._resolver.resolve(host, port)
        now = [each.name for cluster in self._clusters for each in roster.entries(cluster, self._resolver.known)]
        if now != list(self._members):
            self._enrol()

    def _misled(self, host: str, why: str) -> None:
        """DNS leads where no cluster should be; those who are asked at its addresses from before have that noted."""
        for each in self._members.values():
            if each.peer.host == host:
                each.last_fault = why
        if self.on_refused is not None:
            self.on_refused(host, why)

    async def _keep_following(self, host: str, port: int) -> None:
        while True:
            await self.follow(host, port)
            await self.pause(FOLLOW_S)

    # Asking.

    def choose(self, tried: Collection[str], whose: Whose = ANYONE) -> Chosen | NoneLeft:
        """Whom to ask now, and why. tried: upstreams that were asked in vain for the same speech."""
        choice = selection.pick(self._candidates(whose), self._current, self._policies.selection, tried)
        if isinstance(choice, Chosen):
            self._current = choice.keep_to
            self._members[choice.upstream].chosen += 1
        return choice

    def on_room(self, told: Callable[[], None]) -> None:
        """`told` is called whenever an upstream may have room again that had none."""
        self._room_freed = told

    def heard(self, chosen: Chosen, first_audio_s: float, real_time_factor: float | None) -> None:
        """How soon it spoke, and when it ended, how long it took for each second of speech."""
        member, now = self._members.get(chosen.upstream), self.clock.monotonic()
        if member is None:  # DNS knows it no more
            return
        if real_time_factor is None:
            member.first_audio.observe(first_audio_s, now)
            member.lately.observe(first_audio_s, now)
        else:
            member.real_time_factor.observe(real_time_factor, now)

    def late_s(self, upstream: str) -> float | None:
        """After how long it is later than nineteen in twenty times of late, in seconds; None: nobody knows."""
        member = self._members.get(upstream)
        return None if member is None else member.lately.beyond(LATE_SHARE, self.clock.monotonic())

    def ask(self, chosen: Chosen, utterance: Utterance, forwarding: Mapping[str, str]) -> Exchange:
        """One exchange with whom was chosen, to be begun or entered."""
        return Exchange(self, chosen, utterance, forwarding)

    # What an exchange calls.

    def admitted(self, chosen: Chosen) -> tuple[Member, Ticket]:
        """Leave to ask, to be given back with `over`. UpstreamFault: there is none."""
        member = self._members.get(chosen.upstream)
        if member is None:
            raise UpstreamFault(Fault.BUSY, chosen.cluster, "DNS knows it no more")
        ticket = member.health.admit(self.clock.monotonic())
        if ticket is None:  # chosen some time ago; someone else's trial or failure came between
            raise UpstreamFault(Fault.BUSY, chosen.cluster, "it is not to be asked now")
        self._loads.enter(member)
        return member, ticket

    def line(self, member: Member, utterance: Utterance, forwarding: Mapping[str, str]) -> Asking:
        """The same exchange on the wire."""
        cluster = member.cluster
        outgoing = self._dialects[cluster.dialect].ask(member.url, cluster.api_key, utterance)
        return self._lines.ask(cluster.name, outgoing, forwarding, member.address)

    def over(self, member: Member, ticket: Ticket, came_of_it: UpstreamFault | Outcome) -> None:
        """What came of it. A fault is recorded, whoever raised it."""
        outcome, reason = self._met(member, came_of_it) if isinstance(came_of_it, UpstreamFault) else (came_of_it, "")
        self._loads.leave(member)
        self._record(member, ticket, outcome, reason)
        self._room_freed()

    def _candidates(self, whose: Whose) -> list[Candidate]:
        now, routes = self.clock.monotonic(), self._policies.routes
        members = self._members.values()
        slow = neighbours.slow(members, self._policies.selection, now)
        told = []
        for each in members:
            barred = barring(routes, whose, each.cluster.groups) if routes else ""
            told.append(each.candidate(now, self._loads.room(each), barred, slow=each.name in slow))
            self._report(each, "the cool-down is over")
        return told

    def _met(self, member: Member, fault: UpstreamFault) -> tuple[Outcome, str]:
        """The outcome that a fault is, noted for the operator."""
        reason = f"{fault.fault.value}: {fault.detail}"
        member.last_fault = reason
        member.faults[fault.fault] += 1
        if fault.fault is Fault.BUSY:
            wait_s = BUSY_S if fault.retry_after_s is None else fault.retry_after_s
            member.health.told_to_wait(wait_s, self.clock.monotonic())
        if not fault.counts:
            return Event.ANSWERED, reason
        member.failures += 1
        return Event.FAILED, reason

    def _record(self, member: Member, ticket: Ticket, outcome: Outcome, reason: str) -> None:
        if outcome in (Event.SUCCEEDED, Event.ANSWERED, Event.PROBE_OK):
            member.answered = True
        member.health.record(ticket, outcome, self.clock.monotonic(), others_up=self._spared(member))
        self._report(member, reason or outcome.value)

    def _spared(self, member: Member) -> bool:
        """Whether enough others are up for this one to be left alone because it often fails."""
        out = sum(each.health.state is not State.UP for each in self._members.values() if each is not member)
        others = len(self._members) - 1 - out
        return others > 0 and (out + 1) <= self._policies.health.max_ejected * len(self._members)

    def _report(self, member: Member, reason: str) -> None:
        """Tells of a change of state, once."""
        old, member.state = member.state, member.health.state
        if old is member.state:
            return
        self._room_freed()
        if self._on_change is not None:
            self._on_change(member.name, old.value, member.state.value, reason)

    # Measuring.

    async def probe_once(self, upstream: str) -> Probed | None:
        """Measures one upstream. None: its health does not allow a probe now."""
        return await self._probe(self._members[upstream])

    async def _probe(self, member: Member) -> Probed | None:
        ticket = member.health.admit(self.clock.monotonic())
        self._report(member, "the cool-down is over")
        if ticket is None:
            return None
        outcome: Outcome = Event.ABANDONED
        reason = ""
        try:
            probed = await self._probes.probe(member.url, member.address)
            if not probed.ours:
                outcome = Event.PROBE_OK if probed.alive else Event.PROBE_FAILED
            if probed.rtt_s is not None:
                member.rtt.observe(probed.rtt_s, self.clock.monotonic())
            if not probed.alive:
                member.last_fault = reason = probed.detail
            return probed
        finally:
            self._record(member, ticket, outcome, reason)

    async def probe_all(self) -> list[UpstreamStatus]:
        """Measures every upstream once and says what was found; needs no `start`, but a `close`."""
        await asyncio.gather(*(self.follow(host, port) for host, port in roster.names(self._clusters)))
        await asyncio.gather(*(self.probe_once(name) for name in self._members))
        return self.status()

    async def _keep_probing(self, member: Member) -> None:
        while True:
            try:
                await self._probe(member)
            except Exception as error:  # the task's root: one odd probe must not end all measuring
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"a probe of {member.name} failed in an unforeseen way", "exception": error}
                )
            await self.pause(self._until_next_probe_s(member))

    def _until_next_probe_s(self, member: Member) -> float:
        probing, now = self._policies.probing, self.clock.monotonic()
        if member.rtt.straying:
            return STRAYED_S
        interval_s = max(probing.interval_s, len(self._members) / probing.per_second)
        if self._is_idle(member, now):
            interval_s *= probing.idle_factor
        interval_s *= random.uniform(1 - JITTER, 1 + JITTER)
        standing = member.health.standing(now)
        cooling = standing.state is State.EJECTED
        return min(interval_s, standing.back_in_s) if cooling else interval_s

    def _is_idle(self, member: Member, now: float) -> bool:
        """Whether it is far away and not used, so that little hangs on knowing its distance to the second."""
        current = self._members.get(self._current or "")
        mine_s = member.rtt.value(now)
        nearest_s = None if current is None else current.rtt.value(now)
        if member is current or member.in_flight or mine_s is None or nearest_s is None:
            return False
        return mine_s > FAR_TIMES * nearest_s and member.health.state is State.UP

    # What an operator may do.

    def drain(self, cluster: str, *, drained: bool) -> bool:
        """Gives the cluster no new requests, or some again; what is under way ends as it will. False: no such cluster."""
        members = [each for each in self._members.values() if each.cluster.name == cluster]
        for each in members:
            each.drained = drained
        self._room_freed()
        return bool(members)

    # Telling.

    @property
    def connects(self) -> Mapping[str, Spread]:
        """How long connections took to make, by cluster."""
        return self._lines.connects

    @property
    def ready(self) -> bool:
        """Whether at least one upstream is there and was heard of."""
        now = self.clock.monotonic()
        return any(each.health.state is not State.EJECTED and each.heard(now) for each in self._members.values())

    @property
    def lost(self) -> str:
        """Why no upstream can be asked; empty: one can. One on trial is not back yet."""
        now, rows = self.clock.monotonic(), self._members.values()
        if any(each.health.state is State.UP and not each.drained and each.heard(now) for each in rows):
            return ""
        told = (f"{each.name} {'drained' if each.drained else each.told_state}" for each in rows)
        return f"no cluster can be asked: {', '.join(told)}"

    def status(self) -> list[UpstreamStatus]:
        """Every upstream, in the operator's order, and what would become of a request that no route bars."""
        now, candidates = self.clock.monotonic(), self._candidates(ANYONE)
        choice = selection.choose(candidates, self._current, self._policies.selection, ())
        whys = {each.upstream: each.why.value for each in choice.verdicts}
        shares = selection.shares(candidates, self._current, self._policies.selection)
        return [
            each.status(now, current=name == self._current, why=whys[name], share=shares[name])
            for name, each in self._members.items()
        ]


def _nobody_waits() -> None:
    """Nobody has asked to be told of room."""


def _member(entry: roster.Entry, policies: FleetPolicies) -> Member:
    probing = policies.probing
    return Member(
        name=entry.name,
        cluster=entry.cluster,
        url=entry.url,
        address=entry.address,
        most=min(entry.cluster.max_in_flight, policies.pool.max_per_host),
        policy=policies.health,
        rtt=Estimate(max(STALE_AFTER_S, 5 * probing.interval_s * probing.idle_factor)),
        drained=entry.cluster.drained,
    )
