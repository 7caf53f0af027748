"""Conditional and range requests on a recording (RFC 9110 §13, §14). Pure.

Only GET and HEAD are given here: a 304 or 206 is no answer to a POST.
"""

import re
from dataclasses import dataclass
from typing import assert_never

import msgspec

from edgecache.errors import ClientError

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


class Conditions(msgspec.Struct, frozen=True):
    """What a GET or HEAD asks of a recording, as it was sent."""

    if_none_match: str | None
    asked_range: str | None
    if_range: str | None


class Reply(msgspec.Struct, frozen=True):
    """What is sent of a recording. headers: those that come with the status."""

    status: int
    headers: dict[str, str]
    body: bytes


Portion = Whole | Part | NotModified | Unsatisfiable


def portion(length: int, etag: str, if_none_match: str | None, asked: str | None, if_range: str | None) -> Portion:
    """What to send of a recording of `length` bytes. Preconditions come before the range (§13.2.2)."""
    if if_none_match is not None and _matches(if_none_match, etag):
        return NotModified()
    if asked is None or (if_range is not None and if_range.strip() != f'"{etag}"'):
        return Whole()
    return _part(length, asked)


def narrowed(audio: bytes, etag: str, asked: Conditions) -> Reply:
    """The part of a recording that is asked for. ClientError 416: there is no such part."""
    length = len(audio)
    match portion(length, etag, asked.if_none_match, asked.asked_range, asked.if_range):
        case Whole():
            return Reply(200, {}, audio)
        case NotModified():
            return Reply(304, {}, b"")
        case Part(first, last):
            return Reply(206, {"Content-Range": f"bytes {first}-{last}/{length}"}, audio[first : last + 1])
        case Unsatisfiable():
            raise ClientError(416, "range", f"The recording has {length} bytes.")
        case _ as never:
            assert_never(never)


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
