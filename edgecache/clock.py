"""Time, as the shell reads it. Core code never does: it is handed `now`."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two times: one that only moves forward, and one that other machines share."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        ...

    def wall(self) -> float:
        """Seconds since the Unix epoch."""
        ...


class SystemClock:
    """The machine's own clock."""

    __slots__ = ()

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
