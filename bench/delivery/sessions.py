"""Five hundred WebSocket sessions at once through one core: who listens in real time, to hits and misses in turn.

A session asks, listens to the end of what it hears as a player would, is silent for a moment, and asks again. Half of what
is asked for is in memory; the other half a cluster speaks in real time. `direct` is the same, with misses alone, of the
cluster itself over HTTP: what the listeners and the cluster, which share the other core, make of it without an edge.
"""

import asyncio
import random
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.delivery.framing import Broken
from bench.delivery.listening import SECOND_BYTES, SOCKET, Listener
from bench.delivery.playing import Listened, quantile
from bench.delivery.wire import generous
from bench.houses import ServerProcess, compiled_cluster, others_cpu_s
from bench.readings import Asked, Book, Number, Reading, told
from bench.telling import aligned

EDGE, DIRECT = "edge", "direct"
NAMES = {EDGE: "edgecache, WebSocket", DIRECT: "the cluster itself, HTTP"}
CHUNK_BYTES = 4096
HIT_SHARE = 0.5
POPULAR = 40
SILENCE_S = 1.0
_TEXT = "Number {}: four seconds of speech, as somebody says it."
_SPOKEN_S = 4.0


@dataclass(frozen=True, slots=True)
class Plan:
    """sessions: at once, for so many seconds; they come over `ramp_s`, which does not count."""

    rounds: int
    sessions: int
    seconds: float
    ramp_s: float = 5.0

    @property
    def size(self) -> int:
        """Of whole chunks."""
        return int(_SPOKEN_S * SECOND_BYTES) // CHUNK_BYTES * CHUNK_BYTES

    @property
    def cell(self) -> str:
        return f"{self.sessions} sessions"


class _Crowd:
    """All sessions of a round."""

    def __init__(self, plan: Plan, port: int, way: str, number: int) -> None:
        self._plan, self._port, self._way, self._number = plan, port, way, number
        self.listened = Listened()
        self.failed: list[str] = []
        self._fresh = 0

    async def run(self) -> None:
        """Until the last one has left."""
        if self._way == SOCKET:
            await asyncio.gather(*(self._warm(each) for each in range(POPULAR)))
        self._counts_from_s = time.perf_counter() + self._plan.ramp_s
        self._ends_s = self._counts_from_s + self._plan.seconds
        await asyncio.gather(*(self._session(at) for at in range(self._plan.sessions)))

    async def _warm(self, popular: int) -> None:
        listener = await Listener.connected(self._port, self._way)
        await listener.ask(_TEXT.format(f"popular {popular}"))
        listener.close()

    async def _session(self, at: int) -> None:
        rng = random.Random(f"{self._number} {at}")
        await asyncio.sleep(rng.uniform(0, self._plan.ramp_s))
        listener = await Listener.connected(self._port, self._way)
        try:
            while time.perf_counter() < self._ends_s:
                heard = await listener.ask(self._text(rng), "/v1/tts")
                if self._counts_from_s <= heard.asked_s:
                    self.listened.add(heard)
                played_s = heard.asked_s + heard.first_s + _SPOKEN_S - time.perf_counter()
                await asyncio.sleep(max(0.0, played_s) + rng.uniform(0, 2 * SILENCE_S))
        except (Broken, TimeoutError, OSError) as error:
            self.failed.append(f"{type(error).__name__}: {error}")
        finally:
            listener.close()

    def _text(self, rng: random.Random) -> str:
        if self._way == SOCKET and rng.random() < HIT_SHARE:
            return _TEXT.format(f"popular {rng.randrange(POPULAR)}")
        self._fresh += 1
        return _TEXT.format(f"{self._way} {self._number} {self._fresh}")


