"""How long something takes at an upstream: a smoothed time and its spread, as TCP keeps them (RFC 6298 §2).

Keeps two rules: an estimate that nothing has confirmed for a while is no estimate, and until then it is worth less and
less; and one wild sample never moves it far. Pure: it does not know what was timed, nor a clock.

Theory. Samples within four spreads of the average are taken as RFC 6298 says. One beyond is a *stray*: it moves average
and spread only as far as the border. Three strays in a row on the same side are no chance: the path has changed, and the
estimate begins anew with their median.
"""

from dataclasses import dataclass, field
from math import copysign
from statistics import median

#: Gains of RFC 6298 §2.3: a new sample moves the average by an eighth and the spread by a quarter.
ALPHA = 1 / 8
BETA = 1 / 4
#: RFC 6298's K: what is further off than so many spreads is a stray ...
STRAY_SPREADS = 4
#: ... where the spread counts as at least this share of the average, or this much: a quiet path may still hiccup.
LEAST_SPREAD = 0.05
LEAST_SPREAD_S = 0.0005
#: So many strays in a row on one side are the new truth.
STRAYS = 3
#: An estimate is forgotten after so long without a sample, unless the policy says otherwise.
STALE_AFTER_S = 30.0


@dataclass(slots=True)
class Estimate:
    """Of one duration, in seconds."""

    stale_after_s: float = STALE_AFTER_S
    _smoothed_s: float | None = None
    _spread_s: float = 0.0
    _observed_at_s: float = 0.0
    _strays_s: list[float] = field(default_factory=list)

    def observe(self, sample_s: float, now: float) -> None:
        """Takes one measured duration. ValueError: it is negative, so a clock went back."""
        if sample_s < 0:
            raise ValueError("nothing takes less than no time")
        before_s = self.value(now)
        self._observed_at_s = now
        if before_s is None:
            self._begin(sample_s, sample_s / 2)
            return
        gap_s, border_s = sample_s - before_s, self._border_s(before_s)
        if abs(gap_s) > border_s:
            if self._strayed(sample_s, before_s):
                return
            gap_s = copysign(border_s, gap_s)
        else:
            self._strays_s.clear()
        # The spread is moved first, by the old average (RFC 6298 §2.3).
        self._spread_s += BETA * (abs(gap_s) - self._spread_s)
        self._smoothed_s = before_s + ALPHA * gap_s

    def value(self, now: float) -> float | None:
        """The smoothed duration; None when it was never measured or too long ago."""
        if self._smoothed_s is None or now - self._observed_at_s > self.stale_after_s:
            return None
        return self._smoothed_s

    def spread(self, now: float) -> float | None:
        """How far samples lie from the average (RTTVAR), up to three times as far while none comes; None like `value`."""
        if self.value(now) is None:
            return None
        age = (now - self._observed_at_s) / self.stale_after_s if self.stale_after_s else 0.0
        return self._spread_s * (1 + 4 * max(0.0, age - 0.5))

    @property
    def straying(self) -> bool:
        """Whether the last sample was a stray: another one soon would tell."""
        return bool(self._strays_s)

    def _border_s(self, before_s: float) -> float:
        return STRAY_SPREADS * max(self._spread_s, LEAST_SPREAD * before_s, LEAST_SPREAD_S)

    def _strayed(self, sample_s: float, before_s: float) -> bool:
        """Notes a stray; whether it was the last that it takes to begin anew."""
        if self._strays_s and (self._strays_s[-1] > before_s) is not (sample_s > before_s):
            self._strays_s.clear()
        self._strays_s.append(sample_s)
        if len(self._strays_s) < STRAYS:
            return False
        middle_s = median(self._strays_s)
        self._begin(middle_s, max(abs(each - middle_s) for each in self._strays_s))
        return True

    def _begin(self, smoothed_s: float, spread_s: float) -> None:
        self._smoothed_s, self._spread_s = smoothed_s, spread_s
        self._strays_s.clear()
