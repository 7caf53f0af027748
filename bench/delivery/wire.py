"""What each delivery costs: bytes on the wire, and CPU of the edge, for a second of audio.

Hits one after the other over a connection that is kept. Misses as they are spoken: many streams at once, each in real time,
because how a stream is cut into pieces decides what it costs. JSON with base64 is what other services send; nobody can hear
its beginning before its end, so it is a hit only.
"""

import asyncio
import json
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.bare_cluster import wav
from bench.delivery.framing import Broken
from bench.delivery.listening import ACCEPTS, SECOND_BYTES, SOCKET, Listener, Told
from bench.houses import (
    SERVER_CORE,
    ServerFailed,
    ServerProcess,
    compiled_cluster,
    edge,
    free_port,
    listens,
    others_cpu_s,
    plain,
    process,
)
from bench.readings import Book, Number, Reading, told
from bench.telling import aligned

HIT, MISS, WARM = "hit", "miss, as it is spoken", "warm"
WAYS = (*ACCEPTS, SOCKET)
JSON = "JSON with base64"
#: Beside them: what aiohttp does with the same bytes and nothing else.
PLAIN, PLAIN_SOCKET = "plain aiohttp, raw", "plain aiohttp, WebSocket"
CHUNK_BYTES = 4096
_TEXT = "Number {}: this is as much as somebody says in ten seconds or a little less, if nobody hurries."


@dataclass(frozen=True, slots=True)
class Plan:
    """seconds: of each speech. hits: how many in a round. streams: misses at once."""

    rounds: int
    seconds: float
    hits: int
    streams: int

    @property
    def size(self) -> int:
        """Of whole chunks."""
        return int(self.seconds * SECOND_BYTES) // CHUNK_BYTES * CHUNK_BYTES

    @property
    def audio_s(self) -> float:
        """What of it is audio."""
        return (self.size - 44) / SECOND_BYTES


@dataclass(frozen=True, slots=True)
class _Cost:
    """Of so many answers."""

    answers: int
    wire_bytes: int
    cpu_s: float

    def values(self, plan: Plan) -> dict[str, float]:
        """For a second of audio."""
        audio_s = self.answers * plan.audio_s
        wire = self.wire_bytes / audio_s
        return {
            "bytes": wire,
            "over": self.wire_bytes / (self.answers * plan.size) - 1,
            "cpu_us": self.cpu_s / audio_s * 1e6,
        }


def measured(plan: Plan, cluster_program: Path, say: Callable[[str], None]) -> list[Reading]:
    """Every round."""
    readings: list[Reading] = []
    words = (str(plan.size), str(CHUNK_BYTES), "0", "1")
    with compiled_cluster(cluster_program, *words) as cluster, generous(cluster.port) as server:
        for number in range(plan.rounds):
            for way in WAYS[number % len(WAYS) :] + WAYS[: number % len(WAYS)]:
                for state in (MISS, HIT):
                    readings.append(_one(plan, server, way, (state, number)))
                    say(f"round {number + 1} of {plan.rounds}, {way}, {state}: {_said(readings[-1])}")
            for reading in _beside(plan, number):
                readings.append(reading)
                say(f"round {number + 1} of {plan.rounds}, {reading.who}, {reading.cell}: {_said(reading)}")
    return readings


def generous(cluster_port: int) -> AbstractContextManager[ServerProcess]:
    """An edge that is allowed so many at once, and that refuses nobody when it is late: that is what is measured."""
    shed = {"lag": "30s", "lag_later": "30s"}
    more = {
        "fills": {"max_flights": 4000, "max_held": "1GiB", "shed": shed},
        "pool": {"max_connections": 4000, "max_per_host": 4000},
    }
    return edge(cluster_port, {"redis": {"url": "off"}}, more)


def _one(plan: Plan, server: ServerProcess, way: str, cell: tuple[str, int]) -> Reading:
    state, number = cell
    if state == HIT:
        _run(_hits(plan, server.port, way, 5))
        work = _hits(plan, server.port, way, plan.hits)
    else:
        work = _misses(plan, server.port, way, number)
    others_s, began_s, cpu_s = others_cpu_s(), time.monotonic(), server.cpu_s()
    answers = _run(work)
    cost = _Cost(len(answers), sum(each.wire_bytes for each in answers), server.cpu_s() - cpu_s)
    wrong = sum(each.cache != (HIT if state == HIT else "miss") for each in answers)
    expected = plan.hits if state == HIT else plan.streams
    values = cost.values(plan) | {"failed": expected - len(answers) + wrong}
    return Reading(way, state, number, values, (others_cpu_s() - others_s) / (time.monotonic() - began_s))


