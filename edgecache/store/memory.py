"""Recordings held in this process, within a budget of bytes.

Keeps rules 1 and 7: a recording leaves equal to what came, under the key it came under, and `held_bytes` is exactly the sum
of what is held and never above the budget. It does not know Redis, freshness policy or a clock: `wall_now` is handed in.

Theory (S3-FIFO, Yang et al., SOSP '23). Most of what is heard once is never asked for again. So a new recording waits in
a *small* queue with a tenth of the budget. One that is asked for again while it waits moves on to the *main* queue; the
others leave, and only their keys are remembered for a while, as *ghosts*. Who comes back as a ghost goes to main at once.
Main is a queue with second chances: a recording asked for since its last turn goes to the back again. A hit moves
nothing, it only counts up to three: that is why it is cheap.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from edgecache.cache.key import Key
from edgecache.cache.recording import Recording, folded, unfolded
from edgecache.store.tiers import MemoryLimits

#: The small queue's part of the budget (the paper's 10 %).
SMALL_SHARE = 0.10
#: A recording larger than this part of the budget is refused: to hold it would cost too many others their place.
LARGEST_SHARE = 0.25
#: Counting further changes no decision (the paper's two bits).
FREQUENCY_CAP = 3
#: So often it has to be asked for while it waits, to move on to main: one does a little better than two (bench.hit_ratio).
PROMOTION_FREQUENCY = 1
#: Second chances given for one eviction: bounds the time of a put when everything in main is popular.
SECOND_CHANCES = 64
#: Ghosts are at most as many as recordings held (the paper's bound); a few more where there are hardly any.
FEWEST_GHOSTS = 64


@dataclass(slots=True)
class Counters:
    """What has happened so far."""

    hits: int = 0
    misses: int = 0
    evicted: int = 0
    expired: int = 0
    refused: int = 0
    purged: int = 0


class Place(msgspec.Struct, gc=False):
    """Where a recording stands: its audio, and the rest of it folded. gone: it is not held any more, nor by whoever kept
    the place. touched: someone who had looked it up before, and may do so for as long as it is not gone, has asked for it
    since it was last judged.

    Not looked at by the garbage collector: with a million of them a full collection would stop the node for seconds.
    """

    key: Key
    audio: bytes
    rest: bytes
    expires_at: float
    in_main: bool
    frequency: int
    gone: bool = False
    touched: bool = False

    @property
    def recording(self) -> Recording:
        """What stands here, unfolded. It may not be gone."""
        return unfolded(self.key, self.rest, self.audio)

    def asked_for(self) -> None:
        """Counts once more, up to where it makes no difference."""
        if self.frequency < FREQUENCY_CAP:
            self.frequency += 1

    def leave(self) -> None:
        """Lets go of the recording: the budget no longer counts it."""
        self.gone, self.key, self.audio, self.rest = True, Key(""), b"", b""

    def judge(self) -> int:
        """How often it was asked for, as far as that makes a difference."""
        if self.touched:
            self.touched = False
            self.asked_for()
        return self.frequency


class _Queue:
    """Places in order of their coming. An ordered dict would do, and weigh 150 bytes more for each."""

    __slots__ = ("_gone", "_places")

    def __init__(self) -> None:
        self._places: deque[Place] = deque()
        self._gone = 0

    def __len__(self) -> int:
        return len(self._places) - self._gone

    def __iter__(self) -> Iterator[Place]:
        return (place for place in self._places if not place.gone)

    def append(self, place: Place) -> None:
        """Behind all others."""
        self._places.append(place)

    def popleft(self) -> Place:
        """The oldest. IndexError: there is none."""
        while (place := self._places.popleft()).gone:
            self._gone -= 1
        return place

    def drop(self, place: Place) -> None:
        """This one left, wherever it stands; it is swept out once half of the queue has."""
        place.gone = True
        self._gone += 1
        if self._gone > FEWEST_GHOSTS and self._gone * 2 > len(self._places):
            self._places = deque(self)
            self._gone = 0


class MemoryTier:
    """The first tier."""

    __slots__ = ("_ghosts", "_main", "_places", "_small", "_small_bytes", "counters", "held_bytes", "max_size_bytes")

    def __init__(self, limits: MemoryLimits) -> None:
        self.max_size_bytes = limits.max_size_bytes
        self.held_bytes = 0
        self.counters = Counters()
        self._places: dict[Key, Place] = {}
        self._small, self._main = _Queue(), _Queue()
        self._ghosts: OrderedDict[Key, None] = OrderedDict()
        self._small_bytes = 0

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f"<MemoryTier {len(self)} recordings, {self.held_bytes} of {self.max_size_bytes} bytes>"

    def get(self, key: Key, wall_now: float) -> Recording | None:
        """The recording under this key; an expired one is dropped."""
        place = self._places.get(key)
        if place is None:
            self.counters.misses += 1
            return None
        if place.expires_at <= wall_now:
            self._remove(place)
            self.counters.expired += 1
            self.counters.misses += 1
            return None
        place.asked_for()
        self.counters.hits += 1
        return place.recording

    def place(self, key: Key) -> Place | None:
        """Where the recording under this key stands, for who asks for it often: see `Place`, and `heard`."""
        return self._places.get(key)

    def heard(self, times: int) -> None:
        """So many hits were had from places that had been looked up before."""
        self.counters.hits += times

    def look(self, key: Key, wall_now: float) -> Recording | None:
        """As `get`, without any effect on what is kept or counted."""
        place = self._places.get(key)
        return None if place is None or place.expires_at <= wall_now else place.recording

    def put(self, recording: Recording, expires_at: float, wall_now: float) -> bool:
        """Hold this recording, in place of an older one under its key. False: too large, too old, or the tier is off."""
        key = recording.key
        before = self._places.get(key)
        if before is not None:
            self._remove(before)
        if recording.size_bytes > LARGEST_SHARE * self.max_size_bytes or expires_at <= wall_now:
            self.counters.refused += 1
            return False
        self._make_room(recording.size_bytes)
        returned = key in self._ghosts
        if returned:
            del self._ghosts[key]
        if before is None:
            in_main, frequency = returned, 0
        else:
            in_main, frequency = before.in_main, before.frequency
        self._add(Place(key, recording.audio, folded(recording), expires_at, in_main, frequency), recording.size_bytes)
        return True

    def keys(self) -> list[Key]:
        """All keys under which there is something now."""
        return list(self._places)

    def discard(self, key: Key) -> bool:
        """Drop the recording under this key, by order; whether there was one."""
        place = self._places.get(key)
        if place is not None:
            self._remove(place)
            self.counters.purged += 1
        return place is not None

    def _add(self, place: Place, size_bytes: int) -> None:
        self._places[place.key] = place
        self.held_bytes += size_bytes
        if place.in_main:
            self._main.append(place)
        else:
            self._small.append(place)
            self._small_bytes += size_bytes

    def _remove(self, place: Place) -> None:
        (self._main if place.in_main else self._small).drop(place)
        self._forget(place)
        place.leave()

    def _forget(self, place: Place) -> int:
        """A place that is in no queue any more; what it weighed."""
        del self._places[place.key]
        size_bytes = place.recording.size_bytes
        self.held_bytes -= size_bytes
        if not place.in_main:
            self._small_bytes -= size_bytes
        return size_bytes

    def _make_room(self, size_bytes: int) -> None:
        while self.held_bytes + size_bytes > self.max_size_bytes:
            if self._small and (self._small_bytes > SMALL_SHARE * self.max_size_bytes or not self._main):
                self._leave_small()
            else:
                self._leave_main()

    def _leave_small(self) -> None:
        """The oldest of the small queue moves on to main, or leaves and becomes a ghost."""
        place = self._small.popleft()
        key, size_bytes = place.key, self._forget(place)
        if place.judge() >= PROMOTION_FREQUENCY:
            place.in_main, place.frequency = True, 0
            self._add(place, size_bytes)
            return
        place.leave()
        self.counters.evicted += 1
        self._ghosts[key] = None
        while len(self._ghosts) > max(FEWEST_GHOSTS, len(self._places)):
            self._ghosts.popitem(last=False)

    def _leave_main(self) -> None:
        """The oldest of main that was not asked for since its last turn leaves."""
        place = self._main.popleft()
        for _ in range(SECOND_CHANCES):
            if place.judge() == 0:
                break
            place.frequency -= 1
            self._main.append(place)
            place = self._main.popleft()
        self._forget(place)
        place.leave()
        self.counters.evicted += 1
