"""Many who listen at once through one core: to a stream each, as fast as it is spoken; and all to one that is being filled.

The cluster writes into each chunk when it sent it, so what is between adds what a chunk is longer on its way than directly.
Cluster and listeners, both in C, share the other core.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench import generators
from bench.contenders import Contender, Stage
from bench.drawing import Bar, Panel, milliseconds
from bench.generators import BrokenLoad, Heard, Listening, percentile_ms
from bench.houses import ServerProcess, compiled_cluster, edge, family_rss_bytes, others_cpu_s, says
from bench.programs import compiled
from bench.questions import MISSED, Questions, write_questions
from bench.readings import Asked, Book, Number, Reading, told
from bench.telling import aligned

DIRECT = "direct"
CHUNK_BYTES = 4096
#: A player begins so long after it has the first chunk.
BUFFER_MS = 100
#: Who waits for one fill waits at least so long: all have asked by then.
THINK_MS = 1500
#: Two seconds of speech, which are spoken while all listen.
WAITED_BYTES = 24 * CHUNK_BYTES
SECOND_BYTES = 48_000
#: Between two looks at how much memory a server has.
LOOK_S = 0.1
_FEW, _WARM_SEED = 8, 5000


@dataclass(frozen=True, slots=True)
class Plan:
    """streams: at once, of so many seconds each. waiters: how many wait for one fill, each in turn."""

    rounds: int
    streams: int
    seconds: float
    waiters: tuple[int, ...]

    @property
    def stream_bytes(self) -> int:
        """Of whole chunks."""
        return int(self.seconds * SECOND_BYTES) // CHUNK_BYTES * CHUNK_BYTES

    @property
    def streaming(self) -> str:
        return f"{self.streams} streams"

    def listening(self, number: int) -> Listening:
        """They begin over half of the time that one lasts, so that all of them listen during the other half."""
        return Listening(
            self.streams, self.seconds * 500, False, number + 1, BUFFER_MS, CHUNK_BYTES, self.seconds * 2 + 10
        )


def waiting(count: int) -> str:
    return f"{count} waiters"


def generous(stage: Stage) -> AbstractContextManager[ServerProcess]:
    """An edge that is allowed so many at once."""
    more = {
        "auth": {"keys_file": str(stage.questions.keys_file)},
        "fills": {"max_flights": 4000, "max_held": "2GiB"},
        "pool": {"max_connections": 4000, "max_per_host": 4000},
        "clusters": [{"name": "near", "url": f"http://127.0.0.1:{stage.cluster}", "max_in_flight": 4000}],
    }
    return edge(stage.cluster, {"redis": {"url": "off"}}, more)


class Many:
    """All of this part; its readings are the result."""

    def __init__(
        self, plan: Plan, contenders: Sequence[Contender], directory: Path, say: Callable[[str], None]
    ) -> None:
        self._plan = plan
        self._contenders = contenders
        self._directory = directory
        self._say = say
        self._questions: Questions = write_questions(directory)
        self._listeners = compiled("listeners.c", directory)
        self._cluster = compiled("cluster.c", directory)

    def run(self) -> list[Reading]:
        """Every round."""
        return [reading for number in range(self._plan.rounds) for reading in self._round(number)]

    def _round(self, number: int) -> Iterator[Reading]:
        plan = self._plan
        yield from self._everyone(number, plan.stream_bytes, 0, {plan.streaming: plan.listening(number)})
        waiters = {
            waiting(count): Listening(count, 0, True, number + 1000 + at, BUFFER_MS, CHUNK_BYTES, 20)
            for at, count in enumerate(plan.waiters)
        }
        yield from self._everyone(number, WAITED_BYTES, THINK_MS, waiters)

    def _everyone(self, number: int, size: int, think_ms: int, cells: Mapping[str, Listening]) -> Iterator[Reading]:
        """One speech of the cluster through everyone, in an order that changes from round to round."""
        turn = number % (len(self._contenders) + 1)
        everyone: list[Contender | None] = [None, *self._contenders]
        with compiled_cluster(self._cluster, str(size), str(CHUNK_BYTES), str(think_ms), "1") as cluster:
            stage = Stage(size, cluster.port, "", self._questions, self._directory)
            for contender in [*everyone[turn:], *everyone[:turn]]:
                if contender is None:
                    each = {cell: listening for cell, listening in cells.items() if not listening.same}
                    yield from self._cells(DIRECT, cluster, stage, each, number)
                    continue
                with _up(contender, stage) as server:
                    yield from self._cells(contender.name, server, stage, cells, number)

    def _cells(
        self, who: str, server: ServerProcess, stage: Stage, cells: Mapping[str, Listening], number: int
    ) -> Iterator[Reading]:
        first = next(iter(cells.values()), None)
        if first is not None:  # what is made once is made
            self._listen(server, replace(first, count=_FEW, ramp_ms=100, seed=first.seed + _WARM_SEED))
        for cell, listening in cells.items():
            yield self._read(who, cell, server, (stage, listening), number)

    def _listen(self, server: ServerProcess, listening: Listening) -> Heard:
        return generators.listeners(self._listeners, server.port, self._questions.files[MISSED], listening)

    def _read(self, who: str, cell: str, server: ServerProcess, what: tuple[Stage, Listening], number: int) -> Reading:
        stage, listening = what
        asked, others_s, began_s, cpu_s = _asked(stage), others_cpu_s(), time.monotonic(), server.cpu_s()
        with _growth(server.pid) as grown:
            heard = self._listen(server, listening)
        took_s = time.monotonic() - began_s
        values = _values(heard) | {"fills": _asked(stage) - asked, "busy": (server.cpu_s() - cpu_s) / took_s}
        values["kib_each"] = grown[0] / listening.count / 1024
        self._say(f"round {number + 1} of {self._plan.rounds}, {who}, {cell}: {_told(values)}")
        return Reading(who, cell, number, values, (others_cpu_s() - others_s) / took_s)


@contextmanager
def _up(contender: Contender, stage: Stage) -> Iterator[ServerProcess]:
    with contender.start(stage) as server:
        try:
            yield server
        except (BrokenLoad, OSError) as error:
            raise server.failed(f"failed ({error})") from error


@contextmanager
def _growth(pid: int) -> Iterator[list[int]]:
    """By how much a server and what it started have grown at most, in bytes, when the block is left."""
    before, grown, over = family_rss_bytes(pid), [0], threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            grown[0] = max(grown[0], family_rss_bytes(pid) - before)

    looking = threading.Thread(target=look, name="look at memory")
    looking.start()
    try:
        yield grown
    finally:
        over.set()
        looking.join()


def _asked(stage: Stage) -> int:
    return int(says(stage.cluster, "/asked") or 0)


def _values(heard: Heard) -> dict[str, float]:
    shares = {"p50": 0.5, "p99": 0.99, "last": 1.0}
    histograms = {"delay": heard.delay, "jitter": heard.jitter, "first": heard.first}
    found = {
        f"{what}_{name}_ms": percentile_ms(histogram, share)
        for what, histogram in histograms.items()
        for name, share in shares.items()
    }
    return found | {"failed": heard.failed, "late": heard.late, "under_runs": heard.under_runs, "whole": heard.whole}


def _told(values: Mapping[str, float]) -> str:
    return (
        f"first byte p50 {values['first_p50_ms']:.1f}, last {values['first_last_ms']:.1f} ms, jitter p99 "
        f"{values['jitter_p99_ms']:.2f} ms, {values['under_runs']:.0f} under-runs, core {values['busy']:.0%}"
    )


def asked(plan: Plan, ours: str) -> list[Asked]:
    """The issue's bounds."""
    cell = plan.streaming
    found = [
        Asked(f"{cell}: jitter added, p99, ms", 20, Number(ours, cell, "jitter_p99_ms", over=DIRECT)),
        Asked(f"{cell}: streams that a player would have stopped in", 0, Number(ours, cell, "under_runs")),
    ]
    for count in plan.waiters:
        cell = waiting(count)
        mine = Number(ours, cell, "first_last_ms")
        for peer, named in (("varnish", "Varnish"), ("nginx", "nginx")):
            found.append(
                Asked(
                    f"{cell} on one fill: the last's first byte, against {named}",
                    1,
                    mine,
                    Number(peer, cell, "first_last_ms"),
                )
            )
    return found


