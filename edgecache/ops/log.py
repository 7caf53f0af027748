"""What the daemon says of itself: text on a terminal, JSON elsewhere. Never the text spoken (rule 8)."""

from dataclasses import dataclass
from typing import Literal

from edgecache.option import option


@dataclass(frozen=True, slots=True)
class Logging:
    """Logs go to standard error."""

    format: Literal["auto", "text", "json"] = option("auto", "auto: text on a terminal, JSON elsewhere.")
    level: Literal["debug", "info", "warning", "error"] = option("info", "The least important thing that is said.")
    access: bool = option(True, "A line per request.")
