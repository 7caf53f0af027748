"""When Python's garbage collector walks all that lives: when nobody can hear it.

Nearly all that an exchange or a fill leaves behind goes by itself with its last reference; little is left in circles. To
find that, a full collection walks everything that lives, and the event loop stands still meanwhile: 50 to 70 ms with a
thousand streams, at just the time when most of them begin. So full collections are made here, while no stream is under
way; Python makes them by itself only after very much more, in case it is never quiet. Young objects it collects as ever:
that takes a millisecond or two.
"""

import asyncio
import gc
from collections.abc import Callable

#: How often it is looked whether it is quiet.
LOOK_S = 1.0
#: Collections of the middle generation, each of which comes after some 7,000 more lists, dicts and the like that live on:
#: after so many it is worth a full one, if it is quiet ...
WORTH = 5
#: ... and after so many Python makes one by itself: then two million more live, which is more than circles ever hold.
BACKSTOP = 300


class Collecting:
    """One process's. quiet: whether nobody would notice. Construct, `start`, `stop`."""

    def __init__(self, quiet: Callable[[], bool]) -> None:
        self._quiet = quiet
        self._before = gc.get_threshold()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """What is there now stays, and is not walked any more."""
        gc.collect()
        gc.freeze()
        young, middle, _ = self._before
        gc.set_threshold(young, middle, BACKSTOP)
        self._again()

    def stop(self) -> None:
        """Python does as it did before."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            gc.set_threshold(*self._before)
            gc.unfreeze()

    def look(self) -> bool:
        """A full collection, if it is quiet and worth it; whether there was one."""
        if gc.get_count()[2] < WORTH or not self._quiet():
            return False
        gc.collect()
        return True

    def _again(self) -> None:
        def look() -> None:
            self.look()
            self._again()

        self._timer = asyncio.get_running_loop().call_later(LOOK_S, look)
