"""How a client wants to be told: raw audio, server-sent events or protobuf, as its `Accept` says (RFC 9110 §12.5.1).

Pure.
"""

import re
from enum import Enum
from typing import NamedTuple

from edgecache.dialects.protobuf import MEDIA_TYPES as PROTOBUF_TYPES


class Way(Enum):
    """A delivery of speech over HTTP."""

    RAW = "raw"
    EVENTS = "events"
    PROTOBUF = "protobuf"


class _Liking(NamedTuple):
    """How much a client likes a way: its quality, then how exactly it was named."""

    quality: float
    exactness: int


_QUALITY = re.compile(r"\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*", re.IGNORECASE)
_WAYS = {
    **dict.fromkeys(PROTOBUF_TYPES, (Way.PROTOBUF, 2)),
    "text/event-stream": (Way.EVENTS, 2),
    "application/octet-stream": (Way.RAW, 2),
    "*/*": (Way.RAW, 0),
}


def way(accept: str) -> Way | None:
    """The way that is liked most; of two liked equally the one named more exactly, then the one named first.

    None: nothing that is accepted is on offer. Other ranges with wildcards (`text/*`) ask for nothing here.
    """
    best: Way | None = None
    liked = _Liking(0.0, 0)
    for each in accept.split(","):
        name, *parameters = each.split(";")
        name = name.strip().lower()
        found, exactness = (Way.RAW, 2) if name.startswith("audio/") else _WAYS.get(name, (None, 0))
        liking = _Liking(_quality(parameters), exactness)
        if found is not None and liking.quality and (best is None or liking > liked):
            best, liked = found, liking
    return best


def _quality(parameters: list[str]) -> float:
    for each in parameters:
        match = _QUALITY.fullmatch(each)
        if match is not None:
            return float(match[1])
    return 1.0