def _run(work: Coroutine[None, None, list[Told]]) -> list[Told]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


async def _hits(plan: Plan, port: int, way: str, many: int) -> list[Told]:
    listener = await Listener.connected(port, way)
    try:
        return [await listener.ask(_TEXT.format(WARM)) for _ in range(many)][-plan.hits :]
    except Broken as error:
        raise ServerFailed(f"a hit over {way} failed: {error}") from error
    finally:
        listener.close()


async def _misses(plan: Plan, port: int, way: str, number: int) -> list[Told]:
    """They begin over one second, so that their pieces do not all come at once."""

    async def one(at: int) -> Told:
        await asyncio.sleep(at / plan.streams)
        listener = await Listener.connected(port, way)
        try:
            return await listener.ask(_TEXT.format(f"{way} {number} {at}"))
        finally:
            listener.close()

    ends = await asyncio.gather(*(one(at) for at in range(plan.streams)), return_exceptions=True)
    heard = [each for each in ends if isinstance(each, Told)]
    if not heard:
        raise ServerFailed(f"no stream was heard to its end: {ends[0]}")
    return heard


def _beside(plan: Plan, number: int) -> Iterator[Reading]:
    """Peers, with hits alone."""
    with plain("hits", str(plan.size)) as server:
        yield _peer(PLAIN, "raw", server, plan, number)
    with _plain_socket(plan.size) as server:
        yield _peer(PLAIN_SOCKET, SOCKET, server, plan, number)
    yield Reading(JSON, HIT, number, _json(plan).values(plan))


def _peer(who: str, way: str, server: ServerProcess, plan: Plan, number: int) -> Reading:
    _run(_hits(plan, server.port, way, 5))
    others_s, began_s, cpu_s = others_cpu_s(), time.monotonic(), server.cpu_s()
    answers = _run(_hits(plan, server.port, way, plan.hits))
    cost = _Cost(len(answers), sum(each.wire_bytes for each in answers), server.cpu_s() - cpu_s)
    return Reading(who, HIT, number, cost.values(plan), (others_cpu_s() - others_s) / (time.monotonic() - began_s))


@contextmanager
def _plain_socket(size: int) -> Iterator[ServerProcess]:
    port = free_port()
    arguments = ["-m", "bench.peers.sockets", str(port), str(size), str(CHUNK_BYTES)]
    with process("plain aiohttp", [sys.executable, *arguments], SERVER_CORE) as running:
        running.wait_until(lambda: listens(port))
        yield ServerProcess(running, port)


def _json(plan: Plan) -> _Cost:
    """Its bytes, and the time to write it down; sending it is not counted."""
    audio, times = wav(plan.size), 20
    began_s = time.thread_time()
    for _ in range(times):
        written = json.dumps({"audio": b64encode(audio).decode()}).encode()
    return _Cost(times, times * len(written), time.thread_time() - began_s)


def _said(reading: Reading) -> str:
    values = reading.values
    return f"{values['bytes']:.0f} bytes, {values['cpu_us']:.0f} µs CPU a second of audio"


def table(plan: Plan, book: Book) -> str:
    """What each costs."""
    rows = [["", "", "bytes a second of audio", "over the audio", "CPU µs a second of audio", ""]]
    cells = [(way, state) for state in (HIT, MISS) for way in WAYS] + [
        (who, HIT) for who in (PLAIN, PLAIN_SOCKET, JSON)
    ]
    for who, state in cells:
        bytes_, over, cpu = (book.spread(Number(who, state, value)) for value in ("bytes", "over", "cpu_us"))
        if bytes_ and over:
            faults = ", ".join(book.faults(who, state, "failed"))
            rows.append([who, state, f"{bytes_.median:.0f}", f"{over.median:.2%}", told(cpu, ".0f"), faults])
    return f"{plan.audio_s:.0f} s of 24 kHz WAV; {plan.streams} misses at once, {plan.hits} hits in turn\n{aligned(rows)}\n"


def document(reading: Reading) -> Mapping[str, object]:
    """As JSON has it."""
    return {
        "who": reading.who,
        "cell": reading.cell,
        "round": reading.round,
        "others": reading.others,
        **reading.values,
    }
