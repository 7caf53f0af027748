"""All flights of this node: who leads, who joins, and the task that carries each one out.

Keeps rules 2, 4, 5 and 7: a fill belongs to the node and not to the request that began it; another cluster is asked only
before the first audio; only what `seal` lets pass is kept; flights, their bytes and their sizes are bounded.
It does not know HTTP towards clients, nor where recordings are kept.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING

from edgecache.cache.key import Key
from edgecache.cache.purges import Kind, Purges, Subject
from edgecache.cache.recording import Recording
from edgecache.clock import Clock
from edgecache.clusters.patience import OUR_FAULT_S
from edgecache.fill.admission import Admission
from edgecache.fill.asking import Asking
from edgecache.fill.attempt import Attempt, Clusters, Order, Terms
from edgecache.fill.flight import Flight, State
from edgecache.fill.limits import FillLimits
from edgecache.fill.orphans import Orphan, fate
from edgecache.fill.priority import Priority
from edgecache.fill.refusal import failed, stopping
from edgecache.fill.sharing import Commons, Sharing
from edgecache.fill.shedding import Reason, Shedding

if TYPE_CHECKING:
    from edgecache.cache.lookup import Asked


class Fills:
    """Flights under way, by key."""

    def __init__(
        self,
        limits: FillLimits,
        clusters: Clusters,
        keep: Callable[[Recording], None],
        clock: Clock,
        first_audio_s: float = 5.0,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self.shedding = Shedding(limits.shed, limits.max_held_bytes)
        #: The event loop's lateness in all, and when that was last told: what does not come meanwhile is no cluster's fault.
        self._stood_still_s = 0.0
        self._beat_at_s = inf
        self._keep_recording = keep
        #: What was purged; in a node, all its parts have the same.
        self.purges = Purges()
        self._terms = terms = Terms(
            clusters=clusters,
            clock=clock,
            keep=self._keep,
            max_rendering_bytes=limits.max_rendering_bytes,
            first_audio_s=first_audio_s,
            hold=self._hold,
            release=self._release,
            trickle=limits.trickle,
            stood_still_s=self._stood_still,
        )
        self.admission = Admission(limits, clusters, clock, self._review_all)
        self.asking = Asking(limits, terms, self.admission)
        self._sharing: Sharing | None = None
        #: Flights that may be joined, the oldest first: more than one if clients asked for new takes meanwhile.
        self._takes: dict[Key, list[Flight]] = {}
        #: What these are to get.
        self._asked: dict[Flight, Asked] = {}
        self._tasks: dict[asyncio.Task[None], Flight] = {}
        #: First attempts that were begun before their fill's task.
        self._prompt: dict[Flight, Attempt] = {}
        #: Flights that are over, but still read by someone: their bytes are held too.
        self._lingering: set[Flight] = set()
        self._held_bytes = 0
        #: Flights that nobody has listened to for a while, with what there is to say of their text.
        self._orphans: dict[Flight, Order] = {}
        self.orphans_finished = 0
        self.orphans_abandoned: Counter[str] = Counter()
        self.led = self.joined = self.sealed = self.broken = self.refused = 0
        #: Heard whole but not stored, by reason.
        self.unstored: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Fills {len(self._tasks)} under way, {self.held_bytes} bytes held>"

    @property
    def held_bytes(self) -> int:
        """Bytes of all renderings that are under way or still being read."""
        if not self._lingering:
            return self._held_bytes
        over = {flight for flight in self._lingering if not flight.readers}
        self._lingering -= over
        self._held_bytes -= sum(flight.rendering.length for flight in over)
        return self._held_bytes

    @property
    def leases(self) -> Mapping[str, int]:
        """What came of asking for leases, by result; empty: none are asked for."""
        return {} if self._sharing is None else self._sharing.status()

    @property
    def under_way(self) -> int:
        """How many flights there are."""
        return len(self._tasks)

    def flight(self, key: Key) -> Flight | None:
        """The flight for this key, if there is one; only a look. The newest take, if newer than what was kept or purged."""
        takes = self._takes.get(key)
        return takes[-1] if takes and not takes[-1].outdated and self.purged(takes[-1]) is None else None

    def purged(self, flight: Flight) -> Kind | None:
        """Whether it was begun before a purge that it falls under, or may: then it is neither joined nor kept."""
        if flight.after_purge >= self.purges.newest:
            return None
        asked, head = self._asked[flight], flight.head
        known = (None, None) if head is None else (head.cluster, head.tags)
        return self.purges.about(Subject(asked.key, asked.namespace, asked.canonical, flight.after_purge, *known))

    @property
    def purged_under_way(self) -> int:
        """How many flights go on only for those who hear them already."""
        return sum(self.purged(flight) is not None for flight in self._tasks.values())

    def join(self, key: Key, priority: Priority = Priority.INTERACTIVE) -> Flight | None:
        """The flight for this key, if there is one; from now on it is at least as urgent as this."""
        flight = self.flight(key)
        if flight is not None:
            self.joined += 1
            self._joined(flight, priority)
        return flight

    def _joined(self, flight: Flight, priority: Priority) -> None:
        """One more listens, here or in another process."""
        flight.others += 1
        self._orphans.pop(flight, None)
        if priority < flight.priority:
            flight.priority = priority
            self.admission.hurry(flight)

    def share(self, commons: Commons) -> None:
        """From now on the same speech is made once for all processes that share these leases."""
        self._sharing = Sharing(commons, self._terms, self.asking, self._joined)

    def lead(self, order: Order, *, alone: bool = False) -> Flight:
        """A new flight. alone: nobody may join it. NodeError: there is too much to do already."""
        self._admit(order.priority)
        flight = Flight(order.asked.key, order.priority)
        flight.after_purge = self.purges.newest
        if self._sharing is None or not order.joinable:  # first of all: it is what whoever listens waits for
            prompt = self.asking.prompt(flight, order)
            if prompt is not None:
                self._prompt[flight] = prompt
        flight.left = lambda left: self._left(left, order)
        self._asked[flight] = order.asked
        if not alone:
            self._takes.setdefault(flight.key, []).append(flight)
        self.led += 1
        task = asyncio.create_task(self._run(flight, order), name=f"fill {flight.key[:8]}")
        self._tasks[task] = flight
        task.add_done_callback(self._landed)
        return flight

    async def close(self) -> None:
        """Stops every fill; whoever listens is told."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        self.admission.close()

    async def drain(self) -> None:
        """Waits until no fill is under way."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    def pressed(self, late_s: float) -> str:
        """At a beat of the event loop that came so late: what is refused from now on, and why; empty: nothing is."""
        now = self._clock.monotonic()
        self._stood_still_s += late_s
        self._beat_at_s = now
        self.shedding.beat(late_s, now)
        self.shedding.hold(self.held_bytes, now)
        return self.shedding.why()

    def _stood_still(self) -> float:
        """How long this process stood still, in all; whoever asks may come before the beat that would tell."""
        return self._stood_still_s + max(0.0, self._clock.monotonic() - self._beat_at_s - OUR_FAULT_S)

    def _admit(self, priority: Priority) -> None:
        held_bytes = self.held_bytes
        if not self.shedding.at_ease(held_bytes):
            now = self._clock.monotonic()
            self.shedding.hold(held_bytes, now)
            self.shedding.admit(priority, now)
        if len(self._tasks) >= self._limits.max_flights:
            raise self.shedding.refuse(Reason.FLIGHTS, priority)

    def _hold(self, more_bytes: int) -> bool:
        """Counts so many more bytes as held, if they may be."""
        limit = self._limits.max_held_bytes
        if self._held_bytes + more_bytes > limit and self.held_bytes + more_bytes > limit:
            return False
        self._held_bytes += more_bytes
        return True

    def _release(self, fewer_bytes: int) -> None:
        """So many bytes are held no more."""
        self._held_bytes -= fewer_bytes

    def status(self) -> Mapping[str, object]:
        """Everything of them, for `/status`."""
        return {
            "under_way": self.under_way,
            "held_bytes": self.held_bytes,
            "shed": self.shedding.told(),
            "led": self.led,
            "joined": self.joined,
            "sealed": self.sealed,
            "unstored": dict(self.unstored),
            "broken": self.broken,
            "refused": self.refused,
            **self.asking.status(),
            **self.admission.status(),
            "leases": self.leases or "off",
            "orphans": {
                "now": sum(not flight.readers for flight in self._orphans),
                "finished": self.orphans_finished,
                "abandoned": dict(self.orphans_abandoned),
            },
        }

    # Fills that nobody listens to.

    def _left(self, flight: Flight, order: Order) -> None:
        asyncio.get_running_loop().call_later(self._limits.orphan_after_s, self._orphan, flight, order)

    def _orphan(self, flight: Flight, order: Order) -> None:
        """The last listener left a while ago; unless there is another one, or it is over."""
        if not (flight.readers or flight.over or flight in self._orphans):
            self._orphans[flight] = order
            self._review(flight, order)

    def _review_all(self) -> None:
        """Someone waits for room: does an orphan take it?"""
        for flight, order in list(self._orphans.items()):
            self._review(flight, order)

    def _review(self, flight: Flight, order: Order) -> None:
        if flight.readers:
            del self._orphans[flight]
            return
        orphan = Orphan(
            priority=flight.priority,
            characters=len(order.utterance.text),
            others=flight.others,
            asked=not self.admission.is_waiting(flight),
            stored=(order.store if flight.head is None else flight.head.stored) and self.purged(flight) is None,
            heard_bytes=flight.rendering.length,
        )
        decided = fate(orphan, self._limits, pressed=self.admission.pressed)
        if decided.abandoned:
            del self._orphans[flight]
            self.orphans_abandoned[decided.value] += 1
            self._forget(flight)  # nobody may join what ends now
            next(task for task, each in self._tasks.items() if each is flight).cancel()

    # How flights end.

    def _keep(self, flight: Flight, recording: Recording) -> bool:
        """Keeps a take, unless one that began later is kept already. False: it was purged while it was under way."""
        if self.purged(flight) is not None:
            return False
        if flight.outdated:
            return True
        for earlier in self._takes[flight.key]:
            if earlier is flight:
                break
            earlier.outdated = True
        if self._sharing is not None and flight.head is not None and flight.head.followed:
            self._sharing.remember(recording)
        else:
            self._keep_recording(recording)
        return True

    def _landed(self, task: asyncio.Task[None]) -> None:
        flight = self._tasks.pop(task)
        if (prompt := self._prompt.pop(flight, None)) is not None:
            prompt.abandon()
        if not flight.over:  # also when it was cancelled before its first step
            flight.fail(stopping() if task.cancelled() else failed())
        if flight.readers:
            self._lingering.add(flight)
        else:
            self._held_bytes -= flight.rendering.length
        self._forget(flight)
        del self._asked[flight]
        if self._orphans.pop(flight, None) is not None:
            self.orphans_finished += 1
        match flight.state:
            case State.SEALED:
                self.sealed += 1
            case State.ENDED:
                self.unstored[flight.not_stored] += 1
            case State.BROKEN:
                self.broken += 1
            case _:
                self.refused += 1

    def _forget(self, flight: Flight) -> None:
        takes = self._takes.get(flight.key, [])
        if flight in takes:
            takes.remove(flight)
            if not takes:
                del self._takes[flight.key]

    async def _run(self, flight: Flight, order: Order) -> None:
        try:
            if self._sharing is not None and order.joinable:
                await self._sharing.fill(flight, order)
            else:
                await self.asking.fill(flight, order, self._prompt.pop(flight, None))
        except Exception as error:  # the task's root; `_landed` tells whoever listens
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"a fill failed: {flight!r}", "exception": error}
            )
