"""`edgecache clusters`: who could be asked for speech, how far and how well they are, and why one is asked and not another.

It asks the admin listener of a running edge, and knows nothing of how the choice is made.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO
from urllib.parse import quote

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from edgecache.commands.asking import Target

#: Between two looks of `--watch`.
WATCH_S = 1.0
_COLOURS = {"up": "green", "trial": "yellow", "ejected": "red", "drained": "cyan"}


def told(target: Target) -> dict[str, Any]:
    """What the edge says of its clusters."""
    return target.ask_admin("GET", "/clusters")[1]


def drain(target: Target, cluster: str, *, drained: bool) -> dict[str, Any]:
    """Takes the cluster out of the choice, or puts it back. Refused: there is none of that name."""
    call = "drain" if drained else "resume"
    return target.ask_admin("POST", f"/clusters/{quote(cluster, safe='')}/{call}", b"")[1]


def show(said: Mapping[str, Any], stream: TextIO, *, as_json: bool) -> None:
    """All of it, for people or for programs."""
    if as_json:
        print(json.dumps(said), file=stream)
    else:
        _console(stream).print(_shown(said))


def watch(target: Target, stream: TextIO) -> None:
    """The same again and again, until it is interrupted."""
    console = _console(stream)
    with Live(_shown(told(target)), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(WATCH_S)
            live.update(_shown(told(target)), refresh=True)


def _console(stream: TextIO) -> Console:
    # A pipe has no width: nothing is folded there.
    return Console(file=stream, highlight=False, width=None if stream.isatty() else 200)


def _shown(said: Mapping[str, Any]) -> Group:
    return Group(table(said["upstreams"]), *_asking(said.get("asking")))


def _asking(asking: Mapping[str, Any] | None) -> list[str]:
    """What was asked again and beside, and who waits, in a line each; none from an older edge."""
    if asking is None:
        return []
    refused = asking["budget_refusals"]
    waiting = ", ".join(f"{many} {which}" for which, many in asking["waiting"].items() if many) or "nobody"
    return [
        "",
        f"asked again: {asking['retries']} ({refused['retries']} not, for want of budget); "
        f"asked beside: {asking['hedges']} ({asking['hedge_wins']} were heard first, {refused['hedges']} not asked)",
        f"waiting for room: {waiting}; {sum(asking['queued'].values())} have waited, "
        f"{asking['sent_away']} were sent away, {asking['gave_up']} waited in vain",
    ]


def table(upstreams: Sequence[Mapping[str, Any]]) -> Table:
    """Every upstream in a row."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "upstream", "state"):
        table.add_column(heading, no_wrap=True)
    for heading in ("rtt ms", "first audio ms", "rtf", "errors", "busy", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("why")
    for each in upstreams:
        table.add_row(*_row(each))
    return table


def _row(each: Mapping[str, Any]) -> tuple[str, ...]:
    state = "drained" if each["drained"] else each["state"]
    rtt = _number(each["rtt_ms"], 1)
    spread = _number(each["rtt_spread_ms"], 1)
    warmth = "" if each["warmth"] == 1 else f", warming up: {each['warmth']:.0%}"
    back = f", back in {each['back_in_s']:.1f} s" if each["back_in_s"] else ""
    fault = f" ({each['last_fault']})" if each["last_fault"] and state != "up" else ""
    return (
        "▶" if each["current"] and each["share"] else "",  # to another worker it may have been, before it failed
        each["name"],
        f"[{_COLOURS.get(state, 'default')}]{state}[/]",
        rtt if rtt == "-" else f"{rtt} ± {spread}",
        _number(each["first_audio_ms"], 0),
        _number(each["real_time_factor"], 2),
        f"{each['error_rate']:.0%}",
        f"{each['in_flight']}/{each['max_in_flight']}",
        f"{each['share']:.0%}",
        f"{each['why']}{warmth}{back}{fault}",
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
