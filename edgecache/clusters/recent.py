"""The last durations of one kind, for asking which of them only a few exceed. Pure.

An `Estimate` is made to be unmoved by what is rare; here the rare ones are what is asked for. Keeps: too few to tell are no
answer, and what is long ago is forgotten.
"""

import math
from collections import deque
from dataclasses import dataclass, field

#: So many are remembered: five of a hundred are beyond the 95th percentile.
KEPT = 100
#: With fewer nobody knows what one in twenty is.
ENOUGH = 20


@dataclass(slots=True)
class Recent:
    """Durations in seconds, none older than stale_after_s."""

    stale_after_s: float
    _told: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=KEPT))

    def observe(self, sample_s: float, now: float) -> None:
        """One more."""
        self._told.append((now, sample_s))

    def beyond(self, share: float, now: float) -> float | None:
        """The smallest that all but this share of them do not exceed; None: too few are remembered."""
        while self._told and now - self._told[0][0] > self.stale_after_s:
            self._told.popleft()
        if len(self._told) < ENOUGH:
            return None
        ranked = sorted(sample_s for _, sample_s in self._told)
        return ranked[max(0, math.ceil(len(ranked) * (1 - share)) - 1)]
