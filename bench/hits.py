"""`python -m bench.hits`: hits of the edge beside nginx, Varnish, plain aiohttp and the C limit, each on one core in turn.

The load generator has the other core. In each round every server is started anew, asked for each text until it is a hit,
and measured; the order changes from round to round. So figures are of one machine in one hour, and ratios are what to quote.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from bench.contenders import CONTENDERS, Contender
from bench.drawing import Bar, Panel, draw
from bench.houses import ServerFailed
from bench.programs import Unable, machine, missing, remedy
from bench.questions import LOADS
from bench.race import Plan, Race
from bench.samples import Cell, Figure, Sample
from bench.targets import judge, targets
from bench.telling import LEGEND, features, tables, verdicts

RESULTS = Path(__file__).parent / "results"
SIZES: tuple[int, ...] = (4 << 10, 32 << 10, 256 << 10)
NAMES = {each.name: each.told for each in CONTENDERS}
_KINDS = {"memory": "ours", "lane-off": "ours", "redis": "ours", "limit": "limit", "bare": "limit"}


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, _leave)
    try:
        contenders, plan = _able(options), _plan(options)
        with tempfile.TemporaryDirectory() as directory:
            race = Race(plan, contenders, Path(directory))
            samples = race.run()
    except (ServerFailed, Unable) as error:
        sys.exit(f"bench.hits: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    document = _write(plan, samples)
    if options.json:
        print(json.dumps(document))
        return
    print(_report(samples))
    print(f"written to {RESULTS / 'hits.json'} and hits.svg", file=sys.stderr)


def _leave(number: int, frame: FrameType | None) -> None:
    """What was started ends with its blocks."""
    sys.exit(128 + number)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.hits", description=__doc__)
    grid = parser.add_mutually_exclusive_group()
    grid.add_argument("--quick", action="store_true", help="32 KiB and 32 connections alone, two short rounds")
    grid.add_argument("--full", action="store_true", help="every load at every size and number of connections")
    parser.add_argument("--only", metavar="NAMES", help=f"of {', '.join(NAMES)}; separated by commas")
    parser.add_argument("--rounds", type=int, help="how often each is measured (5; quick: 2)")
    parser.add_argument("--seconds", type=int, help="whole seconds of each load (2; quick: 1)")
    parser.add_argument(
        "--closed-by", choices=("wrk", "own"), default="wrk", help="who makes closed loops; own: lighter than wrk"
    )
    parser.add_argument("--json", action="store_true", help="JSON alone on stdout")
    options = parser.parse_args()
    unknown = set((options.only or "memory").split(",")) - set(NAMES)
    if unknown:
        parser.error(f"--only: no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return options


def _plan(options: argparse.Namespace) -> Plan:
    rounds = options.rounds or (2 if options.quick else 5)
    seconds = options.seconds or (1 if options.quick else 2)
    sizes, latency_at, loads = SIZES, SIZES[1:2], LOADS[:2]
    connections = {32 << 10: (1, 256)}
    if options.quick:
        sizes, connections = latency_at, {}
    elif options.full:
        connections, loads, latency_at = dict.fromkeys(SIZES, (1, 256)), LOADS, SIZES
    open_sizes = () if missing(["gcc"]) else latency_at
    return Plan(rounds, seconds, sizes, connections, loads, open_sizes, options.closed_by)


def _able(options: argparse.Namespace) -> list[Contender]:
    """Who can be measured here. Unable: nobody can."""
    chosen = [each for each in CONTENDERS if options.only is None or each.name in options.only.split(",")]
    needed = ["wrk"] if options.closed_by == "wrk" else ["gcc"]
    if absent := missing(needed):
        raise Unable(f"there is no {absent[0]} for load: {remedy(absent)}")
    if absent := missing(["gcc"]):
        print(f"no gcc, so no open loops: {remedy(absent)}", file=sys.stderr)
    for each in chosen:
        if absent := missing(each.needs):
            print(f"{each.told} is left out, there is no {absent[0]}: {remedy(absent)}", file=sys.stderr)
    able = [each for each in chosen if not missing(each.needs)]
    if not able:
        raise Unable("nobody is left to be measured")
    return able


def _report(samples: Sequence[Sample]) -> str:
    judged = [judge(each, samples) for each in targets()]
    return "\n".join([tables(samples, NAMES), features(samples), verdicts(judged), "", LEGEND])


def _write(plan: Plan, samples: Sequence[Sample]) -> dict[str, object]:
    """JSON and the picture."""
    judged = [judge(each, samples) for each in targets()]
    document: dict[str, object] = {
        "machine": {**machine(), "at": int(time.time())},
        "plan": asdict(plan),
        "targets": [
            {
                "target": each.target.told,
                "asked": each.target.asked,
                "measured": asdict(each.measured) if each.measured else None,
                "by_cpu": asdict(each.by_cpu) if each.by_cpu else None,
                "unfull": each.unfull,
                "disturbed": each.disturbed,
                "met": each.met,
            }
            for each in judged
        ],
        "samples": [asdict(each) for each in samples],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "hits.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / "hits.svg").write_text(_picture(plan, samples))
    return document


def _picture(plan: Plan, samples: Sequence[Sample]) -> str:
    panels = []
    for load in plan.loads:
        for size in plan.sizes:
            cell = Cell(load, size, 32)
            found = ((name, Figure(name, cell).over_rounds(samples)) for name in NAMES)
            bars = [Bar(NAMES[name], value, _KINDS.get(name, "peer")) for name, value in found if value]
            if bars:
                panels.append(Panel(f"{size >> 10} KiB, {load} requests", bars))
    note = f"32 connections; median, lowest and highest of {plan.rounds} rounds."
    if disturbed := sum(each.disturbed for each in samples):
        note += f" Other processes disturbed {disturbed} of {len(samples)} samples."
    return draw("Hits per second, one core for the server", note, panels)


if __name__ == "__main__":
    main()
