"""What hits have to be (issue "Hits faster than nginx"), held against what was measured. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.samples import GETS, HALF, OWN_HALF, Cell, Figure, Sample, Spread, disturbed

_CONNECTIONS = 32
#: A server that used less of its core than this, in a closed loop, was not what limited it.
FULL = 0.9


@dataclass(frozen=True, slots=True)
class Target:
    """figure, in units of `beside` if there is one, has to be at least, or at most, so much."""

    told: str
    bound: float
    figure: Figure
    beside: Figure | None = None
    at_least: bool = True

    @property
    def asked(self) -> str:
        """The bound as people write it."""
        return f"{'≥' if self.at_least else '<' if self.beside is None else '≤'} {self.bound}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """met: None if it was not measured. by_cpu: the same ratio of CPU time a request, the peer's to ours.

    unfull: in these contenders' runs something else than the server was the limit, so `by_cpu` says more. disturbed: in
    every round other processes had a part.
    """

    target: Target
    measured: Spread | None
    by_cpu: Spread | None = None
    unfull: tuple[str, ...] = ()
    disturbed: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the median keeps the bound."""
        if self.measured is None:
            return None
        bound = self.target.bound
        if self.target.beside is None:
            return self.measured.median < bound
        return self.measured.median >= bound if self.target.at_least else self.measured.median <= bound


def targets() -> list[Target]:
    """The issue's table."""
    found = []
    for load, bounds in (("identical", (1.5, 1.1, 0.9)), ("traced", (1.0, 0.95, 0.85))):
        for kibibytes, bound in zip((4, 32, 256), bounds, strict=True):
            cell = _cell(load, kibibytes)
            told = f"memory hits/s against nginx, {kibibytes} KiB, {load}"
            found.append(Target(told, bound, Figure("memory", cell), Figure("nginx", cell)))
    identical, gets, own_half = _cell("identical"), _cell(GETS), _cell(OWN_HALF)
    ours = Figure("memory", identical)
    p99, nginx_p99 = (Figure(name, _cell(HALF), "p99_ms") for name in ("memory", "nginx"))
    return [
        *found,
        Target("memory hits/s against Varnish, 32 KiB", 1.3, ours, Figure("varnish", identical)),
        Target("memory hits/s against the C limit, 32 KiB", 0.7, ours, Figure("limit", identical)),
        Target("p99 at half load against nginx, 32 KiB", 1.0, p99, nginx_p99, at_least=False),
        Target("Redis hits/s against a bare GET loop, 32 KiB", 0.5, Figure("redis", identical), Figure(GETS, gets)),
        Target("Redis hits' p99 at half of that, ms", 5.0, Figure("redis", own_half, "p99_ms"), at_least=False),
    ]


def _cell(load: str, kibibytes: int = 32) -> Cell:
    return Cell(load, kibibytes << 10, _CONNECTIONS)


def judge(target: Target, samples: Sequence[Sample]) -> Verdict:
    """The target held against the run."""
    sides = [each for each in (target.figure, target.beside) if each]
    mixed = disturbed(samples, *sides)
    if target.beside is None:
        return Verdict(target, target.figure.over_rounds(samples), disturbed=mixed)
    measured = target.figure.in_units_of(target.beside, samples)
    if measured is None:
        return Verdict(target, None)
    if target.figure.field != "rate":
        return Verdict(target, measured, disturbed=mixed)
    ours, theirs = (replace(each, field="cpu_us") for each in sides)
    idle = tuple(each.contender for each in sides if unfull(each, samples))
    return Verdict(target, measured, theirs.in_units_of(ours, samples), idle, mixed)


def unfull(figure: Figure, samples: Sequence[Sample]) -> bool:
    """Whether something else than the server's core was the limit of a closed loop. One connection never fills it."""
    if figure.cell.open or figure.cell.connections == 1:
        return False
    busy = replace(figure, field="busy").over_rounds(samples)
    return busy is not None and busy.median < FULL
