"""Whether something grows: a line through readings that a few wild ones do not bend (Theil, Sen). Pure."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

#: More readings than this are thinned out: every pair of them is looked at.
MOST = 300
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Line:
    """per_hour: how much it grows. level: its median."""

    per_hour: float
    level: float


def line(readings: Sequence[tuple[float, float]]) -> Line | None:
    """The line through (seconds, value); its slope is the median of all pairs' slopes. None: there are too few."""
    if len(readings) < 3:
        return None
    thinned = readings[:: -(-len(readings) // MOST)]
    slopes = [(b - a) / (later - at) for (at, a), (later, b) in combinations(thinned, 2) if later > at]
    if not slopes:
        return None
    return Line(statistics.median(slopes) * HOUR_S, statistics.median(value for _, value in readings))
