"""`python -m bench.delivery`: what raw HTTP, server-sent events, protobuf and WebSocket cost, and 500 sessions at once.

The edge has one core; a cluster in C that speaks in real time, and the listeners, have the other. First audio of long text,
whole and by sentence, is `bench.longtext`'s.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from bench.delivery import sessions, wire
from bench.houses import OTHER_CORES, ServerFailed
from bench.programs import Unable, compiled, machine, missing, remedy
from bench.readings import Book, Reading, verdicts

RESULTS = Path(__file__).parents[1] / "results"
PARTS = ("wire", "sessions")


@dataclass(frozen=True, slots=True)
class _Plans:
    wire: wire.Plan
    sessions: sessions.Plan


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, _leave)
    plans = _plans(options)
    try:
        if absent := missing(["gcc"]):
            raise Unable(f"there is no {absent[0]} for the cluster: {remedy(absent)}")
        os.sched_setaffinity(0, OTHER_CORES)
        with tempfile.TemporaryDirectory() as directory:
            book = Book(_measure(options, plans, compiled("cluster.c", Path(directory))))
    except (ServerFailed, Unable) as error:
        sys.exit(f"bench.delivery: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    document = _write(options, plans, book)
    print(json.dumps(document) if options.json else _report(options, plans, book))
    print(f"written to {RESULTS / 'delivery.json'}", file=sys.stderr)


def _leave(number: int, frame: FrameType | None) -> None:
    """What was started ends with its blocks."""
    sys.exit(128 + number)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.delivery", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, help="how often each is measured (3; quick: 1)")
    parser.add_argument("--seconds", type=float, help="of all sessions (40; quick: 10)")
    parser.add_argument("--sessions", type=int, default=500, help="at once (500)")
    parser.add_argument("--part", choices=PARTS, help="this part alone")
    parser.add_argument("--json", action="store_true", help="JSON alone on stdout")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (10 if options.quick else 40)
    return options


def _plans(options: argparse.Namespace) -> _Plans:
    spoken_s, hits = (3.0, 50) if options.quick else (10.0, 200)
    return _Plans(
        wire.Plan(options.rounds, spoken_s, hits, 40),
        sessions.Plan(options.rounds, options.sessions, options.seconds),
    )


def _measure(options: argparse.Namespace, plans: _Plans, cluster: Path) -> list[Reading]:
    readings: list[Reading] = []
    if options.part != "sessions":
        readings += wire.measured(plans.wire, cluster, _say)
    if options.part != "wire":
        readings += sessions.measured(plans.sessions, cluster, _say)
    return readings


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _report(options: argparse.Namespace, plans: _Plans, book: Book) -> str:
    parts = [wire.table(plans.wire, book)] if options.part != "sessions" else []
    if options.part != "wire":
        parts += [sessions.table(plans.sessions, book), verdicts(sessions.asked(plans.sessions), book)]
    return "\n".join(parts)


def _write(options: argparse.Namespace, plans: _Plans, book: Book) -> dict[str, Any]:
    asked = sessions.asked(plans.sessions) if options.part != "wire" else []
    document: dict[str, Any] = {
        "machine": {**machine(), "at": int(time.time())},
        "plan": {"rounds": options.rounds, "seconds": options.seconds, "sessions": options.sessions},
        "targets": [each.document(book) for each in asked],
        "readings": [wire.document(each) for each in book.readings],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "delivery.json").write_text(json.dumps(document, indent=1) + "\n")
    return document


if __name__ == "__main__":
    main()
