"""A recording's head as bytes, rendered once. Pure.

Two things differ with each answer: how long it took, and the request's id. `Age`, the time to live and `Date` change once a
second: they are filled in anew, the rest stays as it was rendered, for as long as the recording's facts do. What is said
comes from `delivery.head`; here it is only spelled out.
"""

from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from math import floor

import msgspec

from edgecache.cache.lookup import Tier
from edgecache.cache.recording import Facts, Recording
from edgecache.delivery.head import SERVER, Times, duration, recorded_at
from edgecache.delivery.ranges import Reply
from edgecache.fill.edge import Recorded

#: Stands where something differs; no header of ours can hold it. Told apart by where they come: time to live, age, how
#: long it took, the request's id, the date.
_GAP = "\0"
_GAPS = Times(_GAP, _GAP, _GAP)
#: Durations below 10 ms as text, by hundredths of a millisecond.
_DURATIONS = [duration(hundredths / 100).encode() for hundredths in range(1000)]

#: What comes before, between and behind the five gaps.
Pieces = tuple[bytes, bytes, bytes, bytes, bytes, bytes]


class Prepared(msgspec.Struct, frozen=True):
    """A head with two gaps, of this recording from this tier, true from `from_s` to before `until_s` (Unix seconds).

    purges: how often anything had been purged when it was found to be a hit. pieces: the same with all five gaps. ends_s:
    until when it is fresh, if nothing is purged.
    """

    facts: Facts
    tier: Tier
    from_s: float
    until_s: float
    first: bytes
    second: bytes
    third: bytes
    purges: int
    pieces: Pieces
    ends_s: float

    def serves(self, recording: Recording, tier: Tier, wall_now: float, purges: int = 0) -> bool:
        """Whether every word is true of this recording now, as it was found to be a hit before."""
        return self.from_s <= wall_now < self.until_s and self.purges == purges and self.tells_of(recording, tier)

    def tells_of(self, recording: Recording, tier: Tier) -> bool:
        """Whether every word but times is true of this recording."""
        return (self.facts is recording.facts or self.facts == recording.facts) and self.tier is tier

    def renewed(self, found: Recorded, wall_now: float, purges: int) -> "Prepared":
        """The head of this hit, of which it tells, with the times as they are now."""
        return _filled((self.facts, self.tier, self.pieces), found.age_s, wall_now + found.ttl_s, wall_now, purges)

    def aged(self, wall_now: float) -> tuple[bytes, bytes, float] | None:
        """Its first and last part as of now, and for how long they are true, if nothing was purged since.

        None: it may be no hit any more, and is to be judged.
        """
        age_s = wall_now - self.facts.made_at
        if age_s < 0 or not self.from_s <= wall_now < self.ends_s:
            return None
        return _times(self.pieces, age_s, self.ends_s - wall_now, wall_now)

    def head(self, elapsed_s: float, request_id: str) -> bytes:
        """The whole head, to the empty line."""
        return b"".join((self.first, spelled_duration(elapsed_s), self.second, request_id.encode(), self.third))


def spelled_duration(elapsed_s: float) -> bytes:
    """As `Server-Timing` has it."""
    hundredths = int(elapsed_s * 100_000 + 0.5)
    return _DURATIONS[hundredths] if 0 <= hundredths < 1000 else duration(elapsed_s * 1000).encode()


def prepare(node: str, found: Recorded, method: str, wall_now: float, purges: int = 0) -> Prepared:
    """The head of this hit, served whole."""
    whole = Reply(200, {}, found.recording.audio)
    text = _lines(whole, recorded_at(node, found, method, _GAPS), _GAP, _GAP)
    start, before_age, before_took, before_id, before_date, end = text.split(_GAP.encode())
    pieces = start, before_age, before_took, before_id, before_date, end
    form = found.recording.facts, found.tier, pieces
    return _filled(form, found.age_s, wall_now + found.ttl_s, wall_now, purges)


def _filled(form: tuple[Facts, Tier, Pieces], age_s: float, ends_s: float, wall_now: float, purges: int) -> Prepared:
    facts, tier, pieces = form
    first, third, left_s = _times(pieces, age_s, ends_s - wall_now, wall_now)
    return Prepared(facts, tier, wall_now, wall_now + left_s, first, pieces[3], third, purges, pieces, ends_s)


def _times(pieces: Pieces, age_s: float, ttl_s: float, wall_now: float) -> tuple[bytes, bytes, float]:
    start, before_age, before_took, _, before_date, end = pieces
    first = b"%b%d%b%d%b" % (start, ttl_s, before_age, age_s, before_took)
    third = b"%b%b%b" % (before_date, _date(int(wall_now)), end)
    return first, third, min(1 - wall_now % 1, 1 - age_s % 1, ttl_s % 1)


@lru_cache(maxsize=4)
def _date(second: int) -> bytes:
    return date_line(second).encode()


@lru_cache(maxsize=4)
def date_line(second: int) -> str:
    """As `Date` has this second."""
    return formatdate(second, usegmt=True)


def spelled(reply: Reply, headers: Mapping[str, str], request_id: str, wall_now: float) -> bytes:
    """The head of this reply as it is sent; `headers`: what else is said in it."""
    return _lines(reply, headers, request_id, date_line(floor(wall_now)))


def _lines(reply: Reply, headers: Mapping[str, str], request_id: str, date: str) -> bytes:
    all_headers = {**headers, **reply.headers, "Server": SERVER, "X-Request-Id": request_id}
    if reply.status != HTTPStatus.NOT_MODIFIED:
        all_headers["Content-Length"] = str(len(reply.body))
    all_headers["Date"] = date
    start = f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"
    return "\r\n".join([start, *[f"{name}: {text}" for name, text in all_headers.items()], "", ""]).encode()
