"""Mistakes in a configuration: where each is, what it is, what to do, and how they are printed, all at once.

Keeps rule 8 for secrets: what a source line shows of a secret is stars. It does not know what may be configured.
"""

import bisect
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from edgecache.errors import SettingsError

#: What a secret is shown as.
HIDDEN = "********"
#: Longer source lines are cut around the caret.
_MAX_LINE = 120
#: PyYAML's idea of a line break, so that our lines are numbered as its marks are.
_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
#: User and password of a URL.
_USERINFO = re.compile(r"(?<=://)[^\s\"'/]*(?=@)|(?<=://)[^\s\"']*:[^\s\"']*(?=@)")
#: A value after a key that sounds secret, for text that could not be read as YAML.
_SOUNDS_SECRET = re.compile(
    r"(?i)(?:key|secret|passw(?:or)?d|token|credential)s?[\"']?\s*:\s*(?P<value>\"[^\"]*\"?|'[^']*'?|[^\s{},\[\]#][^,}\]]*)"
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written: in a file, in an environment variable, or nowhere (then it is the default).

    line and column count from 1. until: where it ends, as line and column.
    """

    file: str | None = None
    line: int = 0
    column: int = 0
    variable: str | None = None
    until: tuple[int, int] = field(default=(0, 0), compare=False, repr=False)

    def __str__(self) -> str:
        if self.variable is not None:
            return f"environment {self.variable}"
        return f"{self.file}:{self.line}:{self.column}" if self.file else "default"


DEFAULT = Origin()


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. where: the file, or the environment variable. line, column: from 1; None outside a file."""

    where: str
    line: int | None
    column: int | None
    key: str
    message: str
    hint: str | None = None


class SettingsProblems(SettingsError):
    """Every mistake at once; the message is ready to print."""

    def __init__(self, problems: list[Problem], report: str) -> None:
        super().__init__(report)
        self.problems = problems

    def as_json(self) -> list[dict[str, Any]]:
        """For programs."""
        return [asdict(problem) for problem in self.problems]


class Source:
    """The text of a file, for quoting its lines."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.lines = _LINE_BREAK.split(text)
        self._starts = [0, *(match.end() for match in _LINE_BREAK.finditer(text))]
        self._masks: list[Origin] = []
        self.unread = False

    def origin(self, position: int) -> Origin:
        """The place of this character."""
        line = bisect.bisect_right(self._starts, position)
        return Origin(self.name, line, position - self._starts[line - 1] + 1)

    def mask(self, origin: Origin) -> None:
        """What lies here is secret."""
        if origin.file == self.name:
            self._masks.append(origin)

    def quote(self, line: int, column: int) -> tuple[str, str]:
        """The line as it may be shown, and the blank before the caret."""
        text = self.lines[line - 1] if line <= len(self.lines) else ""
        at = min(column - 1, len(text))
        spans = sorted(self._spans(line, text), reverse=True)
        for start, end in spans:
            text = text[:start] + HIDDEN + text[end:]
            if at >= end:
                at += len(HIDDEN) - (end - start)
            elif at > start:
                at = start
        start = max(0, at - _MAX_LINE // 2) if len(text) > _MAX_LINE else 0
        shown = text[start : start + _MAX_LINE]
        return printable(shown), "".join(_blank(character) for character in shown[: at - start])

    def _spans(self, line: int, text: str) -> list[tuple[int, int]]:
        found = [match.span() for match in _USERINFO.finditer(text)]
        if self.unread:
            found += [match.span("value") for match in _SOUNDS_SECRET.finditer(text)]
        for mask in self._masks:
            if mask.line <= line <= mask.until[0]:
                start = mask.column - 1 if mask.line == line else 0
                end = mask.until[1] - 1 if mask.until[0] == line else len(text)
                found.append((start, end))
        return _merged([(start, end) for start, end in found if start < end])


class Findings:
    """Mistakes as they are found."""

    def __init__(self, source: Source | None, nowhere: str) -> None:
        """nowhere: the place of a mistake that has none: the file, or the environment if there is no file."""
        self.source = source
        self.nowhere = nowhere
        self.problems: list[Problem] = []

    def add(self, origin: Origin, key: str, message: str, hint: str | None = None) -> None:
        """One more."""
        where = origin.variable or origin.file or self.nowhere
        line, column = (origin.line, origin.column) if origin.file else (None, None)
        problem = Problem(where, line, column, key, printable(message), printable(hint) if hint else None)
        if problem not in self.problems:
            self.problems.append(problem)

    def sound(self, *keys: str) -> bool:
        """Whether no mistake is known at these keys or above them."""
        wrong = {problem.key for problem in self.problems}
        return not any(part in wrong for key in keys for part in _upwards(key))

    def error(self) -> SettingsProblems:
        """All of them, to be raised."""
        ordered = sorted(
            self.problems, key=lambda problem: (problem.line is None, problem.line or 0, problem.column or 0)
        )
        return SettingsProblems(ordered, render(ordered, self.source, self.nowhere))


def render(problems: list[Problem], source: Source | None, file: str) -> str:
    """The report, ready to print. file: what is called by its name; all other places are in the environment."""
    parts = [_render(problem, source) for problem in problems]
    places = [problem.where if problem.where == file else "the environment" for problem in problems]
    count = f"{len(problems)} error{'s' if len(problems) > 1 else ''}"
    return "\n\n".join([*parts, f"{count} in {' and '.join(dict.fromkeys(places))}; nothing was applied."])


def _render(problem: Problem, source: Source | None) -> str:
    headline = f"error: {problem.key}: {problem.message}" if problem.key else f"error: {problem.message}"
    hint = f"\n   = {problem.hint}" if problem.hint else ""
    if problem.line is None or problem.column is None or source is None:
        return f"{headline}\n  --> {printable(problem.where)}{hint}"
    number = str(problem.line)
    gap = " " * len(number)
    quoted, blank = source.quote(problem.line, problem.column)
    caret = f"{blank}^ {problem.hint}" if problem.hint else f"{blank}^"
    place = f"{printable(problem.where)}:{problem.line}:{problem.column}"
    return "\n".join(
        [headline, f" {gap}--> {place}", f" {gap} |", f" {number} | {quoted}".rstrip(), f" {gap} | {caret}"]
    )


def shown(value: str, limit: int = 60) -> str:
    """A value as a message quotes it: in quotes, cut, and without a URL's password."""
    text = without_userinfo(value)
    return f'"{text[:limit]}..."' if len(text) > limit else f'"{text}"'


def without_userinfo(text: str) -> str:
    """The same with the user and password of URLs hidden."""
    return _USERINFO.sub(HIDDEN, text)


def sounds_secret(key: str) -> bool:
    """Whether a key of this name, known or not, may hold a secret."""
    return any(sound in key.casefold() for sound in ("key", "secret", "pass", "token", "cred")) and "_file" not in key


def printable(text: str) -> str:
    """The same with what could disturb a terminal replaced."""
    return "".join(character if character.isprintable() or character == "\t" else "\ufffd" for character in text)


def _blank(character: str) -> str:
    """As wide as the character, on a terminal."""
    if character == "\t":
        return "\t"
    if unicodedata.combining(character):
        return ""
    return "  " if unicodedata.east_asian_width(character) in "WF" else " "


def _upwards(key: str) -> Iterable[str]:
    parts = key.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same places, without overlaps."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged
