"""Room at clusters: who gets it, and the waiting for it.

Keeps rule 7: whoever waits has a place in a bounded queue and a deadline, and is told at once when there is no use in it.
Room that comes free goes to whoever is next (`fill.queue` says who) and may be asked there; nobody who comes meanwhile gets
past. It does not know what is asked for, nor HTTP; hits never come here.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from edgecache.clock import Clock
from edgecache.clusters.routing import Whose
from edgecache.clusters.selection import Chosen, NoneLeft, Why
from edgecache.fill.attempt import Clusters, Order
from edgecache.fill.flight import Flight
from edgecache.fill.limits import FillLimits
from edgecache.fill.priority import Priority
from edgecache.fill.queue import Place, Queue, SendAway
from edgecache.measures.ladder import Spread

#: Room may come with time alone (a cluster that came back is given more, one has asked for patience): looked at so often.
LEAST_AGAIN_S = 0.05

Choice = Chosen | NoneLeft


@dataclass(slots=True, eq=False)
class _Waiting:
    """Who stands at a place, and what it may be given."""

    place: Place
    tried: Sequence[str]
    whose: Whose
    called: "asyncio.Future[Choice]"
    patience: asyncio.Timeout


class Admission:
    """All who want room at a cluster."""

    def __init__(
        self, limits: FillLimits, clusters: Clusters, clock: Clock, on_waiting: Callable[[], None] = lambda: None
    ) -> None:
        """on_waiting: told whenever someone begins to wait."""
        self._limits = limits
        self._on_waiting = on_waiting
        self._clusters = clusters
        self._clock = clock
        self._queue = Queue(limits.max_waiting)
        self._waiting: dict[Flight, _Waiting] = {}
        self._numbered = 0
        #: Who has been given room and has not yet taken it.
        self._next: _Waiting | None = None
        self._again: asyncio.TimerHandle | asyncio.Handle | None = None
        #: How many came to wait, by priority, and how many were sent away, or gave up.
        self.queued: Counter[str] = Counter()
        self.sent_away = self.gave_up = 0
        #: Whether anyone was sent away since room last came free: then it was wanted, though nobody may wait for it.
        self._turned_away = False
        #: How long those waited that were given room, by cluster.
        self.waits: dict[str, Spread] = {}
        clusters.on_room(self._freed)

    def __repr__(self) -> str:
        return f"<Admission {len(self._queue)} waiting>"

    @property
    def waiting(self) -> dict[str, int]:
        """How many wait now, by priority."""
        return self._queue.by_priority()

    def status(self) -> Mapping[str, object]:
        """Who waits and who waited; for `/status` and `/clusters`."""
        return {
            "waiting": self.waiting,
            "queued": {each.word: self.queued[each.word] for each in Priority},
            "sent_away": self.sent_away,
            "gave_up": self.gave_up,
        }

    @property
    def pressed(self) -> bool:
        """Whether anyone waits."""
        return bool(self._waiting)

    def is_waiting(self, flight: Flight) -> bool:
        """Whether this flight waits."""
        return flight in self._waiting

    async def choose(self, flight: Flight, order: Order, tried: Sequence[str]) -> Choice:
        """Whom to ask, as soon as there is room. Between this and the asking nothing may be awaited."""
        now = self._clock.monotonic()
        deadline_s = now + self._patience_s(flight.priority)
        if not self._waiting:
            choice = self._clusters.choose(tried, order.whose)
            if isinstance(choice, Chosen) or not _worth_waiting(choice, deadline_s - now):
                return choice
        self._numbered += 1
        place = Place(flight.priority, deadline_s, self._numbered)
        match self._queue.ask(place, now):
            case SendAway(retry_after_s):
                self.sent_away += 1
                self._turned_away = True
                return NoneLeft(retry_after_s, busy=True)
            case entered:
                if entered.instead is not None:
                    self._send_away(entered.instead)
        return await self._wait(flight, place, order.whose, tried)

    def spare(self, tried: Collection[str], whose: Whose) -> Chosen | None:
        """Room that nobody waits for; None: there is none."""
        if self._waiting:
            return None
        choice = self._clusters.choose(tried, whose)
        return choice if isinstance(choice, Chosen) else None

    def hurry(self, flight: Flight) -> None:
        """The flight has become more urgent."""
        waiting = self._waiting.get(flight)
        if waiting is not None:
            patience_s = self._patience_s(flight.priority)
            deadline_s = min(waiting.place.deadline_s, self._clock.monotonic() + patience_s)
            self._queue.hurry(waiting.place, flight.priority, deadline_s)
            if not waiting.called.done():
                left_s = deadline_s - self._clock.monotonic()
                waiting.patience.reschedule(asyncio.get_running_loop().time() + left_s)

    def close(self) -> None:
        """Looks no more."""
        if self._again is not None:
            self._again.cancel()

    def _patience_s(self, priority: Priority) -> float:
        return self._limits.wait_s if priority <= Priority.LOOK_AHEAD else self._limits.wait_later_s

    async def _wait(self, flight: Flight, place: Place, whose: Whose, tried: Sequence[str]) -> Choice:
        called: asyncio.Future[Choice] = asyncio.get_running_loop().create_future()
        began_s = self._clock.monotonic()
        patience = asyncio.timeout(place.deadline_s - began_s)
        waiting = _Waiting(place, tried, whose, called, patience)
        self._queue.enter(place)
        self._waiting[flight] = waiting
        self.queued[place.priority.word] += 1
        try:
            async with patience:
                self._on_waiting()
                self._call()
                choice = await called
            if isinstance(choice, Chosen):
                self.waits.setdefault(choice.cluster, Spread()).add(self._clock.monotonic() - began_s)
            return choice
        except TimeoutError:
            self.gave_up += 1
            served_s = self._queue.pace.until_s(len(self._queue))
            return NoneLeft(self._queue.retry_after_s(served_s, self._limits.wait_s), busy=True)
        finally:
            self._leave(flight, waiting)

    def _leave(self, flight: Flight, waiting: _Waiting) -> None:
        self._queue.leave(waiting.place)
        del self._waiting[flight]
        if self._next is waiting:
            self._next = None
        if self._waiting:
            self._look(0.0)

    def _send_away(self, place: Place) -> None:
        """The last in order leaves for one that is more urgent."""
        for waiting in self._waiting.values():
            if waiting.place is place and not waiting.called.done():
                self.sent_away += 1
                served_s = self._queue.pace.until_s(len(self._queue))
                retry_s = self._queue.retry_after_s(served_s, self._patience_s(place.priority))
                waiting.called.set_result(NoneLeft(retry_s, busy=True))
        self._queue.leave(place)

    def _freed(self) -> None:
        """The clusters say that there may be room."""
        self._queue.pace.freed(self._clock.monotonic(), wanted=bool(self._waiting) or self._turned_away)
        self._turned_away = False
        if self._waiting:
            self._look(0.0)

    def _look(self, in_s: float) -> None:
        if self._again is not None:
            self._again.cancel()
        loop = asyncio.get_running_loop()
        self._again = loop.call_later(in_s, self._call) if in_s else loop.call_soon(self._call)

    def _call(self) -> None:
        """Calls the next that can be given room, and sends away whom nobody can serve. One at a time: whoever is called
        has to ask before the room that is left is known."""
        if self._next is not None:
            return None
        now = self._clock.monotonic()
        by_place = {waiting.place: waiting for waiting in self._waiting.values() if not waiting.called.done()}
        answers: dict[tuple[tuple[str, ...], Whose], Choice] = {}
        soonest_s = self._limits.wait_later_s
        for place in self._queue:
            waiting = by_place.get(place)
            if waiting is None:
                continue
            of = (tuple(waiting.tried), waiting.whose)
            choice = answers.get(of) or self._clusters.choose(waiting.tried, waiting.whose)
            answers[of] = choice
            if isinstance(choice, Chosen):
                self._next = waiting
                return waiting.called.set_result(choice)
            if not _worth_waiting(choice, place.deadline_s - now):
                waiting.called.set_result(choice)
            soonest_s = min(soonest_s, choice.retry_after_s)
        if self._waiting:
            self._look(max(soonest_s, LEAST_AGAIN_S))
        return None


def _worth_waiting(none_left: NoneLeft, patience_s: float) -> bool:
    """Whether there may be room in time: exchanges end, or a cluster's patience does."""
    if not none_left.busy or patience_s <= 0:
        return False
    full = any(each.why is Why.FULL for each in none_left.verdicts)
    return full or none_left.retry_after_s <= patience_s
