"""All flights of this node."""

from dataclasses import dataclass

from edgecache.option import option


@dataclass(frozen=True, slots=True)
class FillLimits:
    """Bounds on what is under way (rule 7)."""

    max_flights: int = option(512, "Fills under way at once.", minimum=1)
    max_held_bytes: int = option(256 << 20, "Bytes of renderings held for readers.", minimum=1 << 20)
    max_rendering_bytes: int = option(32 << 20, "The largest rendering; a longer one is broken off.", minimum=1 << 10)
    attempts: int = option(3, "Clusters asked for one fill, before the first byte.", minimum=1)
