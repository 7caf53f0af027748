"""Who leads, of all processes that are asked for the same speech at once, and how the others hear it.

Keeps rules 2, 5 and 6: one lease for each key; who gets it leads as ever, who does not follows the leader's tail, and may
lead itself only before anything was heard. Where leases can't be had each process leads for itself. It does not know where
leases are kept.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from edgecache.cache.lookup import Asked
from edgecache.cache.recording import Recording
from edgecache.clusters.fault import UpstreamFault
from edgecache.errors import NodeError
from edgecache.fill.asking import Asking
from edgecache.fill.attempt import Order, Terms
from edgecache.fill.flight import Flight, Head, Rendering, State
from edgecache.fill.following import Common, Following, Held
from edgecache.fill.priority import Priority
from edgecache.fill.refusal import broken, full

#: Between two looks at a lease whose holder tells nothing, of its time: then it is soon seen that it ran out.
PACE, PACE_S = 1 / 16, 0.1
#: So much of its time a holder may tell nothing; a dead one's lease has run out by then.
PATIENCE = 1.5


class Lead(Protocol):
    """A lease of ours. It is renewed until `end`, and its flight is told to whoever calls for it."""

    def tell(self, flight: Flight, called: Callable[[Priority], None]) -> None: ...
    def end(self) -> None: ...


class Taken(msgspec.Struct, frozen=True):
    """The lease is ours. recording: what had been stored by then."""

    lead: Lead
    recording: Recording | None


class Leases(Protocol):
    """Where they are had. `lasts_s`: how long one lasts whose holder is gone."""

    @property
    def lasts_s(self) -> float: ...
    async def take(self, asked: Asked) -> Taken | Held | None: ...


@dataclass(frozen=True, slots=True)
class Commons:
    """What is shared with other processes. fresh: whether a recording is a hit. remember: keeps one, but not for others,
    who have it. purged: whether a flight falls under a purge."""

    leases: Leases
    fresh: Callable[[Asked, Recording], bool]
    remember: Callable[[Recording], None]
    purged: Callable[[Flight], object]


class Sharing:
    """Fills of this process among those of others."""

    def __init__(
        self,
        commons: Commons,
        terms: Terms,
        asking: Asking,
        called: Callable[[Flight, Priority], None],
    ) -> None:
        """called: told when another process listens to a flight."""
        self._commons = commons
        self.remember = commons.remember
        # Its own deadline is the only one that one that follows has: the leader has clusters to wait for.
        self._terms = replace(terms, first_audio_s=2 * asking.within_s)
        self._common = Common(self._terms, commons.purged)
        self._asking = asking
        self._called = called
        #: What came of each attempt to get a lease: taken, followed, taken_over, recorded, unavailable.
        self.results: Counter[str] = Counter()

    def status(self) -> Mapping[str, int]:
        """For `/status`."""
        return {each: self.results[each] for each in ("taken", "followed", "taken_over", "recorded", "unavailable")}

    async def fill(self, flight: Flight, order: Order) -> None:
        """Ends with the flight over."""
        clock, lasts_s = self._terms.clock, self._commons.leases.lasts_s
        deadline_s = clock.monotonic() + self._asking.within_s
        #: Whom it waits for, since when in vain, and whether that one has told all that it is going to.
        token, since_s, spent = "", 0.0, False
        while True:
            got = await self._commons.leases.take(order.asked)
            if got is None:
                return await self._alone(flight, order)
            if isinstance(got, Taken):
                return await self._lead(flight, order, got, "taken_over" if token else "taken")
            now = clock.monotonic()
            if got.token != token:
                token, since_s, spent = got.token, now, False
            elif now - since_s > PATIENCE * lasts_s or now >= deadline_s:
                return await self._alone(flight, order)  # it holds the lease and does not tell, or not in time
            else:
                await asyncio.sleep(min(PACE * lasts_s, PACE_S))
            if spent:
                continue
            following = Following(flight, order, got, self._common)
            if await self._heard(following, max(0.0, deadline_s - clock.monotonic())):
                return None
            if not following.believed:
                return await self._alone(flight, order)
            if following.answered:
                since_s, spent = clock.monotonic(), True
            if following.silent:  # dead, or as good as that: nobody is to wait until its time is over
                await got.void()

    async def _alone(self, flight: Flight, order: Order) -> None:
        """Without a lease: another process may do the same."""
        self.results["unavailable"] += 1
        return await self._asking.fill(flight, order)

    async def _lead(self, flight: Flight, order: Order, taken: Taken, result: str) -> None:
        try:
            found = taken.recording
            if found is not None and self._commons.fresh(order.asked, found):
                self.results["recorded"] += 1
                return self._repeat(flight, found)
            self.results[result] += 1
            taken.lead.tell(flight, lambda priority: self._called(flight, priority))
            return await self._asking.fill(flight, order)
        finally:
            taken.lead.end()

    async def _heard(self, following: Following, within_s: float) -> bool:
        """Whether the flight is over: it was heard to its end, or to where it broke. Not: it was not heard at all."""
        flight = following.flight
        try:
            await following.run(within_s)
        except UpstreamFault as fault:
            if flight.state is State.ASKING:
                return False
            flight.fail(broken(fault))
        except NodeError as error:
            flight.fail(error)
        self.results["followed"] += 1
        return True

    def _repeat(self, flight: Flight, found: Recording) -> None:
        """It was stored after it had been looked for, and before the lease was had."""
        if not self._terms.hold(len(found.audio)):
            return flight.fail(full())
        rendering, facts = Rendering(), found.facts
        rendering.add(found.audio)
        head = Head(facts.media_type, facts.cluster, 0.0, 0.0, stored=True, tags=facts.tags, followed=True)
        flight.audible(head, rendering)
        flight.heard((facts.duration_ms or 0) / 1000, self._terms.clock.monotonic())
        flight.after_purge = facts.after_purge
        self._terms.keep(flight, found)  # it was no purge's a moment ago, and nothing was awaited since
        flight.seal(found)
        return None
