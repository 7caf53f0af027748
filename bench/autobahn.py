"""Autobahn's WebSocket cases against `/ws/tts/stream`: framing, pings, fragments, UTF-8, closing, by people who wrote none
of this. Run it with `python -m bench.autobahn`, or with `--json` for programs. It takes a minute or two.

Autobahn's fuzzing client is Python 2.7's (`pip install autobahntestsuite` there, and `wstest` on PATH). Its cases expect an
echo; this endpoint speaks, or says in an error event that it can't read what came. So a case that only an echo can pass is
told apart (`no echo`) if the connection was closed as the case asks. Cases of compression (12, 13) and of messages of
megabytes (9) are left out: neither is offered.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from bench import inside
from edgecache.demo.knobs import Knobs

CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
#: RFC 6455 §7.4.1: what came is larger than this endpoint takes.
TOO_BIG = 1009


def verdict(case: dict[str, Any]) -> str:
    """What became of a case, by Autobahn's own report of it."""
    if case["behavior"] != "FAILED" and case["behaviorClose"] != "FAILED":
        return "passed"
    if case["remoteCloseCode"] == TOO_BIG:
        return "too big"
    echoed = all(any(event[0] == "message" for event in way) for name, way in case["expected"].items() if name == "OK")
    return "no echo" if echoed and case["behaviorClose"] == "OK" else "failed"


async def fuzzed(directory: Path) -> int:
    """Autobahn's client let loose on an edge; its exit status."""
    async with inside.edge(Knobs(voice="tone")) as node:
        server = {"agent": "edgecache", "url": f"ws://127.0.0.1:{node.port}/ws/tts/stream"}
        spec = {"outdir": str(directory), "servers": [server], "cases": CASES, "exclude-cases": []}
        (directory / "spec.json").write_text(json.dumps(spec))
        running = await asyncio.create_subprocess_exec(
            *("wstest", "-m", "fuzzingclient", "-s", str(directory / "spec.json")),
            cwd=directory,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await running.wait()


def read(directory: Path) -> dict[str, str]:
    """The verdict on each case, in Autobahn's order."""
    index = json.loads((directory / "index.json").read_text())["edgecache"]
    reports = {name: json.loads((directory / row["reportfile"]).read_text()) for name, row in index.items()}
    return {
        name: verdict(reports[name]) for name in sorted(reports, key=lambda name: [int(n) for n in name.split(".")])
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.autobahn", description=__doc__)
    parser.add_argument("--json", action="store_true", help="JSON alone on stdout")
    options = parser.parse_args()
    if shutil.which("wstest") is None:
        sys.exit("bench.autobahn: there is no wstest on PATH. With a Python 2.7: pip install autobahntestsuite")
    with tempfile.TemporaryDirectory() as name:
        status = asyncio.run(fuzzed(Path(name)))
        if status:
            sys.exit(f"bench.autobahn: wstest ended with status {status}")
        verdicts = read(Path(name))
    if options.json:
        print(json.dumps(verdicts))
        return
    groups: dict[str, Counter[str]] = {}
    for case, came in verdicts.items():
        groups.setdefault(case.partition(".")[0], Counter())[came] += 1
    print("cases   passed   no echo   too big   failed")
    for group, counted in groups.items():
        print(
            f"{group + '.*':<5}" + "".join(f"{counted[each]:>9}" for each in ("passed", "no echo", "too big", "failed"))
        )
    failed = [case for case, came in verdicts.items() if came == "failed"]
    print("failed: " + (", ".join(failed) or "none"))


if __name__ == "__main__":
    main()
