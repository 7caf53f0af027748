"""What was measured, and ratios of it: within a round only, because between rounds the machine is another one. Pure.

Rounds in which other processes took their part of the machine are left out, unless there are no others.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

#: Loads of an open loop: half of what the slowest server can, and half of what this one can.
HALF, OWN_HALF = "half of the slowest", "half of its own"
#: Not of a server: `GET`s of the bare loop.
GETS = "gets"
#: Of a core. Where other processes used more than this, a figure says little.
DISTURBED = 0.05


@dataclass(frozen=True, slots=True)
class Cell:
    """One load on one size. size: of the audio, in bytes."""

    load: str
    size: int
    connections: int

    @property
    def open(self) -> bool:
        """Whether it follows a schedule."""
        return self.load in (HALF, OWN_HALF)

    def __str__(self) -> str:
        kind = f"open loop at {self.load}" if self.open else f"{self.load} requests"
        plural = "s" if self.connections > 1 else ""
        return f"{self.size >> 10} KiB, {kind}, {self.connections} connection{plural}"


@dataclass(frozen=True, slots=True)
class Sample:
    """One cell of one contender in one round. filled: answers that were no hits, which the cluster had to give.

    busy: the part of its core that the server used; load_busy: the load generator. others: what processes that are not ours
    used meanwhile, in cores. Latencies: of open loops.
    """

    contender: str
    cell: Cell
    round: int
    rate: float
    cpu_us: float
    busy: float
    load_busy: float
    others: float = 0.0
    failed: int = 0
    filled: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None
    lag_p99_ms: float | None = None

    @property
    def disturbed(self) -> bool:
        """Whether other processes took a part of the machine."""
        return self.others > DISTURBED


@dataclass(frozen=True, slots=True)
class Spread:
    """The median over rounds, and between what they lay."""

    median: float
    low: float
    high: float
    rounds: int

    def told(self, form: str) -> str:
        """As the tables have it; form: of each number."""
        return f"{self.median:{form}} ({self.low:{form}}..{self.high:{form}})"


def spread(values: Sequence[float]) -> Spread | None:
    """None: nothing was measured."""
    return Spread(statistics.median(values), min(values), max(values), len(values)) if values else None


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of one contender in a cell; field: of `Sample`."""

    contender: str
    cell: Cell
    field: str = "rate"

    def over_rounds(self, samples: Iterable[Sample]) -> Spread | None:
        """The number."""
        found = self._found(samples)
        return spread([self._value(found[number]) for number in _counted(found)])

    def in_units_of(self, other: "Figure", samples: Sequence[Sample]) -> Spread | None:
        """The ratio to another one, round by round."""
        mine, theirs = self._found(samples), other._found(samples)
        counted = _counted(mine, theirs)
        return spread([self._value(mine[number]) / other._value(theirs[number]) for number in counted])

    def _found(self, samples: Iterable[Sample]) -> dict[int, Sample]:
        """Each round in which it was measured, and came to something."""
        found = (each for each in samples if each.contender == self.contender and each.cell == self.cell)
        return {each.round: each for each in found if getattr(each, self.field)}

    def _value(self, sample: Sample) -> float:
        return float(getattr(sample, self.field))


def disturbed(samples: Sequence[Sample], *figures: Figure) -> bool:
    """Whether they have no round together without others' part in it."""
    found = [each._found(samples) for each in figures]
    return any(each[number].disturbed for number in _counted(*found) for each in found)


def _counted(*found: Mapping[int, Sample]) -> list[int]:
    """The rounds that all have, without the disturbed ones unless there are no others."""
    rounds = sorted(set.intersection(*(set(each) for each in found)))
    clean = [number for number in rounds if not any(each[number].disturbed for each in found)]
    return clean or rounds
