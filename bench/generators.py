"""Load on a server, from the other core: `wrk` for closed loops, peers/openloop.c for schedules; and what they print."""

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.houses import OTHER_CORES, ROOT, SERVER_CORE, bound_to
from bench.programs import PEERS

#: One core for load, so that its own share of it is known.
LOAD_CORE = OTHER_CORES[0]
OPEN_WARMUP_S = 0.3
#: Upper bounds in nanoseconds, rising, with counts.
Histogram = Sequence[tuple[int, int]]


class BrokenLoad(Exception):
    """A load generator that did not do what it should, and what it said."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a load came to. failed: answers that were not 200, or not there. busy: the generator's part of its core."""

    answered: int
    failed: int
    bytes: int
    seconds: float
    busy: float
    latency: Histogram = ()
    lag: Histogram = ()
    #: To the first byte of the body.
    first: Histogram = ()
    #: Requests in all, those included that do not count.
    sent: int = 0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds


@dataclass(frozen=True, slots=True)
class Schedule:
    """An open loop; a rate of 0 is a closed one. spin: the generator has its core to itself, and never sleeps on it.

    fresh: each request has a connection of its own.
    """

    rate: float
    seconds: float
    connections: int
    seed: int
    spin: bool
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Listening:
    """Who listens at once (peers/listeners.c). same: all ask for one text. buffer_ms: how late a player begins."""

    count: int
    ramp_ms: float
    same: bool
    seed: int
    buffer_ms: float
    chunk_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Heard:
    """What listeners came to. late: chunks that a player would have missed; under_runs: streams that have any."""

    whole: int
    failed: int
    late: int
    under_runs: int
    bytes: int
    seconds: float
    delay: Histogram
    jitter: Histogram
    first: Histogram


def percentile_ms(histogram: Histogram, share: float) -> float:
    """The bound under which this share of what was counted lies; nan of nothing."""
    wanted, counted = share * sum(count for _, count in histogram), 0
    for upper_ns, count in histogram:
        counted += count
        if counted >= wanted:
            return upper_ns / 1e6
    return float("nan")


def wrk(port: int, requests: Path, connections: int, seconds: int) -> Load:
    """A closed loop: each connection asks again as soon as it is answered."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(PEERS / "cycling.lua")]
    printed, cpu_s = _run([*command, f"http://127.0.0.1:{port}/v1/tts", "--", str(requests)], LOAD_CORE, seconds)
    return read_wrk(printed, cpu_s)


def read_wrk(printed: str, cpu_s: float) -> Load:
    """What peers/cycling.lua printed after wrk's own words."""
    told = _last_line(printed)
    failed = int(told["refused"]) + int(told["broken"])
    answered, seconds = int(told["requests"]) - int(told["refused"]), float(told["seconds"])
    return Load(answered, failed, int(told["bytes"]), seconds, cpu_s / seconds)


def own(program: Path, port: int, requests: Path, schedule: Schedule) -> Load:
    """peers/openloop.c; a rate of 0 is a closed loop."""
    words = [port, schedule.connections, schedule.rate, schedule.seconds, OPEN_WARMUP_S, schedule.seed]
    switches = [str(int(each)) for each in (schedule.spin, schedule.fresh)]
    command = [str(program), *map(str, words), *switches, str(requests)]
    printed, cpu_s = _run(command, LOAD_CORE, schedule.seconds)
    return read_own(printed, cpu_s)


def read_own(printed: str, cpu_s: float) -> Load:
    """What peers/openloop.c printed."""
    told = _last_line(printed)
    names = ("latency_ns", "lag_ns", "first_ns")
    latency, lag, first = ([(int(upper), int(count)) for upper, count in told[name]] for name in names)
    answered, failed, received, sent = (int(told[name]) for name in ("answered", "failed", "bytes", "sent"))
    seconds = float(told["seconds"])
    return Load(answered, failed, received, seconds, cpu_s / (seconds + OPEN_WARMUP_S), latency, lag, first, sent)


def listeners(program: Path, port: int, requests: Path, how: Listening) -> Heard:
    """peers/listeners.c."""
    words = [port, how.count, how.ramp_ms, int(how.same), how.seed, how.buffer_ms, how.chunk_bytes, how.seconds]
    printed, _ = _run([str(program), *map(str, words), str(requests)], LOAD_CORE, how.seconds)
    return read_listeners(printed)


def read_listeners(printed: str) -> Heard:
    """What peers/listeners.c printed."""
    told = _last_line(printed)
    whole, failed, late, under_runs, heard = (
        int(told[name]) for name in ("whole", "failed", "late", "under_runs", "bytes")
    )
    names = ("delay_ns", "jitter_ns", "first_ns")
    delay, jitter, first = ([(int(upper), int(count)) for upper, count in told[name]] for name in names)
    return Heard(whole, failed, late, under_runs, heard, float(told["seconds"]), delay, jitter, first)


def redis_gets(path: str, size: int, connections: int, seconds: float) -> tuple[float, float]:
    """The bare loop of `GET`s, on the server's core: a second, and CPU seconds for each."""
    words = [path, str(size), str(connections), str(seconds)]
    printed, _ = _run([sys.executable, "-m", "bench.peers.redis_get", *words], SERVER_CORE, seconds)
    told = _last_line(printed)
    return told["gets"] / told["seconds"], told["cpu_s"] / told["gets"]


def _run(command: Sequence[str], core: int, seconds: float) -> tuple[str, float]:
    """What it printed, and the CPU time that it took. BrokenLoad: it failed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        ran = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            cwd=ROOT,
            check=False,
            preexec_fn=bound_to([core]),
        )
    except subprocess.TimeoutExpired:
        raise BrokenLoad(f"{command[0]} did not end") from None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ran.returncode:
        raise BrokenLoad(f"{command[0]} failed (exit status {ran.returncode}):\n{ran.stderr.strip()}{ran.stdout}")
    return ran.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _last_line(printed: str) -> dict[str, Any]:
    """The line of JSON that ends it. BrokenLoad: there is none."""
    line = printed.strip().rpartition("\n")[2]
    try:
        told: dict[str, Any] = json.loads(line)
    except ValueError:
        raise BrokenLoad(f"the load generator told no figures:\n{printed}") from None
    return told