def tables(plan: Plan, book: Book, names: Mapping[str, str]) -> str:
    """Streams, and then those who wait."""
    rows = [["", "jitter p50 ms", "p99 ms", "on the way p50 ms", "p99 ms", "under-runs", "KiB each", "core", ""]]
    cell = plan.streaming
    for who in (DIRECT, *names):
        numbers = [
            Number(who, cell, value) for value in ("jitter_p50_ms", "jitter_p99_ms", "delay_p50_ms", "delay_p99_ms")
        ]
        if book.spread(numbers[0]):
            more = [("under_runs", ".0f"), ("kib_each", ".0f"), ("busy", ".0%")]
            costs = [told(book.spread(Number(who, cell, value)), form) for value, form in more]
            row = [*(told(book.spread(each)) for each in numbers), *costs, ", ".join(book.faults(who, cell, "failed"))]
            rows.append([names.get(who, "the cluster itself"), *row])
    heading = f"{cell} at once, each {plan.stream_bytes >> 10} KiB of 24 kHz PCM at 1x"
    heading += f"; a player begins {BUFFER_MS} ms after its first chunk"
    parts = [f"{heading}\n{aligned(rows)}\n"]
    for count in plan.waiters:
        rows = [["", "first byte p50 ms", "last ms", "fills", "core", ""]]
        for who in names:
            numbers = [Number(who, waiting(count), value) for value in ("first_p50_ms", "first_last_ms")]
            if book.spread(numbers[0]):
                fills, busy = (book.spread(Number(who, waiting(count), value)) for value in ("fills", "busy"))
                faults = ", ".join(book.faults(who, waiting(count), "failed"))
                row = [*(told(book.spread(each)) for each in numbers), told(fills, ".0f"), told(busy, ".0%"), faults]
                rows.append([names[who], *row])
        parts.append(
            f"{count} ask for one speech of 2 s before the cluster's first byte; counted from that\n{aligned(rows)}\n"
        )
    return "\n".join(parts)


def panels(plan: Plan, book: Book, names: Mapping[str, str], ours: str) -> list[Panel]:
    """The picture's part."""
    shown = [(f"{plan.streaming} at once: jitter, p99", plan.streaming, "jitter_p99_ms")]
    shown += [
        (f"{count} on one fill: the last's first byte", waiting(count), "first_last_ms") for count in plan.waiters
    ]
    found = []
    for title, cell, value in shown:
        spreads = ((who, book.spread(Number(who, cell, value))) for who in names)
        bars = [Bar(names[who], spread, "ours" if who == ours else "peer") for who, spread in spreads if spread]
        found.append(Panel(title, bars, milliseconds))
    return found
