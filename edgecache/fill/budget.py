"""How many more requests than fills may go to clusters: a token bucket. Pure.

Keeps: what is spent is never more than the share of what was earned, and what the bucket holds at first or gains with time;
so that clusters in trouble are not given the more to do the more they fail.
"""

from dataclasses import dataclass, field

#: What a quiet edge may spend at once, whatever its share: a cluster that goes down costs a few before it is ejected.
BURST = 10.0
#: What a quiet edge earns in a second all the same.
PER_SECOND = 1.0


@dataclass(slots=True)
class Budget:
    """Of one kind of request. share: of a request, earned by each fill; 0: nothing is ever spent."""

    share: float
    burst: float = BURST
    per_second: float = PER_SECOND
    spent: int = 0
    refused: int = 0
    _tokens: float = field(init=False)
    _at_s: float | None = None

    def __post_init__(self) -> None:
        self._tokens = self.burst

    def earn(self, now: float) -> None:
        """A fill began."""
        self._gain(now, self.share)

    def spend(self, now: float) -> bool:
        """One more request, if it may be."""
        self._gain(now, 0.0)
        # The sum of many shares is a little less than it should be.
        if not self.share or self._tokens < 1 - 1e-9:
            self.refused += 1
            return False
        self._tokens = max(0.0, self._tokens - 1)
        self.spent += 1
        return True

    def give_back(self) -> None:
        """What was spent last was not needed."""
        self.spent -= 1
        self._tokens = min(self.burst, self._tokens + 1)

    def _gain(self, now: float, more: float) -> None:
        passed_s = 0.0 if self._at_s is None else max(0.0, now - self._at_s)
        self._at_s = now if self._at_s is None else max(self._at_s, now)
        self._tokens = min(self.burst, self._tokens + more + passed_s * self.per_second)
