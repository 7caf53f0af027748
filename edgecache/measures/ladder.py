"""A ladder of bounds for times, and histograms on it: quantiles within a stated error, whoever counted. Pure.

Every histogram of a node stands on the same ladder, so those of several workers add up bucket by bucket, and one counts for
all its readers: Prometheus, SLOs and the dashboard. It does not know what is counted.

Theory (DDSketch, Masson et al., VLDB '19). A bucket whose bounds a < b differ by at most the factor (1 + e) / (1 - e)
stands for 2ab / (a + b), which no value of it is further from than e times itself. DDSketch spaces its bounds evenly in the
logarithm; here every bound that someone may want to count by exactly is a rung too, and what is between two of them is
divided evenly, in steps no wider than that.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from math import ceil, log
from operator import add, sub

import msgspec

#: No quantile is further from the true one than this share of it, between the ends of the ladder.
RELATIVE_ERROR = 0.02
#: Upper bounds that Prometheus is shown, in seconds (inclusive, as it has them).
SHOWN_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Bounds that are counted by exactly, besides those: what the objectives go by if nobody says otherwise.
_MARKED_S = (0.00001, 0.0001, 0.02, 0.15, 100.0)


def _rungs(marks: Sequence[float]) -> Iterable[float]:
    widest = log((1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR))
    for low, high in pairwise(marks):
        steps = ceil(log(high / low) / widest - 1e-9)
        yield from (low * (high / low) ** (step / steps) for step in range(steps))
    yield marks[-1]


#: Upper bounds of the buckets, inclusive, in seconds; one more bucket is above them all.
BOUNDS_S = tuple(_rungs(sorted({*SHOWN_S, *_MARKED_S})))


def place(value_s: float) -> int:
    """The bucket that this time is in."""
    return bisect_left(BOUNDS_S, value_s)


class Spread(msgspec.Struct):
    """Times by bucket, and their sum."""

    buckets: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total_s: float = 0.0

    def __repr__(self) -> str:
        return f"<Spread of {self.count}>"

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.buckets)

    def add(self, value_s: float) -> None:
        """One more."""
        self.buckets[bisect_left(BOUNDS_S, value_s)] += 1
        self.total_s += value_s

    def merge(self, other: "Spread") -> None:
        """All of the other's too."""
        self.buckets = list(map(add, self.buckets, other.buckets))
        self.total_s += other.total_s

    def since(self, earlier: "Spread") -> "Spread":
        """What came after that; nothing where it has become less, as after a restart."""
        came = list(map(sub, self.buckets, earlier.buckets))
        if min(came) < 0:
            came = [max(0, each) for each in came]
        return Spread(came, max(0.0, self.total_s - earlier.total_s))

    def within(self, limit_s: float) -> int:
        """How many are at most so long for certain: exact where the limit is a rung, else a bucket's width too few."""
        rung = bisect_left(BOUNDS_S, limit_s * (1 + 1e-9))
        exact = rung < len(BOUNDS_S) and abs(BOUNDS_S[rung] - limit_s) <= limit_s * 1e-9
        return sum(self.buckets[: rung + 1] if exact else self.buckets[:rung])

    def quantile(self, share: float) -> float | None:
        """The least time that so large a share of all do not exceed, within RELATIVE_ERROR; None: there are none."""
        up_to = list(accumulate(self.buckets))
        rank = max(1, ceil(share * up_to[-1] - 1e-9))
        return _stands_for(bisect_left(up_to, rank)) if up_to[-1] else None


def merged(spreads: Iterable[Spread]) -> Spread:
    """All of them as one."""
    whole = Spread()
    for each in spreads:
        whole.merge(each)
    return whole


def _stands_for(bucket: int) -> float:
    if bucket == 0:
        return BOUNDS_S[0]
    if bucket == len(BOUNDS_S):
        return BOUNDS_S[-1]
    low, high = BOUNDS_S[bucket - 1], BOUNDS_S[bucket]
    return 2 * low * high / (low + high)
