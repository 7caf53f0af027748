"""What is to be done with what a store found: hit, stale or miss. Pure.

Keeps rule 1: a recording is served only if the utterance and namespace stored with it equal those asked for. And what was
purged is a miss, or stale, wherever it is found.
"""

from dataclasses import dataclass
from enum import Enum

import msgspec

from edgecache.cache.key import Key
from edgecache.cache.purges import Kind, Purges
from edgecache.cache.recording import Recording
from edgecache.option import option


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long a recording may be spoken. The operator's policy: what clusters say of caching is not law."""

    ttl_s: float = option(24 * 3600.0, "How long a recording is fresh.", minimum=0)
    stale_if_error_s: float = option(
        7 * 24 * 3600.0, "How much longer it may be served when every cluster is down (RFC 5861 §4).", minimum=0
    )

    @property
    def lifetime_s(self) -> float:
        """How long a store keeps a recording at all."""
        return self.ttl_s + self.stale_if_error_s


class Directives(msgspec.Struct, frozen=True):
    """What a request says of caching (RFC 9111 §5.2.1)."""

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False


class Tier(Enum):
    """Where a recording was found."""

    MEMORY = "memory"
    REDIS = "redis"


class Reason(Enum):
    """Why a request goes forward (RFC 9211 §2.2)."""

    __hash__ = object.__hash__  # without a call: a table is looked at for each

    URI_MISS = "uri-miss"
    STALE = "stale"
    REQUEST = "request"
    BYPASS = "bypass"


class Asked(msgspec.Struct, frozen=True):
    """An utterance under its name."""

    key: Key
    namespace: str
    canonical: bytes

    def __repr__(self) -> str:
        return f"<Asked {self.key[:8]} in {self.namespace}>"


class Hit(msgspec.Struct, frozen=True):
    """Served from a tier."""

    recording: Recording
    age_s: float
    ttl_s: float


class Stale(msgspec.Struct, frozen=True):
    """Too old to be a hit, young enough to be better than nothing."""

    recording: Recording
    age_s: float
    ttl_s: float


class Miss(msgspec.Struct, frozen=True):
    """Nothing that may be served."""

    reason: Reason
    mismatch: bool = False


Verdict = Hit | Stale | Miss


_NONE_PURGED = Purges()


def judge(
    asked: Asked, found: Recording | None, policy: Freshness, wall_now: float, purges: Purges = _NONE_PURGED
) -> Verdict:
    """What may be done with what was found. Another utterance's recording under our key is a miss, and counted."""
    if found is None:
        return Miss(Reason.URI_MISS)
    if found.canonical != asked.canonical or found.namespace != asked.namespace:
        return Miss(Reason.URI_MISS, mismatch=True)
    age_s = max(0.0, wall_now - found.facts.made_at)
    ttl_s = policy.ttl_s - age_s
    if found.facts.after_purge < purges.newest and (purged := purges.on(found)) is not None:
        if purged is Kind.HARD:
            return Miss(Reason.URI_MISS)
        ttl_s = min(ttl_s, 0.0)
    if ttl_s > 0:
        return Hit(found, age_s, ttl_s)
    if age_s < policy.lifetime_s:
        return Stale(found, age_s, ttl_s)
    return Miss(Reason.STALE)
