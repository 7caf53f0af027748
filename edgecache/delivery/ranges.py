"""Conditional and range requests on a recording (RFC 9110 §13, §14). Pure.

Only GET and HEAD are given here: a 304 or 206 is no answer to a POST.
"""

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.ASCII | re.IGNORECASE)
_ETAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"')


@dataclass(frozen=True, slots=True)
class Whole:
    """200 with all bytes."""


@dataclass(frozen=True, slots=True)
class Part:
    """206 with bytes first to last, inclusive."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class NotModified:
    """304: the client has these bytes."""


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """416: no such bytes."""


Portion = Whole | Part | NotModified | Unsatisfiable


def portion(length: int, etag: str, if_none_match: str | None, asked: str | None, if_range: str | None) -> Portion:
    """What to send of a recording of `length` bytes. Preconditions come before the range (§13.2.2)."""
    if if_none_match is not None and _matches(if_none_match, etag):
        return NotModified()
    if asked is None or (if_range is not None and if_range.strip() != f'"{etag}"'):
        return Whole()
    return _part(length, asked)


def _matches(if_none_match: str, etag: str) -> bool:
    return if_none_match.strip() == "*" or etag in _ETAG.findall(if_none_match)


def _part(length: int, asked: str) -> Portion:
    """One range is served; several, or another unit, or bad syntax may be ignored (§14.2)."""
    match = _RANGE.fullmatch(asked.strip())
    if match is None or match.groups() == ("", ""):
        return Whole()
    first, last = match.groups()
    if not first:
        return Part(max(0, length - int(last)), length - 1) if int(last) and length else Unsatisfiable()
    start, end = int(first), min(int(last), length - 1) if last else length - 1
    if last and int(last) < start:
        return Whole()
    return Part(start, end) if start < length else Unsatisfiable()
