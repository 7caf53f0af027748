"""How far away an upstream is: a smoothed round-trip time and its spread, as TCP keeps them (RFC 6298 §2).

Keeps one rule: an estimate that nothing has confirmed for a while is no estimate, so a path that changed unseen is not
trusted. Pure: it does not know what was timed, nor a clock.
"""

from dataclasses import dataclass

#: Gains of RFC 6298 §2.3: a new sample moves the average by an eighth and the spread by a quarter.
ALPHA = 1 / 8
BETA = 1 / 4
#: An estimate is forgotten after so long without a sample, unless the policy says otherwise.
STALE_AFTER_S = 30.0


@dataclass(slots=True)
class Rtt:
    """The round trip to one upstream, in seconds."""

    stale_after_s: float = STALE_AFTER_S
    _smoothed_s: float | None = None
    _spread_s: float = 0.0
    _observed_at_s: float = 0.0

    def observe(self, sample_s: float, now: float) -> None:
        """Takes one measured round trip. ValueError: it is negative, so a clock went back."""
        if sample_s < 0:
            raise ValueError("a round trip can't take less than no time")
        before_s = self.estimate(now)
        if before_s is None:
            self._smoothed_s, self._spread_s = sample_s, sample_s / 2
        else:
            # The spread is moved first, by the old average (RFC 6298 §2.3).
            self._spread_s += BETA * (abs(before_s - sample_s) - self._spread_s)
            self._smoothed_s = before_s + ALPHA * (sample_s - before_s)
        self._observed_at_s = now

    def estimate(self, now: float) -> float | None:
        """The smoothed round trip; None when it was never measured or too long ago."""
        if self._smoothed_s is None or now - self._observed_at_s > self.stale_after_s:
            return None
        return self._smoothed_s

    def spread(self, now: float) -> float | None:
        """How far samples lie from the average (RTTVAR); None like `estimate`."""
        return None if self.estimate(now) is None else self._spread_s
