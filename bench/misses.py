"""`python -m bench.misses`: what misses cost through the edge, beside nginx, Varnish and a plain aiohttp proxy.

Three parts: what a miss adds to the first byte; many streams at once, as fast as they are spoken; many who wait for one
fill.

Each server has one core in turn; the cluster and the load, both in C, have the other. What is compared runs in rounds whose
order changes. So figures are of one machine in one hour, and ratios are what to quote.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from bench import added, many
from bench.contenders import CONTENDERS, Contender, Stage
from bench.drawing import draw
from bench.houses import ServerFailed, ServerProcess, plain
from bench.programs import Unable, machine, missing, remedy
from bench.readings import Asked, Book, Reading, verdicts

RESULTS = Path(__file__).parent / "results"
OURS = "memory"


def _proxy(stage: Stage) -> AbstractContextManager[ServerProcess]:
    return plain("proxy", f"http://127.0.0.1:{stage.cluster}")


#: Those that pass requests on: of `bench.hits`, and a plain proxy.
PROXIES = (
    *(each for each in CONTENDERS if each.name in (OURS, "nginx", "varnish")),
    Contender("plain", "plain aiohttp proxy", _proxy),
)
NAMES = {each.name: each.told for each in PROXIES}
PARTS = ("added", "many")


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, _leave)
    try:
        contenders = _able(options)
        with tempfile.TemporaryDirectory() as directory:
            book = Book(_measure(options, contenders, Path(directory)))
    except (ServerFailed, Unable) as error:
        sys.exit(f"bench.misses: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    document = _write(options, book)
    if options.json:
        print(json.dumps(document))
        return
    print(_report(options, book))
    print(f"written to {RESULTS / 'misses.json'} and misses.svg", file=sys.stderr)


def _leave(number: int, frame: FrameType | None) -> None:
    """What was started ends with its blocks."""
    sys.exit(128 + number)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.misses", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two short rounds")
    parser.add_argument("--only", metavar="NAMES", help=f"of {', '.join(NAMES)}; separated by commas")
    parser.add_argument("--rounds", type=int, help="how often each is measured (5; quick: 2)")
    parser.add_argument("--seconds", type=float, help="of each load (2; quick: 1)")
    parser.add_argument("--part", choices=PARTS, help="this part alone; many: streams, and who waits for one fill")
    parser.add_argument("--rate", type=float, help="misses a second (what takes the costliest half of its core)")
    parser.add_argument("--json", action="store_true", help="JSON alone on stdout")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.seconds = options.seconds or (1 if options.quick else 2)
    unknown = set((options.only or OURS).split(",")) - set(NAMES)
    if unknown:
        parser.error(f"--only: no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return options


def _able(options: argparse.Namespace) -> list[Contender]:
    """Who can be measured here. Unable: nobody can."""
    if absent := missing(["gcc"]):
        raise Unable(f"there is no {absent[0]} for the cluster and the load: {remedy(absent)}")
    chosen = [each for each in PROXIES if options.only is None or each.name in options.only.split(",")]
    for each in chosen:
        if absent := missing(each.needs):
            print(f"{each.told} is left out, there is no {absent[0]}: {remedy(absent)}", file=sys.stderr)
    return [each for each in chosen if not missing(each.needs)]


def _measure(options: argparse.Namespace, contenders: Sequence[Contender], directory: Path) -> list[Reading]:
    readings: list[Reading] = []
    if options.part != "many":
        plan = added.Plan(options.rounds, options.seconds, options.rate)
        readings += added.Added(plan, contenders, directory, _say).run()
    if options.part != "added":
        allowed = [replace(each, start=many.generous) if each.name == OURS else each for each in contenders]
        readings += many.Many(_many(options), allowed, directory, _say).run()
    return readings


def _many(options: argparse.Namespace) -> many.Plan:
    if options.quick:
        return many.Plan(1, 200, 3, (200,))
    return many.Plan(min(3, options.rounds), 1000, 8, (200, 1000))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _asked(options: argparse.Namespace) -> list[Asked]:
    found = added.asked(OURS) if options.part != "many" else []
    return found + (many.asked(_many(options), OURS) if options.part != "added" else [])


def _report(options: argparse.Namespace, book: Book) -> str:
    parts = [added.tables(book, NAMES)] if options.part != "many" else []
    parts += [many.tables(_many(options), book, NAMES)] if options.part != "added" else []
    return "\n".join([*parts, verdicts(_asked(options), book)])


def _write(options: argparse.Namespace, book: Book) -> dict[str, Any]:
    """JSON and the picture."""
    document: dict[str, Any] = {
        "machine": {**machine(), "at": int(time.time())},
        "plan": {"rounds": options.rounds, "seconds": options.seconds},
        "targets": [each.document(book) for each in _asked(options)],
        "readings": [
            {"who": each.who, "cell": each.cell, "round": each.round, "others": each.others, **each.values}
            for each in book.readings
        ],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "misses.json").write_text(json.dumps(document, indent=1) + "\n")
    note = f"Median, lowest and highest of {options.rounds} rounds."
    panels = added.panels(book, NAMES, OURS) if options.part != "many" else []
    panels += many.panels(_many(options), book, NAMES, OURS) if options.part != "added" else []
    picture = draw("Misses, one core for the server", note, panels)
    (RESULTS / "misses.svg").write_text(picture)
    return document


if __name__ == "__main__":
    main()
