"""Beats at even times, so that it is known how late the event loop is.

A callback and no task: nothing else then stands between the loop's being free and the beat.
"""

import asyncio
from collections.abc import Callable

from edgecache.measures.lag import Lag

#: Between two beats: a loop that stands still for longer is seen by one beat alone.
BEAT_S = 0.1


class Heart:
    """One loop's. Construct, `start`, `stop`. told: called after each beat."""

    def __init__(self, lag: Lag, told: Callable[[], None]) -> None:
        self._lag = lag
        self._told = told
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begins to beat."""
        self._due(asyncio.get_running_loop())

    def stop(self) -> None:
        """Beats no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self, loop: asyncio.AbstractEventLoop) -> None:
        due_s = loop.time() + BEAT_S

        def beat() -> None:
            self._lag.beat(due_s, loop.time())
            self._due(loop)
            self._told()

        self._timer = loop.call_at(due_s, beat)
