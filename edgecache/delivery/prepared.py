"""A recording's head as bytes, rendered once for as long as every word of it stays true. Pure.

Two things differ with each answer: how long it took, and the request's id. All else changes at most once a second, as
`Age`, the time to live and `Date` do. What is said comes from `delivery.head`; here it is only spelled out.
"""

from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from math import floor

import msgspec

from edgecache.cache.lookup import Tier
from edgecache.cache.recording import Facts, Recording
from edgecache.delivery.head import SERVER, duration, recorded
from edgecache.delivery.ranges import Reply
from edgecache.fill.edge import Recorded

#: Stands where something differs with each answer; no header of ours can hold it.
_GAP = "\0"
#: Durations below 10 ms as text, by hundredths of a millisecond.
_DURATIONS = [duration(hundredths / 100).encode() for hundredths in range(1000)]


class Prepared(msgspec.Struct, frozen=True):
    """A head with two gaps, of this recording from this tier, true from `from_s` to before `until_s` (Unix seconds).

    purges: how often anything had been purged when it was found to be a hit.
    """

    facts: Facts
    tier: Tier
    from_s: float
    until_s: float
    first: bytes
    second: bytes
    third: bytes
    purges: int = 0

    def serves(self, recording: Recording, tier: Tier, wall_now: float, purges: int = 0) -> bool:
        """Whether every word is true of this recording now, as it was found to be a hit before."""
        return (
            self.from_s <= wall_now < self.until_s
            and (self.facts is recording.facts or self.facts == recording.facts)
            and self.tier is tier
            and self.purges == purges
        )

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
    first, second, third = spelled(whole, recorded(node, found, method, _GAP), _GAP, wall_now).split(_GAP.encode())
    until_s = min(floor(wall_now) + 1, wall_now + 1 - found.age_s % 1, wall_now + found.ttl_s % 1)
    return Prepared(found.recording.facts, found.tier, wall_now, until_s, first, second, third, purges)


def spelled(reply: Reply, headers: Mapping[str, str], request_id: str, wall_now: float) -> bytes:
    """The head of this reply as it is sent; `headers`: what else is said in it."""
    all_headers = {**headers, **reply.headers, "Server": SERVER, "X-Request-Id": request_id}
    if reply.status != HTTPStatus.NOT_MODIFIED:
        all_headers["Content-Length"] = str(len(reply.body))
    all_headers["Date"] = formatdate(wall_now, usegmt=True)
    start = f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"
    return "\r\n".join([start, *[f"{name}: {text}" for name, text in all_headers.items()], "", ""]).encode()
