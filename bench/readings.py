"""Numbers that were read off in rounds, and what is made of them: spreads, differences, ratios, verdicts. Pure.

What is compared is compared within a round, because between rounds the machine is another one. Rounds in which other
processes took their part of the machine are left out, unless there are no others. It does not know what a number means.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.samples import DISTURBED, Spread, spread
from bench.telling import aligned

_DASH = "-"
_WORDS = {True: "met", False: "NOT MET", None: "not measured"}


@dataclass(frozen=True, slots=True)
class Reading:
    """What one contender came to in a cell and a round. others: what processes that are not ours used, in cores."""

    who: str
    cell: str
    round: int
    values: Mapping[str, float]
    others: float = 0.0

    @property
    def disturbed(self) -> bool:
        """Whether other processes took a part of the machine."""
        return self.others > DISTURBED


@dataclass(frozen=True, slots=True)
class Number:
    """One value of one contender in a cell. over: the contender whose own is taken off it, round by round."""

    who: str
    cell: str
    value: str
    over: str = ""


class Book:
    """All readings of a run."""

    def __init__(self, readings: Iterable[Reading]) -> None:
        self.readings = list(readings)
        self._found = {(each.who, each.cell, each.round): each for each in self.readings}

    def spread(self, number: Number) -> Spread | None:
        """The number over the rounds; None: it was never read."""
        return self._over_rounds([number], lambda values: values[0])

    def ratio(self, number: Number, other: Number) -> Spread | None:
        """In units of the other; None: they were never read in one round, or the other is nothing."""
        return self._over_rounds([number, other], lambda values: values[0] / values[1] if values[1] > 0 else None)

    def disturbed(self, *numbers: Number) -> bool:
        """Whether they have no round together without others' part in it."""
        return not any(clean for _, clean in self._rounds(numbers))

    def faults(self, who: str, cell: str, *values: str) -> list[str]:
        """Those counts of a contender that are not 0, in words."""
        here = [each for each in self.readings if (each.who, each.cell) == (who, cell)]
        counts = {value: sum(each.values.get(value, 0) for each in here) for value in values}
        disturbed = sum(each.disturbed for each in here)
        told = [f"{count:.0f} {value.upper()}" for value, count in counts.items() if count]
        return [*told, *([f"{disturbed} of {len(here)} disturbed"] if disturbed else [])]

    def _over_rounds(self, numbers: Sequence[Number], made: Callable[[Sequence[float]], float | None]) -> Spread | None:
        rounds = self._rounds(numbers)
        counted = [at for at, clean in rounds if clean] or [at for at, _ in rounds]
        found = (made([self._value(number, at) for number in numbers]) for at in counted)
        return spread([each for each in found if each is not None])

    def _rounds(self, numbers: Sequence[Number]) -> list[tuple[int, bool]]:
        """Those that have all of them, and whether nobody disturbed."""
        needed = {(who, number.cell) for number in numbers for who in (number.who, number.over) if who}
        found = []
        for at in sorted({each.round for each in self.readings}):
            here = [self._found.get((*each, at)) for each in needed]
            there = [each for each in here if each is not None]
            if len(there) == len(here) and all(self._has(number, at) for number in numbers):
                found.append((at, not any(each.disturbed for each in there)))
        return found

    def _has(self, number: Number, at: int) -> bool:
        whose = [who for who in (number.who, number.over) if who]
        return all(number.value in self._found[who, number.cell, at].values for who in whose)

    def _value(self, number: Number, at: int) -> float:
        value = self._found[number.who, number.cell, at].values[number.value]
        return value - self._found[number.over, number.cell, at].values[number.value] if number.over else value


@dataclass(frozen=True, slots=True)
class Asked:
    """A target. bound: what the number, or its ratio to `beside`, may at most be; `at_least`: must at least be."""

    told: str
    bound: float
    number: Number
    beside: Number | None = None
    at_least: bool = False

    def measured(self, book: Book) -> Spread | None:
        """What it came to."""
        return book.ratio(self.number, self.beside) if self.beside else book.spread(self.number)

    def met(self, book: Book) -> bool | None:
        """Whether the median keeps the bound; None: it was not measured."""
        found = self.measured(book)
        if found is None:
            return None
        return found.median >= self.bound if self.at_least else found.median <= self.bound

    def row(self, book: Book) -> list[str]:
        """As the table has it."""
        found = self.measured(book)
        sides = [self.number, *([self.beside] if self.beside else [])]
        note = "disturbed" if found and book.disturbed(*sides) else ""
        sign = "≥" if self.at_least else "≤"
        return [
            self.told,
            f"{sign} {self.bound:g}",
            found.told(".2f") if found else _DASH,
            _WORDS[self.met(book)],
            note,
        ]

    def document(self, book: Book) -> dict[str, Any]:
        """As JSON has it."""
        found = self.measured(book)
        measured = asdict(found) if found else None
        return {"target": self.told, "bound": self.bound, "measured": measured, "met": self.met(book)}


def verdicts(asked: Sequence[Asked], book: Book) -> str:
    """The table of targets."""
    return aligned([["target", "asked", "median (min..max)", "", ""], *(each.row(book) for each in asked)])


def told(found: Spread | None, form: str = ".2f") -> str:
    """A number in a table."""
    return found.told(form) if found else _DASH
