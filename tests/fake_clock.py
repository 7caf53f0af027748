"""Time for tests: it passes when they say so."""

from dataclasses import dataclass


@dataclass
class FakeClock:
    """Moves only when it is told to."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    def advance(self, by_s: float) -> None:
        self.now += by_s
