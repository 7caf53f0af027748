"""What a miss costs beside asking the cluster itself: the first byte, where the costliest server has half of its core to do.

Every request is another one, so that nobody has it. Each server has a core; a cluster in C that answers at once, and the
load generator, share the other. In each round every server has the same schedule, `direct` among them: the cluster itself.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench import generators
from bench.contenders import Contender, Stage
from bench.drawing import Bar, Panel, milliseconds
from bench.generators import OPEN_WARMUP_S, BrokenLoad, Load, Schedule, percentile_ms
from bench.houses import ServerProcess, compiled_cluster, others_cpu_s, says
from bench.programs import compiled
from bench.questions import MISSED, write_questions
from bench.readings import Asked, Book, Number, Reading, told
from bench.telling import aligned

DIRECT = "direct"
#: Connections to the server are kept, or made for each request.
KEPT, FRESH = "connections kept", "a connection for each request"
CELLS = (KEPT, FRESH)
CONNECTIONS = 32
#: With the WAV header: 0.68 s of 24 kHz speech, in chunks as the wire has them.
SIZE, CHUNK_BYTES = 32 << 10, 4096
#: The trial that finds the rate.
TRIAL_RATE, TRIAL_S = 300, 1
_TRIAL_SEED = 999
_SHARES = {"first_p50_ms": 0.5, "first_p95_ms": 0.95, "first_p99_ms": 0.99}


@dataclass(frozen=True, slots=True)
class Plan:
    """seconds: of each load. rate: what is asked for; None: half load of the costliest."""

    rounds: int
    seconds: float
    rate: float | None = None


class Added:
    """All of this part; its readings are the result."""

    def __init__(
        self, plan: Plan, contenders: Sequence[Contender], directory: Path, say: Callable[[str], None]
    ) -> None:
        self._plan = plan
        self._contenders = contenders
        self._directory = directory
        self._say = say
        self._questions = write_questions(directory)
        self._program = compiled("openloop.c", directory)

    def run(self) -> list[Reading]:
        """Every round."""
        program = compiled("cluster.c", self._directory)
        with compiled_cluster(program, str(SIZE), str(CHUNK_BYTES), "0", "0") as cluster:
            stage = Stage(SIZE, cluster.port, "", self._questions, self._directory)
            rate = self._plan.rate or self._half(stage)
            readings: list[Reading] = []
            for number in range(self._plan.rounds):
                readings += self._round(number, stage, cluster, rate)
        return readings

    def _half(self, stage: Stage) -> float:
        """The rate at which the costliest server has half of its core to do."""
        costs_s = []
        for contender in self._contenders:
            with self._up(contender, stage) as server:
                schedule = Schedule(TRIAL_RATE, TRIAL_S, CONNECTIONS, _TRIAL_SEED, False)
                self._load(server.port, replace(schedule, seed=_TRIAL_SEED + 1))  # what is made once is made
                before_s = server.cpu_s()
                load = self._load(server.port, schedule)
                costs_s.append((server.cpu_s() - before_s) / max(1, load.sent))
            self._say(f"trial, {contender.told}: {costs_s[-1] * 1e6:.0f} µs CPU a miss")
        return 0.5 / max(costs_s)

    def _round(self, number: int, stage: Stage, cluster: ServerProcess, rate: float) -> Iterator[Reading]:
        """Everyone, in an order that changes from round to round."""
        turn = number % (len(self._contenders) + 1)
        everyone: list[Contender | None] = [None, *self._contenders]
        for contender in [*everyone[turn:], *everyone[:turn]]:
            if contender is None:
                yield from self._cells(DIRECT, cluster, stage, (number, rate))
                continue
            with self._up(contender, stage) as server:
                yield from self._cells(contender.name, server, stage, (number, rate))

    @contextmanager
    def _up(self, contender: Contender, stage: Stage) -> Iterator[ServerProcess]:
        with contender.start(stage) as server:
            try:
                yield server
            except (BrokenLoad, OSError) as error:
                raise server.failed(f"failed ({error})") from error

    def _cells(self, who: str, server: ServerProcess, stage: Stage, at: tuple[int, float]) -> Iterator[Reading]:
        number, rate = at
        for place, cell in enumerate(CELLS):
            seed = 1 + number * len(CELLS) + place
            schedule = Schedule(rate, self._plan.seconds, CONNECTIONS, seed, False, fresh=cell == FRESH)
            self._load(
                server.port, replace(schedule, seconds=0.2, seed=seed + _TRIAL_SEED)
            )  # what is made once is made
            asked, cpu_s, others_s, began_s = _asked(stage), server.cpu_s(), others_cpu_s(), time.monotonic()
            load = self._load(server.port, schedule)
            took_s = time.monotonic() - began_s
            hits = load.sent - (_asked(stage) - asked)
            values = _values(load, server.cpu_s() - cpu_s) | {"hits": hits}
            reading = Reading(who, cell, number, values, (others_cpu_s() - others_s) / took_s)
            first = f"first byte p50 {values['first_p50_ms']:.2f}, p99 {values['first_p99_ms']:.2f} ms"
            self._say(f"round {number + 1} of {self._plan.rounds}, {who}, {cell}: {first} at {load.rate:.0f}/s")
            yield reading

    def _load(self, port: int, schedule: Schedule) -> Load:
        return generators.own(self._program, port, self._questions.files[MISSED], schedule)


def _asked(stage: Stage) -> int:
    return int(says(stage.cluster, "/asked") or 0)


def _values(load: Load, cpu_s: float) -> dict[str, float]:
    first = {name: percentile_ms(load.first, share) for name, share in _SHARES.items()}
    last = {"last_p50_ms": percentile_ms(load.latency, 0.5), "last_p99_ms": percentile_ms(load.latency, 0.99)}
    spent = {"cpu_us": cpu_s / max(1, load.sent) * 1e6, "busy": cpu_s / (load.seconds + OPEN_WARMUP_S)}
    return {**first, **last, **spent, "rate": load.rate, "failed": float(load.failed)}


def added(who: str, cell: str, share: str) -> Number:
    """What it adds to the first byte; share: `p50`, `p95` or `p99`."""
    return Number(who, cell, f"first_{share}_ms", over=DIRECT)


def asked(ours: str) -> list[Asked]:
    """The issue's bounds."""
    found = [Asked("a miss adds to the first byte, p50, ms", 0.5, added(ours, KEPT, "p50"))]
    found.append(Asked("a miss adds to the first byte, p99, ms", 3.0, added(ours, KEPT, "p99")))
    for peer, named in (("nginx", "nginx"), ("varnish", "Varnish")):
        for cell in CELLS:
            told = f"that p50 against {named}, {cell}"
            found.append(Asked(told, 1.5, added(ours, cell, "p50"), added(peer, cell, "p50")))
    return found


