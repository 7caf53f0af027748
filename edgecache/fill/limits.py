"""What an operator says of fills: how many, who waits how long, what may be asked again, and what is given up."""
# ruff: noqa: RUF009 - option() calls dataclasses.field(), which is what the rule asks for

from dataclasses import dataclass
from typing import Literal

from edgecache.fill.shedding import Shed
from edgecache.fill.trickle import Trickle
from edgecache.option import option


@dataclass(frozen=True, slots=True)
class FillLimits:
    """Bounds on what is under way (rule 7), and how clusters are asked for it."""

    max_flights: int = option(512, "Fills under way at once, those that wait for room included.", minimum=1)
    max_held_bytes: int = option(256 << 20, "Bytes of renderings held for readers.", minimum=1 << 20)
    max_rendering_bytes: int = option(32 << 20, "The largest rendering; a longer one is broken off.", minimum=1 << 10)
    attempts: int = option(3, "Clusters asked for one fill, one after the other, before the first byte.", minimum=1)
    deadline_s: float | None = option(
        None,
        "From the first asking of a cluster to the first audio, over all attempts. Absent: twice `timeouts.first_byte`.",
        minimum=0.01,
    )
    retry_share: float = option(
        0.1,
        "A second and third attempt are made for at most this share of fills (and ten at once, and one a second).",
        minimum=0,
        maximum=1,
    )
    hedge_s: float | Literal["off", "p95"] = option(
        "off",
        "When a second cluster is asked because the first is late: `p95` of its own first audio of late, or a time. The "
        "first that gives audio is heard, the other is cancelled.",
        minimum=0.001,
    )
    hedge_share: float = option(
        0.05,
        "Second clusters are asked for at most this share of fills (and ten at once, and one a second).",
        minimum=0,
        maximum=1,
    )
    max_waiting: int = option(
        256, "Fills that wait for room at a cluster; past it the least urgent is refused.", minimum=0
    )
    wait_s: float = option(
        2.0, "How long a fill that someone wants to hear now, or next, waits for room at a cluster.", minimum=0
    )
    wait_later_s: float = option(30.0, "How long prefetch and warm-up wait for room.", minimum=0)
    orphan_after_s: float = option(
        1.0, "So long after its last listener left, a fill is looked at as one that nobody listens to.", minimum=0
    )
    orphan_characters: int = option(
        400, "Nobody listens, and fills wait for room: a longer text than this is abandoned ...", minimum=0
    )
    orphan_kept_bytes: int = option(256 << 10, "... unless so much of its audio is there already.", minimum=0)
    trickle: Trickle = option(Trickle, "When a cluster's audio is broken off because it comes too slowly.")
    shed: Shed = option(Shed, "When new fills are refused at once, because there is too much to do.")
