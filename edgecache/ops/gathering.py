"""What all workers counted, as the daemon's: counters that never fall, whoever dies or is slow to answer. Pure.

A worker's counts carry its name, which no other process ever had. Gauges are of those that answered now; of counters and
histograms the last that was heard of every worker is added up, so that one that ended, or did not answer in time, still
counts. Keeps rule 7: workers that are long gone become one sum.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from edgecache.measures.ladder import BOUNDS_S, Spread
from edgecache.ops.families import FAMILIES, Kind, Merge

#: So many workers that no longer answer are kept apart, the newest; a rolling replacement leaves one for each.
APART = 64

#: A metric's name and its labels' values.
Name = tuple[str, ...]
Figure = float | Spread
Counts = Mapping[Name, Figure]


class Counted:
    """What one worker counts, as it is made up: `add` for each figure."""

    def __init__(self) -> None:
        self.figures: dict[Name, Figure] = {}

    def add(self, name: str, figure: Figure, *labels: str) -> None:
        """One figure of a metric that is in the list; those of the same labels add up."""
        assert len(FAMILIES[name].labels) == len(labels), name
        whole = (name, *labels)
        self.figures[whole] = _joined(Merge.SUM, self.figures.get(whole), figure)


def packed(figures: Counts) -> list[object]:
    """The same in plain values, to be sent between processes."""
    return [
        [list(name), [each.total_s, each.buckets] if isinstance(each, Spread) else each]
        for name, each in figures.items()
    ]


def unpacked(said: Sequence[Any]) -> Counts:
    """What was packed; a figure that this version has no name for is left out."""
    found: dict[Name, Figure] = {}
    for name, figure in said:
        family = FAMILIES.get(name[0])
        if family is None or len(family.labels) != len(name) - 1:
            continue
        if not isinstance(figure, int | float):
            total_s, buckets = figure
            if len(buckets) != len(BOUNDS_S) + 1:
                continue
            figure = Spread(list(buckets), total_s)
        found[tuple(name)] = figure
    return found


class Gathering:
    """The daemon's counts."""

    def __init__(self) -> None:
        #: The last of each worker, the one heard of longest ago first.
        self._last: dict[str, Counts] = {}
        self._gone: Counts = {}
        self._folded: set[str] = set()

    def __repr__(self) -> str:
        return f"<Gathering {len(self._last)} workers, {len(self._folded)} gone>"

    def take(self, answers: Mapping[str, Counts]) -> Counts:
        """All counts now. answers: those of the workers that answered, by name."""
        for name, counts in answers.items():
            if name not in self._folded:
                self._last.pop(name, None)
                self._last[name] = counts
        self._fold(set(answers))
        whole: dict[Name, Figure] = {}
        _pour(whole, self._gone)
        for name, counts in self._last.items():
            _pour(whole, counts if name in answers else _lasting(counts))
        return whole

    def _fold(self, answered: set[str]) -> None:
        silent = [name for name in self._last if name not in answered]
        gone = dict(self._gone)
        for name in silent[: max(0, len(silent) - APART)]:
            _pour(gone, _lasting(self._last.pop(name)))
            self._folded.add(name)
        self._gone = gone


def _lasting(counts: Counts) -> Counts:
    return {name: each for name, each in counts.items() if FAMILIES[name[0]].kind is not Kind.GAUGE}


def _pour(whole: dict[Name, Figure], counts: Counts) -> None:
    for name, each in counts.items():
        whole[name] = _joined(FAMILIES[name[0]].merge, whole.get(name), each)


def _joined(merge: Merge, before: Figure | None, more: Figure) -> Figure:
    """Both as one; neither is changed."""
    if isinstance(more, Spread):
        whole = msgspec.structs.replace(before) if isinstance(before, Spread) else Spread()
        whole.merge(more)
        return whole
    if not isinstance(before, int | float):
        return more
    match merge:
        case Merge.SUM:
            return before + more
        case Merge.LARGEST:
            return max(before, more)
        case Merge.LEAST:
            return min(before, more)
