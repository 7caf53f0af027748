"""`python -m bench`: measured figures of an edge on one core, beside the cluster alone; a table, and JSON.

The machines are shared and noisy, so what is compared runs interleaved in one run, and ratios are what to quote. Others:
bench.hits, misses, regions, delivery, longtext, workers, metrics, hit_ratio, soak; docs/benchmarks.md says what each shows.
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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.houses import ServerProcess, bare_cluster, edge, plain, redis
from bench.load import Plan, Run, load, tts_request

MEMORY_ALONE = {"redis": {"url": "off"}}
#: What is compared is run in turn, so many times.
ROUNDS = 5
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
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each load, over all its rounds")
    parser.add_argument("--rate", type=float, default=500.0, help="hits per second")
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


def _hits(one: ServerProcess, options: argparse.Namespace, what: str) -> list[Figure]:
    """Interleaved: the edge, and plain aiohttp that answers as much without looking."""
    requests = [tts_request(_body(f"Sentence number {n}.")) for n in range(100)]
    _run(Plan(one.port, 200, 1.0, warmup_s=0), lambda n: requests[n % 100])
    edges: list[Run] = []
    plains: list[Run] = []
    spent_s: list[float] = [0.0, 0.0]
    with plain("hits") as peer:
        for number in range(ROUNDS):
            for at, (server, runs) in enumerate([(one, edges), (peer, plains)]):
                before_s = server.cpu_s()
                plan = Plan(server.port, options.rate, options.seconds / ROUNDS, seed=number)
                runs.append(_run(plan, lambda n: requests[n % 100]))
                spent_s[at] += server.cpu_s() - before_s
    values = {f"p{int(share * 100)}_ms": _median(edges, share) for share in (0.5, 0.95, 0.99)}
    values |= {f"plain_p{int(share * 100)}_ms": _median(plains, share) for share in (0.5, 0.99)}
    answered = sum(len(run.samples) for run in edges) * (1 + 0.5 * ROUNDS / options.seconds)
    values |= {"rate": statistics.mean(run.rate for run in edges), "failed": float(sum(run.failed for run in edges))}
    values |= {"cpu_us": spent_s[0] / answered * 1e6, "cpu_ratio": spent_s[0] / spent_s[1]}
    told = (
        "p50 {p50_ms:.2f}  p95 {p95_ms:.2f}  p99 {p99_ms:.2f} ms at {rate:.0f}/s; plain aiohttp beside it p50 "
        "{plain_p50_ms:.2f}  p99 {plain_p99_ms:.2f} ms; {cpu_ratio:.1f} times its CPU"
    )
    return [Figure(what, told.format(**values) + _failures(values), "p99 < 5 ms", values)]


def _median(runs: list[Run], share: float) -> float:
    return statistics.median(run.last_byte_ms(share) for run in runs)


def _failures(values: Mapping[str, float]) -> str:
    return f", {values['failed']:.0f} FAILED" if values["failed"] else ""


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
    """Interleaved: the cluster alone, an edge in front, and a plain aiohttp proxy in front; at half of the edge's core."""
    with (
        bare_cluster() as cluster,
        edge(cluster, {**MEMORY_ALONE, "memory": {"max_size": "64MiB"}}) as one,
        plain("proxy", f"http://127.0.0.1:{cluster}") as proxy,
    ):
        before_s = one.cpu_s()
        trial = _run(Plan(one.port, 150, 2.0), _asking("Trial"))
        each_s = (one.cpu_s() - before_s) / max(1.0, len(trial.samples) * 1.25)
        rate = min(1000.0, 0.5 / each_s)
        runs: dict[str, list[Run]] = {"direct": [], "edge": [], "plain": []}
        for number in range(ROUNDS):
            for what, port in (("direct", cluster), ("edge", one.port), ("plain", proxy.port)):
                plan = Plan(port, rate, options.seconds / ROUNDS, seed=number)
                runs[what].append(_run(plan, _asking(f"{what} {number}")))
    values = {"rate": rate, "busy": each_s * rate}
    values["failed"] = float(sum(run.failed for each in runs.values() for run in each))
    for share in (0.5, 0.99):
        first = {what: [run.first_byte_ms(share) for run in each] for what, each in runs.items()}
        for what in ("edge", "plain"):
            added = [through - alone for through, alone in zip(first[what], first["direct"], strict=True)]
            values[f"{what}_adds_p{int(share * 100)}_ms"] = statistics.median(added)
        values[f"direct_p{int(share * 100)}_ms"] = statistics.median(first["direct"])
    told = (
        "p50 +{edge_adds_p50_ms:.2f}  p99 +{edge_adds_p99_ms:.2f} ms over the cluster's own {direct_p50_ms:.2f} ms, at "
        "{rate:.0f}/s ({busy:.0%} of a core); a plain aiohttp proxy p50 +{plain_adds_p50_ms:.2f}  p99 "
        "+{plain_adds_p99_ms:.2f} ms"
    )
    return [Figure("first byte that a miss adds", told.format(**values) + _failures(values), "p50 < 1 ms", values)]


def _weights(options: argparse.Namespace) -> list[Figure]:
    hit, health = tts_request(_body("Idle.")), b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    return [_recording_weight(), _connection_weight("a hit", hit), _connection_weight("/livez", health)]


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


def _connection_weight(after: str, request: bytes, count: int = 2000) -> Figure:
    """Of clients that were answered this."""
    with bare_cluster() as cluster, edge(cluster, MEMORY_ALONE) as one:
        _run(Plan(one.port, 50, 0.5, warmup_s=0), lambda _: request)
        before = one.rss_bytes()
        idle = [socket.create_connection(("127.0.0.1", one.port)) for _ in range(count)]
        for each in idle:
            each.sendall(request)
            each.recv(4096)
        weight = (one.rss_bytes() - before) / count
        for each in idle:
            each.close()
    told = f"{weight / 1024:.1f} KiB ({count} of them)"
    return Figure(f"memory per idle connection, after {after}", told, "", {"bytes": weight})


if __name__ == "__main__":
    main()
