"""How urgent a fill is. Pure.

Keeps: whoever waits to hear it goes before whoever only may want it later; a fill is as urgent as its most urgent listener.
"""

from enum import IntEnum


class Priority(IntEnum):
    """The most urgent first: heard now, next in a long text that is heard now, maybe wanted soon, maybe wanted at all."""

    INTERACTIVE = 0
    LOOK_AHEAD = 1
    PREFETCH = 2
    WARM_UP = 3

    @property
    def word(self) -> str:
        """As it is told in /status."""
        return self.name.lower().replace("_", "-")
