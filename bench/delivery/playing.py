"""What players of many streams would have heard, from when how much audio came: `measures.playback`, at clients. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bench.delivery.listening import SECOND_BYTES, Told
from edgecache.measures.ladder import BOUNDS_S
from edgecache.measures.playback import Playback

#: How much audio a player wants before it begins; the default of `slo.cushion`.
CUSHION_S = 0.1


@dataclass(slots=True)
class Listened:
    """Many streams. first_ms: of each, by what it was. jitter: how many pieces were waited for so long, by ladder."""

    first_ms: dict[str, list[float]] = field(default_factory=dict)
    pieces: int = 0
    jitter: dict[int, int] = field(default_factory=dict)
    streams: int = 0
    dry: int = 0

    def add(self, told: Told) -> None:
        """One more stream, which was heard to its end."""
        self.streams += 1
        self.first_ms.setdefault(told.cache, []).append(told.first_s * 1000)
        playback = Playback(CUSHION_S)
        for at_s, many in told.arrivals:
            playback.hand(at_s, many / SECOND_BYTES, at_s)
            playback.taken(at_s)
        played = playback.played()
        assert played is not None
        self.pieces += played.pieces
        self.dry += bool(played.gaps)
        for buckets in played.jitter.values():
            for bucket, many in buckets.items():
                self.jitter[bucket] = self.jitter.get(bucket, 0) + many

    def jitter_ms(self, share: float) -> float:
        """The bound (2 % wide) under which this share of all pieces was waited for; most are not waited for at all."""
        counted = self.pieces - sum(self.jitter.values())
        if counted >= share * self.pieces:
            return 0.0
        for bucket in sorted(self.jitter):
            counted += self.jitter[bucket]
            if counted >= share * self.pieces:
                return 1000 * (BOUNDS_S[bucket] if bucket < len(BOUNDS_S) else float("inf"))
        return float("nan")

    @property
    def all_first_ms(self) -> list[float]:
        return [each for many in self.first_ms.values() for each in many]


def quantile(values: Iterable[float], share: float) -> float:
    """The least value that this share of all is not above; nan of nothing."""
    ordered: Sequence[float] = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
