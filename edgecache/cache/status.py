"""What is said of an answer: `Cache-Status` (RFC 9211) to the client, an `Outcome` to metrics and logs. Pure."""

from enum import Enum

import msgspec

from edgecache.cache.lookup import Reason, Tier
from edgecache.cache.trace import Trace
from edgecache.measures.playback import Played

#: The route that requests are counted under which nobody waits for: promises are about those that someone does.
WARM_UP = "warm-up"


class Result(Enum):
    """How the cache did, in one word, as metrics have it."""

    __hash__ = object.__hash__  # without a call: a table is looked at for each

    HIT_MEMORY = "hit_memory"
    HIT_REDIS = "hit_redis"
    STALE = "stale"
    COLLAPSED = "collapsed"
    MISS = "miss"
    BYPASS = "bypass"
    ERROR = "error"
    NONE = "none"


def _named(name: str) -> str:
    """A name as a structured field has it: a token begins with a letter, anything else is a string (RFC 9651 §3.3)."""
    return name if name[:1].isalpha() else f'"{name}"'


def hit(node: str, ttl_s: str, tier: Tier) -> str:
    """A recording served without going forward."""
    return f"{_named(node)}; hit; ttl={ttl_s}; detail={tier.value}"


def stale(node: str, ttl_s: str, forward_status: int) -> str:
    """A recording past its time, served because going forward failed; ttl is negative."""
    return f"{_named(node)}; fwd=stale; fwd-status={forward_status}; ttl={ttl_s}; detail=stale-if-error"


def forwarded(node: str, reason: Reason, cluster: str, *, collapsed: bool, stored_ttl_s: float | None) -> str:
    """Speech that a cluster is making. stored_ttl_s: how long it will be fresh; None when it will not be stored.

    That is a prediction: the head goes out before the last byte.
    """
    told = [_named(node), f"fwd={reason.value}"]
    if collapsed:
        told.append("collapsed")
    if stored_ttl_s is not None:
        told += ["stored", f"ttl={int(stored_ttl_s)}"]
    return "; ".join([*told, f"detail={_named(cluster)}"])


def unasked(node: str) -> str:
    """A probe that found nothing and went nowhere."""
    return f"{_named(node)}; fwd=uri-miss; stored=?0; detail=not-forwarded"


class Worth(msgspec.Struct, frozen=True):
    """What syntheses cost: they are paid for by characters, and take the longer the more there is to say."""

    characters: int
    spoken_ms: int
    syntheses: int = 1

    def plus(self, other: "Worth") -> "Worth":
        """Both."""
        return Worth(
            self.characters + other.characters, self.spoken_ms + other.spoken_ms, self.syntheses + other.syntheses
        )


class Outcome(msgspec.Struct, frozen=True):
    """One exchange, after its last byte. Never the text, nor anything of a query string.

    first_byte_ms, total_ms: from the request head. whole: the client was given all of it. first_audios:
    which clusters were asked for this alone, and how long each took. worth: what was not bought because of it. played: what
    a player would have heard, if it was a stream. trace: the span that it is, where spans are told.
    """

    request_id: str
    caller: str
    method: str
    route: str
    status: int
    result: Result
    sent_bytes: int
    first_byte_ms: float
    total_ms: float
    whole: bool
    cluster: str = ""
    error: str = ""
    first_audios: tuple[tuple[str, float], ...] = ()
    worth: Worth | None = None
    played: Played | None = None
    trace: Trace | None = None
