"""One run: sizes, rounds, servers and their loads, in an order that changes, and how long it still takes."""

import http.client
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench import generators
from bench.contenders import Contender, Stage
from bench.generators import OPEN_WARMUP_S, BrokenLoad, Load, Schedule, percentile_ms
from bench.houses import ServerProcess, bare_cluster, others_cpu_s, redis, says
from bench.programs import compiled
from bench.questions import WrongAnswer, warm, write_questions
from bench.samples import GETS, HALF, OWN_HALF, Cell, Sample

CONNECTIONS = 32
#: The trial that finds the rates of the open loops.
TRIAL_S = 1
#: About what a start and the first texts take, until it is known.
START_S = 0.6


@dataclass(frozen=True, slots=True)
class Plan:
    """connections: beside 32, for each size, of identical requests. open_sizes: where latency is measured."""

    rounds: int
    seconds: int
    sizes: tuple[int, ...]
    connections: Mapping[int, tuple[int, ...]]
    loads: tuple[str, ...]
    open_sizes: tuple[int, ...]
    closed_by: str

    def cells(self, size: int, contender: Contender) -> list[Cell]:
        """What is measured of this contender."""
        loads = [load for load in self.loads if load == "identical" or contender.reads]
        found = [Cell(load, size, CONNECTIONS) for load in loads]
        found += [Cell("identical", size, count) for count in self.connections.get(size, ())]
        if size in self.open_sizes:
            found.append(Cell(HALF, size, CONNECTIONS))
            if contender.shares:
                found.append(Cell(OWN_HALF, size, CONNECTIONS))
        return found


class Progress:
    """What was done of what is to do, in seconds as planned; told on stderr."""

    def __init__(self, planned_s: float) -> None:
        self._planned_s = planned_s
        self._done_s = 0.0
        self._began_s = time.monotonic()

    def did(self, seconds: float, told: str) -> None:
        """One more line."""
        self._done_s += seconds
        took_s = time.monotonic() - self._began_s
        left_s = max(0.0, took_s / self._done_s * (self._planned_s - self._done_s))
        print(f"[{min(1.0, self._done_s / self._planned_s):4.0%}, {_clock(left_s)} left] {told}", file=sys.stderr)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


