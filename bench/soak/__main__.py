"""`python -m bench.soak`: a real daemon under load and faults for twenty minutes, and whether it kept its promises.

Two workers, Redis and three clusters, each a process; clients of every kind who do not wait for one another; a fault every
few seconds, from a seeded schedule. Every byte that is heard is compared with what is due. The exit status is 1 when a
promise is broken.
"""

import argparse
import json
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import uvloop

from bench.programs import machine, missing, remedy
from bench.soak.picture import picture
from bench.soak.run import Plan, Result, soak
from bench.soak.world import Failed
from bench.telling import aligned

RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, _leave)
    if absent := missing(["redis-server"]):
        sys.exit(f"bench.soak: there is no {absent[0]}: {remedy(absent)}")
    seconds = options.minutes * 60
    plan = Plan(seconds, options.rate, options.seed, look_s=1.0 if seconds <= 300 else 5.0)
    try:
        result = uvloop.run(soak(plan, _say))
    except Failed as error:
        sys.exit(f"bench.soak: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    found = document(result)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "soak.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "soak.svg").write_text(picture(result))
    print(json.dumps(found) if options.json else report(result))
    print(f"written to {RESULTS / 'soak.json'} and soak.svg", file=sys.stderr)
    sys.exit(1 if any(result.promises.values()) else 0)


def _leave(number: int, frame: FrameType | None) -> None:
    """What was started ends with its blocks."""
    raise KeyboardInterrupt


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0, help="how long the load lasts (20)")
    parser.add_argument("--rate", type=float, default=40.0, help="clients that come in a second (40)")
    parser.add_argument("--seed", type=int, default=1, help="of clients, texts and faults (1)")
    parser.add_argument("--json", action="store_true", help="JSON alone on stdout")
    return parser.parse_args()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def report(result: Result) -> str:
    """For people."""
    ledger = result.ledger
    parts = [
        f"{ledger.answers} answers in {result.plan.seconds:.0f} s (seed {result.plan.seed}), "
        f"{ledger.audio_bytes / (1 << 20):.0f} MiB of audio, {result.turned_away} turned away",
        aligned([["cache", *ledger.caches], ["", *map(str, ledger.caches.values())]]),
        aligned([["way", *(way.value for way in ledger.ways)], ["", *map(str, ledger.ways.values())]]),
        "Faults\n" + aligned(_faults(result)),
        "Errors\n" + aligned([["how", "code", "because", ""], *_troubles(result)]),
        "Read back\n" + aligned(_kept(result)),
        f"Lines, behind the first {result.plan.seconds / 3:.0f} s\n" + aligned(_lines(result)),
        *(
            ["Logged\n" + aligned([[message, str(many)] for message, many in result.logged.items()])]
            if result.logged
            else []
        ),
        "Promises\n" + aligned([[name, f"BROKEN: {how}" if how else "kept"] for name, how in result.promises.items()]),
        *ledger.shown,
        *result.kept.wrong[:20],
    ]
    return "\n\n".join(parts)


def _faults(result: Result) -> list[list[str]]:
    names = sorted({each.fault.value for each in result.happened})
    return [[name, str(sum(each.fault.value == name for each in result.happened))] for name in names]


def _troubles(result: Result) -> list[list[str]]:
    return [[*cause, str(many)] for cause, many in result.ledger.troubles.most_common()]


def _kept(result: Result) -> list[list[str]]:
    kept = result.kept
    rows = [["Redis, directly", str(kept.in_redis)], ["Redis, through the edge by key", str(kept.by_key)]]
    return rows + [[f"worker {slot}, only if cached", str(many)] for slot, many in kept.by_worker.items()]


def _lines(result: Result) -> list[list[str]]:
    rows = [["", "median", "an hour", "before", "after"]]
    for name, line in result.lines.items():
        ends = [f"{side[name]:.1f}" if name in side else "-" for side in (result.before, result.after)]
        rows.append([name, f"{line.level:.1f}", f"{line.per_hour:+.1f}", *ends])
    return rows


def document(result: Result) -> dict[str, Any]:
    """As JSON has it."""
    ledger, plan = result.ledger, result.plan
    return {
        "machine": {**machine(), "at": int(time.time())},
        "plan": {"seconds": plan.seconds, "rate": plan.rate, "seed": plan.seed},
        "promises": result.promises,
        "answers": {verdict.value: many for verdict, many in ledger.verdicts.items()},
        "caches": ledger.caches,
        "ways": {way.value: many for way, many in ledger.ways.items()},
        "errors": [
            dict(zip(("how", "code", "because"), cause, strict=True)) | {"many": many}
            for cause, many in ledger.troubles.items()
        ],
        "shown": ledger.shown,
        "faults": [{**asdict(each), "fault": each.fault.value} for each in result.happened],
        "read_back": asdict(result.kept),
        "lines": {name: asdict(line) for name, line in result.lines.items()},
        "before": result.before,
        "after": result.after,
        "logged": result.logged,
        "looks": [{"at_s": round(each.at_s, 1), **each.values} for each in result.looks],
    }


if __name__ == "__main__":
    main()
