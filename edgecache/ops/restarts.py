"""When a worker that died is started again. Pure.

The first time at once: others serve meanwhile, but there are fewer of them. If it does not live long either, it waits,
twice as long each time, so that a machine on which nothing can run is not kept busy with trying.
"""

from dataclasses import dataclass, field

#: Having served for this long, a worker is believed to be able to.
PROVEN_S = 30.0
FIRST_S = 0.5
LAST_S = 30.0


@dataclass(slots=True)
class Restarts:
    """Of one place among the workers. count: of all times."""

    count: int = 0
    _short_lives: int = field(default=0)

    def died(self, lived_s: float) -> float:
        """How long to wait before the next one is started. lived_s: since it was started."""
        self.count += 1
        self._short_lives = 0 if lived_s >= PROVEN_S else self._short_lives + 1
        if self._short_lives <= 1:
            return 0.0
        return min(FIRST_S * 2.0 ** min(self._short_lives - 2, 10), LAST_S)
