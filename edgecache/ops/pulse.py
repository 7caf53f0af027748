"""The beat of one worker: at each it is looked at how late the loop is, and in which mode this worker is.

Whoever has a cause to be in a mode says so when asked; a change is told once, to the log. It decides nothing: `ops.modes`
does. It does not know what Redis, clusters or fills are.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from edgecache.clock import Clock
from edgecache.measures.lag import Lag
from edgecache.ops import log
from edgecache.ops.heart import Heart
from edgecache.ops.modes import Mode, Modes


class Lost(Protocol):
    """What may be lost. lost: why it is; empty: it is not."""

    @property
    def lost(self) -> str: ...


class Leaving(Protocol):
    """What may be asked to take nothing on."""

    mode: str

    @property
    def leaving(self) -> str: ...


Causes = Mapping[Mode, Callable[[], str]]


def causes(redis: Lost | None, clusters: Lost, pressed: Callable[[], str], leaving: Leaving) -> Causes:
    """Who says why this worker is in which mode. redis: None if there is none, which is nobody's loss."""
    return {
        Mode.NO_REDIS: lambda: "" if redis is None else redis.lost,
        Mode.STALE_ONLY: lambda: clusters.lost,
        Mode.SHED: pressed,
        Mode.DRAIN: lambda: leaving.leaving,
    }


class Pulse:
    """One worker's. Construct, `start`, `stop`."""

    def __init__(self, lag: Lag, clock: Clock, readiness: Leaving) -> None:
        """readiness: is told the mode, for whoever probes."""
        self._clock = clock
        self._readiness = readiness
        self._heart = Heart(lag, self.feel)
        self._modes = Modes(clock.monotonic())
        #: Asked at each beat: why this worker is in a mode; an empty text: it is not.
        self.causes: Causes = {}

    @property
    def mode(self) -> Mode:
        """How this worker stands."""
        return self._modes.mode

    @property
    def causes_told(self) -> Mapping[Mode, str]:
        """Every cause that holds, with its reason."""
        return self._modes.causes

    def start(self) -> None:
        """Begins to beat."""
        self._heart.start()

    def stop(self) -> None:
        """Beats no more."""
        self._heart.stop()

    def feel(self) -> None:
        """Looks at all causes now."""
        seen = {mode: tell() for mode, tell in self.causes.items()}
        change = self._modes.observe(seen, self._clock.monotonic())
        if change is not None:
            self._readiness.mode = change.after.value
            log.mode_changed(change.before.value, change.after.value, change.reason, worse=change.worse)

    def told(self) -> Mapping[str, object]:
        """How this worker stands, for `/status`."""
        return self._modes.told(self._clock.monotonic())
