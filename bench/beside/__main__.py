"""`python -m bench.beside`: what the edge, nginx and Varnish do in the same situations, in front of the same two clusters.

Not how fast: what a client hears, and what is kept. Every server is a process of its own, new for each situation and
configured as carefully as its documentation allows. The exit status is 1 when the edge breaks a promise.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from bench.beside import trouble, whole
from bench.beside.looking import look
from bench.beside.looks import Seen
from bench.beside.promises import OURS, broken, markdown, table
from bench.beside.servers import SERVERS, Server
from bench.houses import ServerFailed
from bench.programs import machine, missing, remedy

RESULTS = Path(__file__).parent.parent / "results"
SITUATIONS = (*whole.SITUATIONS, *trouble.SITUATIONS)
NAMES = {each.name: each.told for each in SERVERS}


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, _leave)
    situations = [each for each in SITUATIONS if each.name in options.situations]
    servers = _able(options.only)
    try:
        seen = {who.name: dict(look(who, situations, options.patience, _say)) for who in servers}
    except (ServerFailed, TimeoutError) as error:
        sys.exit(f"bench.beside: {error or 'nothing ended within a minute'}")
    except KeyboardInterrupt:
        sys.exit(130)
    faults = [fault for name, each in seen.get(OURS, {}).items() for fault in broken(name, each)]
    document = _write(seen, faults)
    told = markdown if options.markdown else table
    print(json.dumps(document) if options.json else told(situations, seen, NAMES))
    for fault in faults:
        print(f"edgecache broke a promise: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)


def _leave(number: int, frame: FrameType | None) -> None:
    """What was started ends with its blocks."""
    sys.exit(128 + number)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.beside", description=__doc__)
    parser.add_argument("--only", metavar="NAMES", help=f"of {', '.join(NAMES)}; separated by commas")
    parser.add_argument(
        "--situations", metavar="NAMES", help="these alone, as `--json` names them; separated by commas"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=1.0,
        metavar="S",
        help="how long the cluster waits for who has not heard it (1)",
    )
    parser.add_argument("--markdown", action="store_true", help="the table as docs/beside.md has it")
    parser.add_argument("--json", action="store_true", help="JSON alone on stdout")
    options = parser.parse_args()
    options.only = _names(parser, "--only", options.only, NAMES)
    options.situations = _names(parser, "--situations", options.situations, {each.name: "" for each in SITUATIONS})
    return options


def _names(parser: argparse.ArgumentParser, option: str, said: str | None, there: Mapping[str, str]) -> list[str]:
    """Those that were said; all, if none were."""
    names = list(there) if said is None else said.split(",")
    if unknown := set(names) - set(there):
        parser.error(f"{option}: no {', '.join(sorted(unknown))}; there are {', '.join(there)}")
    return names


def _able(only: Sequence[str]) -> list[Server]:
    """Who can be looked at here."""
    chosen = [each for each in SERVERS if each.name in only]
    for each in chosen:
        if absent := missing(each.needs):
            print(f"{each.told} is left out, there is no {absent[0]}: {remedy(absent)}", file=sys.stderr)
    return [each for each in chosen if not missing(each.needs)]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _write(seen: dict[str, dict[str, Seen]], faults: Sequence[str]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "machine": {**machine(), "at": int(time.time())},
        "seen": {
            who: {name: {"words": each.words, **each.facts} for name, each in found.items()}
            for who, found in seen.items()
        },
        "broken": list(faults),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "beside.json").write_text(json.dumps(document, indent=1) + "\n")
    return document


if __name__ == "__main__":
    main()
