"""The head of an answer with a recording: what both lanes say of it. Pure.

aiohttp is given these headers as they are; the fast lane keeps them rendered for as long as they stay true. It does not
know how an answer is sent.
"""

import re
import secrets
from typing import NamedTuple

from edgecache.cache import status as cache_status
from edgecache.cache.lookup import Reason, Tier
from edgecache.cache.status import Result
from edgecache.fill.edge import Live, Recorded, Speech

SERVER = "edgecache"
AUDIO_PATH = "/v1/audio/"
#: Behind a recording's path: when which of its words is heard.
TIMINGS = "/timings"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
LAST_DIGITS = [b"%03d" % number for number in range(1000)]


def may_be_id(given: str) -> bool:
    """Whether a client's request id is taken over."""
    return _REQUEST_ID.fullmatch(given) is not None


class Ids:
    """Request ids of our own making: unlike those of other processes, and cheap: a thousand share all but the end."""

    __slots__ = ("_process", "_thousands", "block", "last")

    def __init__(self, thousands: int = 0) -> None:
        """thousands: where they begin."""
        self._process = secrets.token_hex(4)
        self._thousands = thousands - 1
        self.block, self.last = b"", 999

    def take(self) -> tuple[bytes, bytes]:
        """The next one, in two pieces."""
        self.last += 1
        return (self.block, LAST_DIGITS[self.last]) if self.last < 1000 else self.renewed()

    def renewed(self) -> tuple[bytes, bytes]:
        """The first of the next thousand."""
        self._thousands += 1
        self.block, self.last = f"{self._process}-{self._thousands}".encode(), 0
        return self.block, LAST_DIGITS[0]


_ids = Ids()


def request_ids() -> Ids:
    """This process's."""
    return _ids


def new_request_id() -> str:
    """An id for a request that brought none."""
    block, last = _ids.take()
    return (block + last).decode()


class Times(NamedTuple):
    """What differs from one answer with a recording to the next, as text. elapsed_ms: since the request's head was read."""

    elapsed_ms: str
    age_s: str
    ttl_s: str


def recorded(node: str, found: Recorded, method: str, elapsed_ms: str) -> dict[str, str]:
    """The headers of a recording that is served whole. elapsed_ms: since the request's head was read, as `duration`."""
    return recorded_at(node, found, method, Times(elapsed_ms, seconds(found.age_s), seconds(found.ttl_s)))


def recorded_at(node: str, found: Recorded, method: str, times: Times) -> dict[str, str]:
    """The same, with these times and not those of what was found."""
    facts = found.recording.facts
    if found.forward_status is None:
        told = cache_status.hit(node, times.ttl_s, found.tier)
    else:
        told = cache_status.stale(node, times.ttl_s, found.forward_status)
    headers = {
        "Content-Type": facts.media_type,
        "Cache-Control": cache_control(method),
        "Cache-Status": told,
        "Age": times.age_s,
        "ETag": f'"{facts.etag}"',
        "Content-Location": AUDIO_PATH + found.recording.key,
        "Server-Timing": f"cache;desc={found.tier.value};dur={times.elapsed_ms}, made;dur={facts.first_audio_ms:.2f}",
    }
    if facts.timings:
        headers["Link"] = f'<{AUDIO_PATH}{found.recording.key}{TIMINGS}>; rel="describedby"; type="application/json"'
    if method != "POST":
        headers["Accept-Ranges"] = "bytes"
    return headers


class Made(NamedTuple):
    """What differs from one answer with speech that is being made to the next, as text."""

    elapsed_ms: str
    first_audio_ms: str
    key: str


def forwarded(node: str, live: Live, method: str, elapsed_ms: str, ttl_s: float) -> dict[str, str]:
    """The headers of speech that is being made. ttl_s: how long it will be fresh."""
    made = Made(elapsed_ms, duration(live.head.first_audio_s * 1000), live.flight.key)
    return forwarded_at(node, live, method, made, ttl_s)


def forwarded_at(node: str, live: Live, method: str, made: Made, ttl_s: float) -> dict[str, str]:
    """The same, with this and not what the flight says."""
    head = live.head
    asked = f"followed/{head.cluster}" if head.followed else head.cluster
    told = cache_status.forwarded(
        node, live.reason, asked, collapsed=live.joined, stored_ttl_s=ttl_s if head.stored else None
    )
    headers = {
        "Content-Type": head.media_type,
        "Cache-Control": cache_control(method),
        "Cache-Status": told,
        "Server-Timing": f"cache;desc=miss;dur={made.elapsed_ms}, upstream;dur={made.first_audio_ms}",
        "X-Accel-Buffering": "no",
    }
    if head.stored:
        headers["Content-Location"] = AUDIO_PATH + made.key
    return headers


def result(speech: Speech) -> Result:
    """How the cache did, in one word."""
    if isinstance(speech, Recorded):
        return _RECORDED[speech.tier] if speech.forward_status is None else Result.STALE
    return forwarded_result(speech.reason, joined=speech.joined)


def forwarded_result(reason: Reason, *, joined: bool) -> Result:
    """The same of what goes forward."""
    return Result.COLLAPSED if joined else _FORWARDED[reason]


_RECORDED = {Tier.MEMORY: Result.HIT_MEMORY, Tier.REDIS: Result.HIT_REDIS}
_FORWARDED = {
    Reason.URI_MISS: Result.MISS,
    Reason.STALE: Result.MISS,
    Reason.REQUEST: Result.MISS,
    Reason.BYPASS: Result.BYPASS,
}


def cache_control(method: str) -> str:
    """What caches in between may do with speech: keep nothing, or ask us first."""
    return "no-store" if method == "POST" else "private, no-cache"


def seconds(exactly_s: float) -> str:
    """As `Age` and `Cache-Status` have them: those that are over."""
    return str(int(exactly_s))


def duration(milliseconds: float) -> str:
    """As `Server-Timing` has it."""
    return f"{milliseconds:.2f}"
