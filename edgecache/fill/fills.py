"""All flights of this node: who leads, who joins, and the task that carries each one out.

Keeps rules 2, 4, 5 and 7: a fill belongs to the node and not to the request that began it; another cluster is asked only
before the first audio; only what `seal` lets pass is kept; flights, their bytes and their sizes are bounded.
It does not know HTTP towards clients, nor where recordings are kept.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from edgecache.cache.key import Key
from edgecache.cache.recording import Recording
from edgecache.clock import Clock
from edgecache.clusters.fault import Fault, UpstreamFault
from edgecache.clusters.selection import NoneLeft
from edgecache.errors import ClientError, NodeError, SpeechError, UpstreamError
from edgecache.fill.attempt import Attempt, Clusters, Order, Terms, full
from edgecache.fill.flight import Flight, State
from edgecache.option import option


@dataclass(frozen=True, slots=True)
class FillLimits:
    """Bounds on what is under way (rule 7)."""

    max_flights: int = option(512, "Fills under way at once.", minimum=1)
    max_held_bytes: int = option(256 << 20, "Bytes of renderings held for readers.", minimum=1 << 20)
    max_rendering_bytes: int = option(32 << 20, "The largest rendering; a longer one is broken off.", minimum=1 << 10)
    attempts: int = option(3, "Clusters asked for one fill, before the first byte.", minimum=1)


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
        self._clusters = clusters
        self._keep_recording = keep
        self._terms = Terms(clock, self._keep, limits.max_rendering_bytes, first_audio_s, self._hold)
        #: Flights that may be joined, the oldest first: more than one if clients asked for new takes meanwhile.
        self._takes: dict[Key, list[Flight]] = {}
        self._tasks: dict[asyncio.Task[None], Flight] = {}
        #: Flights that are over, but still read by someone: their bytes are held too.
        self._lingering: set[Flight] = set()
        self._held_bytes = 0
        self.led = self.joined = self.sealed = self.broken = self.refused = 0
        #: Heard whole but not stored, by reason.
        self.unstored: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Fills {len(self._tasks)} under way, {self.held_bytes} bytes held>"

    @property
    def held_bytes(self) -> int:
        """Bytes of all renderings that are under way or still being read."""
        over = {flight for flight in self._lingering if not flight.readers}
        self._lingering -= over
        self._held_bytes -= sum(flight.rendering.length for flight in over)
        return self._held_bytes

    @property
    def under_way(self) -> int:
        """How many flights there are."""
        return len(self._tasks)

    def flight(self, key: Key) -> Flight | None:
        """The flight for this key, if there is one; only a look. The newest take, if newer than what was kept."""
        takes = self._takes.get(key)
        return takes[-1] if takes and not takes[-1].outdated else None

    def join(self, key: Key) -> Flight | None:
        """The flight for this key, if there is one."""
        flight = self.flight(key)
        if flight is not None:
            self.joined += 1
        return flight

    def lead(self, order: Order, *, alone: bool = False) -> Flight:
        """A new flight. alone: nobody may join it. NodeError: there are too many already."""
        self._admit()
        flight = Flight(order.asked.key)
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

    async def drain(self) -> None:
        """Waits until no fill is under way."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    def _admit(self) -> None:
        if len(self._tasks) >= self._limits.max_flights:
            raise NodeError(503, "busy", "This edge has too many syntheses under way.", retry_after_s=1)
        if self.held_bytes >= self._limits.max_held_bytes:
            raise full()

    def _hold(self, more_bytes: int) -> bool:
        """Counts so many more bytes as held, if they may be."""
        limit = self._limits.max_held_bytes
        if self._held_bytes + more_bytes > limit and self.held_bytes + more_bytes > limit:
            return False
        self._held_bytes += more_bytes
        return True

    def _keep(self, flight: Flight, recording: Recording) -> None:
        """Keeps a take, unless one that began later is kept already."""
        if flight.outdated:
            return
        for earlier in self._takes[flight.key]:
            if earlier is flight:
                break
            earlier.outdated = True
        self._keep_recording(recording)

    def _landed(self, task: asyncio.Task[None]) -> None:
        flight = self._tasks.pop(task)
        if not flight.over:  # also when it was cancelled before its first step
            flight.fail(_stopping() if task.cancelled() else _failed())
        if flight.readers:
            self._lingering.add(flight)
        else:
            self._held_bytes -= flight.rendering.length
        self._forget(flight)
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
            await self._fill(flight, order)
        except Exception as error:  # the task's root; `_landed` tells whoever listens
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"a fill failed: {flight!r}", "exception": error}
            )

    async def _fill(self, flight: Flight, order: Order) -> None:
        tried: list[str] = []
        fault: UpstreamFault | None = None
        none_left: NoneLeft | None = None
        for _ in range(self._limits.attempts):
            choice = self._clusters.choose(tried)
            if isinstance(choice, NoneLeft):
                none_left = choice
                break
            tried.append(choice.upstream)
            try:
                return await Attempt(flight, order, choice, self._terms).run(self._clusters)
            except UpstreamFault as met:
                fault = met
                if flight.state is not State.ASKING:
                    return flight.fail(_broken(met))
                self._held_bytes -= flight.rendering.length
                flight.rendering.clear()
                if not met.elsewhere:
                    break
            except NodeError as error:  # no room here, wherever it comes from
                return flight.fail(error)
        flight.fail(_refusal(fault, none_left))
        return None


def _stopping() -> NodeError:
    return NodeError(503, "stopping", "This edge is stopping.", retry_after_s=1)


def _failed() -> NodeError:
    return NodeError(500, "internal_error", "This edge failed; the log has the reason.")


def _broken(fault: UpstreamFault) -> UpstreamError:
    return UpstreamError(502, "broken_off", f"The cluster {fault.cluster} broke off in mid-speech: {fault.detail}.")


def _refusal(fault: UpstreamFault | None, none_left: NoneLeft | None) -> SpeechError:
    """What a client is told when no cluster gave any audio."""
    if fault is None:
        assert none_left is not None
        wait_s = max(1, math.ceil(none_left.retry_after_s))
        if none_left.busy:
            return NodeError(503, "clusters_busy", "Every TTS cluster is busy.", retry_after_s=wait_s)
        return UpstreamError(503, "no_cluster", "No TTS cluster can be reached.", retry_after_s=wait_s)
    where = f"The cluster {fault.cluster}"
    match fault.fault:
        case Fault.REFUSED:
            status = fault.status if fault.status in (400, 404, 413, 422) else 400
            return ClientError(status, "refused_by_cluster", f"{where} refused this utterance with {fault.status}.")
        case Fault.FIRST_BYTE_TIMEOUT | Fault.STALLED | Fault.TOTAL_TIMEOUT:
            return UpstreamError(504, "cluster_too_slow", f"{where} gave no audio in time.")
        case Fault.CONNECT:
            return UpstreamError(503, "no_cluster", f"{where} can't be reached.", retry_after_s=1)
        case Fault.BUSY:
            wait_s = max(1, math.ceil(fault.retry_after_s or 1))
            return UpstreamError(503, "clusters_busy", f"{where} is busy.", retry_after_s=min(wait_s, 60))
        case _:
            return UpstreamError(502, "bad_cluster_answer", f"{where} gave no usable audio: {fault.detail}.")
