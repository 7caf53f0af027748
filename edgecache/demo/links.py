"""What becomes of a packet between two places: when it arrives, or why it never does. Pure: `now` is passed in.

Keeps two rules: packets of one way keep their order unless its link says that they may not; and what is on the way is
bounded. It does not know what a packet holds, nor who carries it.
"""

import heapq
import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

#: How much may be on one way: half a second of 64 MB/s. What comes past it is dropped, as by a full router.
ROOM_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Link:
    """What lies between two places, the same both ways.

    rtt_ms: both ways together. jitter_ms: each packet takes up to this much longer, each way. loss: the share of packets
    that are lost, each way. reorder: jitter may let a packet overtake another. cut: nothing arrives, nor what is on the way.
    """

    rtt_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    reorder: bool = False
    cut: bool = False

    def __post_init__(self) -> None:
        if self.rtt_ms < 0 or self.jitter_ms < 0 or not 0 <= self.loss <= 1:
            raise ValueError(f"there is no such link: {self}")

    @property
    def one_way_s(self) -> float:
        """Without jitter."""
        return self.rtt_ms / 2000

    @property
    def chooses(self) -> bool:
        """Whether packets fare differently, so that each has to be one of the network's size."""
        return self.loss > 0 or self.reorder


@dataclass(slots=True)
class Fared:
    """What became of the packets of one way. full: dropped because too much was on it."""

    packets: int = 0
    bytes: int = 0
    lost: int = 0
    cut: int = 0
    full: int = 0


class Way:
    """One direction of a link."""

    __slots__ = ("_chance", "_last_due_s", "_room_bytes", "fared", "link", "on_it_bytes")

    def __init__(self, link: Link, seed: str = "", room_bytes: int = ROOM_BYTES) -> None:
        self.link = link
        self.fared = Fared()
        self.on_it_bytes = 0
        self._chance = random.Random(seed)
        self._room_bytes = room_bytes
        self._last_due_s = 0.0

    def __repr__(self) -> str:
        return f"<Way {self.link} {self.on_it_bytes} bytes on it, {self.fared}>"

    def due_s(self, size_bytes: int, now: float) -> float | None:
        """When a packet that leaves now arrives; None: it never does."""
        link, fared = self.link, self.fared
        if link.cut:
            fared.cut += 1
            return None
        if link.loss and self._chance.random() < link.loss:
            fared.lost += 1
            return None
        if self.on_it_bytes + size_bytes > self._room_bytes:
            fared.full += 1
            return None
        due_s = now + link.one_way_s
        if link.jitter_ms:
            due_s += self._chance.random() * link.jitter_ms / 1000
        if not link.reorder:
            due_s = max(due_s, self._last_due_s)
        self._last_due_s = max(due_s, self._last_due_s)
        self.on_it_bytes += size_bytes
        return due_s

    def arrives(self, size_bytes: int) -> bool:
        """Whether a packet whose time has come does arrive: the link may have been cut meanwhile."""
        self.on_it_bytes -= size_bytes
        if self.link.cut:
            self.fared.cut += 1
            return False
        self.fared.packets += 1
        self.fared.bytes += size_bytes
        return True


class Transit:
    """All ways, by whence and whither, and the packets on them."""

    def __init__(self, ways: Mapping[tuple[int, int], Way]) -> None:
        self._ways = ways
        self._heap: list[tuple[float, int, int, Way, bytes]] = []
        self._count = 0

    def __repr__(self) -> str:
        return f"<Transit of {len(self._heap)} packets on {len(self._ways)} ways>"

    @property
    def next_due_s(self) -> float | None:
        """When the next packet is due; None: there is none."""
        return self._heap[0][0] if self._heap else None

    def leaves(self, whence: int, whither: int, packet: bytes, now: float) -> None:
        """A packet sets out. One that no way leads for is gone."""
        way = self._ways.get((whence, whither))
        due_s = way.due_s(len(packet), now) if way else None
        if way and due_s is not None:
            self._count += 1
            heapq.heappush(self._heap, (due_s, self._count, whither, way, packet))

    def arrived(self, now: float) -> Iterator[tuple[float, int, bytes]]:
        """What is due by now: since when, whither, and the packet."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            due_s, _, whither, way, packet = heapq.heappop(heap)
            if way.arrives(len(packet)):
                yield due_s, whither, packet


def spelled(link: Link) -> dict[str, Any]:
    """The link as JSON has it; `Link(**…)` reads it."""
    return asdict(link)
