"""`python -m bench.metrics`: what counting costs a hit, and what a scrape costs those who are being answered.

The first is timed alone, as a hit does it. The second is an edge on one core with about a thousand series, under open-loop
load, scraped once a second and not at all, in turn.
"""

import argparse
import asyncio
import http.client
import json
import statistics
import sys
import threading
import time
import timeit
from pathlib import Path

import uvloop

from bench.houses import ServerProcess, bare_cluster, edge
from bench.load import Plan, Run, load, tts_request
from edgecache.cache.status import Result, Worth
from edgecache.cache.tally import Count, Kind

RESULTS = Path(__file__).parent / "results"
ROUNDS = 6
#: Another text for each is another hit; all are made before anything is measured.
TEXTS = 100


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.metrics", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each load")
    parser.add_argument("--rate", type=float, default=500.0, help="hits per second")
    options = parser.parse_args()
    told = {"count_ns": _count_ns(), **_scraped(options.rate, options.seconds)}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "metrics.json").write_text(json.dumps(told, indent=2) + "\n")
    shape = f"{told['series']:.0f} series, {told['bytes'] / 1024:.0f} KiB"
    print(f"counting a hit   {told['count_ns']:.0f} ns")
    print(f"a scrape         {told['scrape_ms']:.1f} ms of {shape}, under load")
    for name in ("p50", "p99"):
        quiet_ms, scraped_ms = told[f"quiet_{name}_ms"], told[f"scraped_{name}_ms"]
        print(f"hits, {name}        {quiet_ms:.2f} ms, and {scraped_ms:.2f} ms when scraped each second")
    if told["failed"]:
        sys.exit(f"{told['failed']:.0f} hits FAILED")


def _count_ns() -> float:
    """The least of several runs: what else the machine does only adds to it."""
    count, worth = Count(Kind("/v1/tts", "POST", 200, Result.HIT_MEMORY)), Worth(40, 2000)
    times = 100_000
    return min(timeit.repeat(lambda: count.add(32768, 0.0004, worth), number=times, repeat=7)) / times * 1e9


def _scraped(rate: float, seconds: float) -> dict[str, float]:
    requests = [tts_request(json.dumps({"text": f"Sentence number {n}."}).encode()) for n in range(TEXTS)]
    scrapes: list[tuple[float, int, int]] = []
    runs: dict[bool, list[Run]] = {False: [], True: []}
    with bare_cluster() as cluster, edge(cluster, {"redis": {"url": "off"}}) as one:
        _load(Plan(one.port, 200, 1.0, warmup_s=0), requests)
        _widen(one)
        for number in range(ROUNDS):
            for scraped in (False, True):
                stop = threading.Event()
                scraping = threading.Thread(target=_scrape, args=(one, scrapes, stop))
                if scraped:
                    scraping.start()
                runs[scraped].append(_load(Plan(one.port, rate, seconds, seed=number), requests))
                stop.set()
                if scraped:
                    scraping.join()
    told = {
        f"{name}_{share}_ms": _median(runs[scraped], share)
        for scraped, name in ((False, "quiet"), (True, "scraped"))
        for share in ("p50", "p99")
    }
    told |= {"scrape_ms": statistics.median(each[0] for each in scrapes) * 1000}
    told |= {"series": float(scrapes[-1][1]), "bytes": float(scrapes[-1][2]), "scrapes": float(len(scrapes))}
    told["failed"] = float(sum(run.failed for each in runs.values() for run in each))
    return told


def _median(runs: list[Run], share: str) -> float:
    return statistics.median(run.last_byte_ms(float(share[1:]) / 100) for run in runs)


def _load(plan: Plan, requests: list[bytes]) -> Run:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load(plan, lambda n: requests[n % TEXTS]))


def _widen(one: ServerProcess) -> None:
    """Everything that can be a label, so that there are about as many series as there can be with one cluster."""
    asking = http.client.HTTPConnection("127.0.0.1", one.port)
    for path in ("/v1/tts", "/v1/tts/stream", "/v1/tts?text=a", "/v1/audio/" + "0" * 64, "/livez", "/nowhere"):
        for method in ("GET", "HEAD", "POST", "PUT"):
            for body in (b"", b"{}", b'{"text":"a"}', b'{"text":"b"}', b'{"text":""}'):
                for directive in ("max-age=60", "no-cache", "no-store", "only-if-cached"):
                    asking.request(method, path, body, {"Cache-Control": directive})
                    asking.getresponse().read()
    asking.close()


def _scrape(one: ServerProcess, scrapes: list[tuple[float, int, int]], stop: threading.Event) -> None:
    asking = http.client.HTTPConnection("127.0.0.1", one.admin_port)
    while not stop.wait(1.0):
        began_s = time.perf_counter()
        asking.request("GET", "/metrics")
        body = asking.getresponse().read()
        series = sum(not line.startswith(b"#") for line in body.splitlines())
        scrapes.append((time.perf_counter() - began_s, series, len(body)))
    asking.close()


if __name__ == "__main__":
    main()
