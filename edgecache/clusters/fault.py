"""What can go wrong with asking a cluster, by name. Pure.

Keeps: every fault says whether another cluster may be asked and whether it counts against the upstream's health; its
detail is safe to log (rule 8). It does not know aiohttp, nor what a client is told.
"""

import email.utils
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from edgecache.clusters.health import MAX_WAIT_S
from edgecache.clusters.reasons import UNNAMED, Named


class Fault(Enum):
    """What went wrong with an exchange."""

    CONNECT = "connect"  # no connection: refused, unreachable, unresolved, too slow
    UNTRUSTED = "untrusted"  # TLS: a certificate, a name or a version that will not do, or no handshake
    MISLED = "misled"  # DNS leads where no cluster should be
    FIRST_BYTE_TIMEOUT = "first byte timeout"
    STALLED = "stalled"  # nothing more in mid-body
    TRICKLED = "trickled"  # something, but far too little to listen to
    TOTAL_TIMEOUT = "total timeout"
    BROKEN = "broken"  # truncated, badly framed, reset
    PROTOCOL = "protocol"  # the head is not HTTP as it should be
    STATUS = "status"  # 1xx, 2xx other than 200, 3xx
    REFUSED = "refused"  # a 4xx about the utterance: any cluster would say the same
    UNAUTHORIZED = "unauthorized"  # a 4xx about our credentials
    BUSY = "busy"  # 429, 503
    FAILED = "failed"  # any other 4xx or 5xx
    ENCODED = "encoded"  # a content encoding that was not asked for
    NOT_AUDIO = "not audio"
    TOO_LARGE = "too large"


#: Faults that say nothing about whether the upstream is well.
NOT_ITS_HEALTH = frozenset({Fault.REFUSED, Fault.BUSY, Fault.TOO_LARGE})
#: Faults that the same utterance would meet anywhere.
SAME_ANYWHERE = frozenset({Fault.REFUSED, Fault.TOO_LARGE})


@dataclass(slots=True, eq=False)
class UpstreamFault(Exception):
    """An exchange failed. detail: safe for logs. named: what the cluster gives as its reason, if it refused."""

    fault: Fault
    cluster: str
    detail: str
    status: int | None = None
    retry_after_s: float | None = None
    named: Named = UNNAMED

    @property
    def elsewhere(self) -> bool:
        """Whether another cluster may be asked."""
        return self.fault not in SAME_ANYWHERE

    @property
    def counts(self) -> bool:
        """Whether it counts against the upstream's health."""
        return self.fault not in NOT_ITS_HEALTH

    def __str__(self) -> str:
        return f"{self.cluster}: {self.fault.value}: {self.detail}"


#: What each status means, where its hundred does not say it.
STATUSES: Mapping[int, Fault] = {
    **dict.fromkeys((400, 404, 413, 415, 422), Fault.REFUSED),
    **dict.fromkeys((401, 402, 403), Fault.UNAUTHORIZED),
    **dict.fromkeys((429, 503), Fault.BUSY),
}


def status_fault(status: int) -> Fault | None:
    """The fault that a status is; None for 200."""
    if status == 200:
        return None
    return STATUSES.get(status, Fault.STATUS if status < 400 else Fault.FAILED)


def retry_after_s(header: str | None, wall_now: float) -> float | None:
    """Retry-After (RFC 9110 §10.2.3) in seconds from now, at most MAX_WAIT_S; None: absent or unreadable."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), MAX_WAIT_S)
    try:
        at = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(at - wall_now, 0.0), MAX_WAIT_S)
