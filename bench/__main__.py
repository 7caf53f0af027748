"""`python -m bench`: measured figures of an edge on one core, beside the cluster alone; a table, and JSON.

The machines are shared and noisy, so what is compared runs interleaved in one run, and ratios are what to quote.
"""

import argparse
import asyncio
import json
import platform
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.houses import EdgeProcess, bare_cluster, edge, redis, wait_for
from bench.load import Plan, Run, load, tts_request

MEMORY_ALONE = {"redis": {"url": "off"}}
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. budget: what README promises, or empty."""

    what: str
    told: str
    budget: str
    values: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each load")
    parser.add_argument("--rate", type=float, default=1500.0, help="hits per second")
    parser.add_argument("--json", action="store_true", help="JSON alone on stdout")
    options = parser.parse_args()
    figures: list[Figure] = []
    for measure in (_memory_hits, _redis_hits, _misses, _weights):
        print(f"measuring {measure.__name__.strip('_').replace('_', ' ')} ...", file=sys.stderr)
        figures += measure(options)
    document = {
        "machine": {"python": platform.python_version(), "system": platform.platform(), "at": int(time.time())},
        "figures": [{"what": each.what, "budget": each.budget, **each.values} for each in figures],
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "bench.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    if options.json:
        print(json.dumps(document))
        return
    width = max(len(each.what) for each in figures)
    for each in figures:
        print(f"{each.what:<{width}}  {each.told}" + (f"   (budget {each.budget})" if each.budget else ""))
    print(f"written to {path}", file=sys.stderr)


def _run(plan: Plan, request: Callable[[int], bytes]) -> Run:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load(plan, request))


def _body(text: str) -> bytes:
    return json.dumps({"text": text, "voice_id": "tone", "language": "en"}).encode()


def _asking(what: str) -> Callable[[int], bytes]:
    """Another text for every request."""
    return lambda number: tts_request(_body(f"{what}, {number}."))


def _hits(one: EdgeProcess, options: argparse.Namespace, what: str) -> list[Figure]:
    requests = [tts_request(_body(f"Sentence number {n}.")) for n in range(100)]
    _run(Plan(one.port, 300, 1.0, warmup_s=0), lambda n: requests[n % 100])
    cpu_s = one.cpu_s()
    run = _run(Plan(one.port, options.rate, options.seconds), lambda n: requests[n % 100])
    cpu_us = (one.cpu_s() - cpu_s) / max(1, len(run.samples)) * 1e6
    values = {f"p{int(share * 100)}_ms": run.last_byte_ms(share) for share in (0.5, 0.95, 0.99)}
    values |= {"rate": run.rate, "failed": run.failed, "cpu_us": cpu_us}
    told = "p50 {p50_ms:.2f}  p95 {p95_ms:.2f}  p99 {p99_ms:.2f} ms at {rate:.0f}/s, {cpu_us:.0f} us of CPU each"
    return [
        Figure(what, told.format(**values) + (f", {run.failed} FAILED" if run.failed else ""), "p99 < 5 ms", values)
    ]


def _memory_hits(options: argparse.Namespace) -> list[Figure]:
    with bare_cluster() as cluster, edge(cluster, MEMORY_ALONE) as one:
        return _hits(one, options, "hit from memory, 32 KiB")


def _redis_hits(options: argparse.Namespace) -> list[Figure]:
    with (
        tempfile.TemporaryDirectory() as directory,
        bare_cluster() as cluster,
        redis(Path(directory)) as url,
        edge(cluster, {"redis": {"url": url}, "memory": {"max_size": 0}}) as one,
    ):
        return _hits(one, options, "hit from Redis, 32 KiB")


def _misses(options: argparse.Namespace) -> list[Figure]:
    """Interleaved: the cluster alone and through an edge, at about half of the edge's core."""
    rounds = 5
    with bare_cluster() as cluster, edge(cluster, {**MEMORY_ALONE, "memory": {"max_size": "64MiB"}}) as one:
        began_s, cpu_s = time.monotonic(), one.cpu_s()
        trial = _run(Plan(one.port, 200, 2.0), _asking("Trial"))
        each_s = (one.cpu_s() - cpu_s) / max(1, len(trial.samples) * 2.5 / 2.0)
        rate = min(1000.0, 0.5 / each_s)
        pairs: list[tuple[Run, Run]] = []
        for number in range(rounds):
            plan = Plan(cluster, rate, options.seconds / 2, seed=number)
            direct = _run(plan, _asking("Direct"))
            through = Plan(one.port, rate, options.seconds / 2, seed=number)
            pairs.append((direct, _run(through, _asking(f"Round {number}"))))
        busy = each_s * rate
        assert time.monotonic() > began_s
    values = {"rate": rate, "busy": busy, "failed": float(sum(a.failed + b.failed for a, b in pairs))}
    for share in (0.5, 0.99):
        added = [b.first_byte_ms(share) - a.first_byte_ms(share) for a, b in pairs]
        values[f"added_p{int(share * 100)}_ms"] = statistics.median(added)
        values[f"direct_p{int(share * 100)}_ms"] = statistics.median(a.first_byte_ms(share) for a, _ in pairs)
    told = (
        "p50 +{added_p50_ms:.2f}  p99 +{added_p99_ms:.2f} ms over the cluster's own {direct_p50_ms:.2f} ms, "
        "at {rate:.0f}/s ({busy:.0%} of a core)"
    )
    return [Figure("first byte that a miss adds", told.format(**values), "p50 < 1 ms", values)]


def _weights(options: argparse.Namespace) -> list[Figure]:
    return [_recording_weight(), _connection_weight()]


def _recording_weight() -> Figure:
    with bare_cluster() as cluster, edge(cluster, MEMORY_ALONE) as one:
        _run(Plan(one.port, 300, 1.0, warmup_s=0), _asking("Warm"))
        before, count = one.rss_bytes(), 0

        def ask(number: int) -> bytes:
            nonlocal count
            count += 1
            return tts_request(_body(f"Recording {number}."))

        _run(Plan(one.port, 400, 8.0, warmup_s=0), ask)
        over = (one.rss_bytes() - before) / count - (32 << 10)
    return Figure(
        "memory per recording over its bytes", f"{over / 1024:.2f} KiB ({count} of 32 KiB)", "", {"bytes": over}
    )


def _connection_weight(count: int = 2000) -> Figure:
    with bare_cluster() as cluster, edge(cluster, MEMORY_ALONE) as one:
        wait_for(one.port)
        before = one.rss_bytes()
        idle = [socket.create_connection(("127.0.0.1", one.port)) for _ in range(count)]
        request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
        for each in idle:
            each.sendall(request)
            each.recv(4096)
        weight = (one.rss_bytes() - before) / count
        for each in idle:
            each.close()
    return Figure("memory per idle connection", f"{weight / 1024:.1f} KiB ({count} of them)", "", {"bytes": weight})


if __name__ == "__main__":
    main()