class Race:
    """All of it; the samples are its result."""

    def __init__(self, plan: Plan, contenders: Sequence[Contender], directory: Path) -> None:
        self._plan = plan
        self._contenders = contenders
        self._directory = directory
        self._questions = write_questions(directory)
        self._samples: list[Sample] = []
        #: What each did in the trial of this size.
        self._able: dict[str, float] = {}
        self._progress = Progress(self._planned_s())

    def run(self) -> list[Sample]:
        """Every size."""
        for size in self._plan.sizes:
            with ExitStack() as stack:
                stage = self._stage(size, stack)
                if size in self._plan.open_sizes:
                    self._trial(stage)
                for number in range(self._plan.rounds):
                    turn = number % len(self._contenders)
                    for contender in [*self._contenders[turn:], *self._contenders[:turn]]:
                        self._measure(contender, stage, number)
        return self._samples

    def _planned_s(self) -> float:
        planned = 0.0
        for size in self._plan.sizes:
            trial_s = START_S + TRIAL_S if size in self._plan.open_sizes else 0.0
            for contender in self._contenders:
                cells = self._plan.cells(size, contender)
                gets_s = self._load_s * contender.shares
                planned += trial_s + self._plan.rounds * (START_S + gets_s + len(cells) * self._load_s)
        return planned

    @property
    def _load_s(self) -> float:
        return self._plan.seconds + OPEN_WARMUP_S

    def _stage(self, size: int, stack: ExitStack) -> Stage:
        """What is shared by the servers of a size; it ends with the stack."""
        # Whole: nginx never learns the length of what came in chunks, and would send each hit in chunks too.
        cluster = stack.enter_context(bare_cluster(str(size), "whole"))
        url = ""
        if any(each.shares for each in self._contenders):
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            url = stack.enter_context(redis(Path(directory)))
        return Stage(size, cluster, url, self._questions, self._directory)

    def _trial(self, stage: Stage) -> None:
        for contender in self._contenders:
            with self._up(contender, stage) as server:
                load = self._closed(server.port, Cell("identical", stage.size, CONNECTIONS), TRIAL_S)
            self._able[contender.name] = load.rate
            self._progress.did(START_S + TRIAL_S, f"trial, {contender.told}: {load.rate / 1000:.1f} k/s")

    def _measure(self, contender: Contender, stage: Stage, number: int) -> None:
        """One contender in one round."""
        if contender.shares:
            self._gets(stage, number)
        with self._up(contender, stage) as server:
            self._progress.did(START_S, f"round {number + 1} of {self._plan.rounds}: {contender.told} is up")
            for cell in self._plan.cells(stage.size, contender):
                sample = self._cell(contender, server, cell, (stage, number))
                self._samples.append(sample)
                self._progress.did(self._load_s, f"{cell}: {_told(sample)}")

    @contextmanager
    def _up(self, contender: Contender, stage: Stage) -> Iterator[ServerProcess]:
        """A server that has every recording. ServerFailed: what goes wrong with it in the block, too."""
        with contender.start(stage) as server:
            try:
                warm(server.port, self._questions, stage.size, contender.proof)
                yield server
            except (WrongAnswer, BrokenLoad, OSError, http.client.HTTPException) as error:
                raise server.failed(f"failed ({error})") from error

    def _cell(self, contender: Contender, server: ServerProcess, cell: Cell, at: tuple[Stage, int]) -> Sample:
        stage, number = at
        asked, others_s, before_s, began_s = _asked(stage.cluster), others_cpu_s(), server.cpu_s(), time.monotonic()
        if cell.open:
            load, warmup_s = self._open(contender, server.port, cell, number), OPEN_WARMUP_S
        else:
            load = self._closed(server.port, cell, self._plan.seconds)
            warmup_s = 0.0 if self._plan.closed_by == "wrk" else OPEN_WARMUP_S
        took_s, cpu_s, others_s = time.monotonic() - began_s, server.cpu_s() - before_s, others_cpu_s() - others_s
        # The warm-up costs as much a second as what is counted.
        loaded_s = load.seconds + warmup_s
        answered = max(1.0, load.answered * loaded_s / load.seconds)
        sample = Sample(
            contender.name, cell, number, load.rate, cpu_s / answered * 1e6, cpu_s / loaded_s, load.busy,
            others=others_s / took_s, failed=load.failed, filled=_asked(stage.cluster) - asked,
        )  # fmt: skip
        return _with_latency(sample, load) if cell.open else sample

    def _closed(self, port: int, cell: Cell, seconds: int) -> Load:
        requests = self._questions.files[cell.load]
        if self._plan.closed_by == "wrk":
            return generators.wrk(port, requests, cell.connections, seconds)
        schedule = Schedule(0.0, seconds, cell.connections, 1, spin=False)
        return generators.own(compiled("openloop.c", self._directory), port, requests, schedule)

    def _open(self, contender: Contender, port: int, cell: Cell, number: int) -> Load:
        """Every server has the same schedule in a round."""
        able = min(self._able.values()) if cell.load == HALF else self._able[contender.name]
        schedule = Schedule(able / 2, self._plan.seconds, cell.connections, number + 1, not contender.shares)
        program = compiled("openloop.c", self._directory)
        return generators.own(program, port, self._questions.files["identical"], schedule)

    def _gets(self, stage: Stage, number: int) -> None:
        rate, cpu_s = generators.redis_gets(
            stage.redis.removeprefix("unix://"), stage.size, CONNECTIONS, self._plan.seconds
        )
        cell = Cell(GETS, stage.size, CONNECTIONS)
        self._samples.append(Sample(GETS, cell, number, rate, cpu_s * 1e6, rate * cpu_s, 0.0))
        self._progress.did(self._load_s, f"{stage.size >> 10} KiB, bare GET loop: {rate / 1000:.1f} k/s")


def _asked(cluster: int) -> int:
    return int(says(cluster, "/asked") or 0)


def _with_latency(sample: Sample, load: Load) -> Sample:
    p50_ms, p99_ms, p999_ms = (percentile_ms(load.latency, share) for share in (0.5, 0.99, 0.999))
    lag_ms = percentile_ms(load.lag, 0.99)
    return replace(sample, p50_ms=p50_ms, p99_ms=p99_ms, p999_ms=p999_ms, lag_p99_ms=lag_ms)


def _told(sample: Sample) -> str:
    if sample.p99_ms is not None:
        return f"p50 {sample.p50_ms:.2f}, p99 {sample.p99_ms:.2f} ms at {sample.rate / 1000:.1f} k/s"
    return (
        f"{sample.rate / 1000:.1f} k/s, {sample.cpu_us:.1f} µs CPU, core {sample.busy:.0%}, load {sample.load_busy:.0%}"
    )