def measured(plan: Plan, cluster_program: Path, say: Callable[[str], None]) -> list[Reading]:
    """Every round."""
    readings = []
    words = (str(plan.size), str(CHUNK_BYTES), "0", "1")
    with compiled_cluster(cluster_program, *words) as cluster:
        for number in range(plan.rounds):
            with generous(cluster.port) as server:
                readings.append(_one(plan, server, (EDGE, SOCKET, number), say))
            readings.append(_one(plan, cluster, (DIRECT, "raw", number), say))
    return readings


def _one(plan: Plan, server: ServerProcess, what: tuple[str, str, int], say: Callable[[str], None]) -> Reading:
    who, way, number = what
    crowd = _Crowd(plan, server.port, way, number)
    others_s, began_s, cpu_s, own_s = others_cpu_s(), time.monotonic(), server.cpu_s(), _own_cpu_s()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(crowd.run())
    took_s = time.monotonic() - began_s
    values = _values(crowd) | {"busy": (server.cpu_s() - cpu_s) / took_s, "load_busy": (_own_cpu_s() - own_s) / took_s}
    say(
        f"round {number + 1} of {plan.rounds}, {NAMES[who]}: first audio p95 {values['first_p95_ms']:.1f} ms, jitter p99 "
        f"{values['jitter_p99_ms']:.1f} ms, {values['dry']:.0f} of {values['streams']:.0f} streams ran dry, core "
        f"{values['busy']:.0%}, load {values['load_busy']:.0%}"
    )
    for each in sorted(set(crowd.failed))[:5]:
        say(f"  failed: {each}")
    return Reading(who, plan.cell, number, values, (others_cpu_s() - others_s) / took_s)


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _values(crowd: _Crowd) -> dict[str, float]:
    listened = crowd.listened
    found: dict[str, float] = {"streams": listened.streams, "dry": listened.dry, "failed": len(crowd.failed)}
    found["dry_share"] = listened.dry / max(1, listened.streams)
    kinds = {"first": listened.all_first_ms, **{f"{kind}_first": each for kind, each in listened.first_ms.items()}}
    for name, each in kinds.items():
        found |= {f"{name}_p{int(share * 100)}_ms": quantile(each, share) for share in (0.5, 0.95, 0.99)}
    return found | {f"jitter_p{int(share * 100)}_ms": listened.jitter_ms(share) for share in (0.5, 0.99)}


def asked(plan: Plan) -> list[Asked]:
    """The issue's bounds, and the promises' defaults."""
    return [
        Asked(f"{plan.cell}: jitter p99, ms", 20, Number(EDGE, plan.cell, "jitter_p99_ms")),
        Asked(f"{plan.cell}: first audio p95, ms", 100, Number(EDGE, plan.cell, "first_p95_ms")),
        Asked(f"{plan.cell}: share of streams that ran dry", 0.001, Number(EDGE, plan.cell, "dry_share")),
    ]


def table(plan: Plan, book: Book) -> str:
    """Who heard what how."""
    columns = {
        "first audio p50 ms": ("first_p50_ms", ".1f"),
        "p95 ms": ("first_p95_ms", ".1f"),
        "hits p95 ms": ("hit_first_p95_ms", ".1f"),
        "misses p95 ms": ("miss_first_p95_ms", ".1f"),
        "jitter p99 ms": ("jitter_p99_ms", ".1f"),
        "ran dry": ("dry", ".0f"),
        "of streams": ("streams", ".0f"),
        "core": ("busy", ".0%"),
        "load core": ("load_busy", ".0%"),
    }
    rows = [["", *columns, ""]]
    for who, name in NAMES.items():
        spreads = [(book.spread(Number(who, plan.cell, value)), form) for value, form in columns.values()]
        if spreads[0][0]:
            faults = ", ".join(book.faults(who, plan.cell, "failed"))
            rows.append([name, *(told(each, form) for each, form in spreads), faults])
    heading = f"{plan.cell} at once for {plan.seconds:.0f} s, {_SPOKEN_S:.0f} s of speech each time, half of it hits"
    return f"{heading}\n{aligned(rows)}\n"