def tables(book: Book, names: Mapping[str, str]) -> str:
    """A table for each cell."""
    parts = []
    for cell in CELLS:
        rate = book.spread(Number(DIRECT, cell, "rate"))
        rows = [["", "first byte p50 ms", "p99 ms", "adds p50 ms", "adds p99 ms", "CPU µs", "core", ""]]
        for who in (DIRECT, *names):
            mine = [told(book.spread(Number(who, cell, f"first_{share}_ms"))) for share in ("p50", "p99")]
            more = (
                [told(book.spread(added(who, cell, share))) for share in ("p50", "p99")] if who != DIRECT else ["", ""]
            )
            spent, busy = (book.spread(Number(who, cell, value)) for value in ("cpu_us", "busy"))
            if spent and busy:
                costs = [f"{spent.median:.0f}", f"{busy.median:.0%}"]
                faults = ", ".join(book.faults(who, cell, "failed", "hits"))
                rows.append([names.get(who, "the cluster itself"), *mine, *more, *costs, faults])
        asked_rate = f"{rate.median:.0f} requests/s" if rate else ""
        parts.append(f"Misses, {SIZE >> 10} KiB, {cell}, {asked_rate}\n{aligned(rows)}\n")
    return "\n".join(parts)


def panels(book: Book, names: Mapping[str, str], ours: str) -> list[Panel]:
    """The picture's part."""
    found = []
    for cell in CELLS:
        spreads = ((who, book.spread(added(who, cell, "p50"))) for who in names)
        bars = [Bar(names[who], value, "ours" if who == ours else "peer") for who, value in spreads if value]
        found.append(Panel(f"A miss adds to the first byte, p50, {cell}", bars, milliseconds))
    return found
