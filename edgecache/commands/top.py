"""`edgecache top`: a running edge at a glance, again and again: rates, hits by tier, first bytes, clusters, what was saved.

It asks the admin listener for what the dashboard shows too, and computes nothing.
"""

import json
import time
from collections.abc import Mapping
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edgecache.commands.asking import Target
from edgecache.commands.clusters import table as clusters_table

_RESULTS = {
    "memory": ("hit_memory",),
    "Redis": ("hit_redis",),
    "joined": ("collapsed",),
    "cluster": ("miss", "bypass"),
    "stale": ("stale",),
    "error": ("error",),
}


def told(target: Target) -> dict[str, Any]:
    """All that is shown."""
    return {**target.ask_admin("GET", "/glance")[1], "upstreams": target.ask_admin("GET", "/clusters")[1]["upstreams"]}


def show(said: Mapping[str, Any], stream: TextIO, *, as_json: bool) -> None:
    """Once, for people or for programs."""
    if as_json:
        print(json.dumps(said), file=stream)
    else:
        _console(stream).print(screen(said))


def watch(target: Target, stream: TextIO, every_s: float) -> None:
    """The same again and again, until it is interrupted."""
    console = _console(stream)
    with Live(screen(told(target)), console=console, auto_refresh=False, screen=stream.isatty()) as live:
        while True:
            time.sleep(every_s)
            live.update(screen(told(target)), refresh=True)


def screen(said: Mapping[str, Any]) -> Group:
    """What a terminal shows."""
    return Group(
        _head(said), Text(), _sources(said), Text(), _first_bytes(said), Text(), clusters_table(said["upstreams"])
    )


def _console(stream: TextIO) -> Console:
    # A pipe has no width: nothing is folded there.
    return Console(file=stream, highlight=False, width=None if stream.isatty() else 200)


def _head(said: Mapping[str, Any]) -> Text:
    saved, memory = said["saved"], said["tiers"]["memory"]
    lines = (
        f"mode {_mode(said['mode'])}",
        f"{said['requests_per_s']:.1f} requests/s over {said['window_s']:.0f} s   {said['workers']} workers   "
        f"{said['connections']} connections   {said['fills']['in_flight']} fills   lag p99 {_ms(said['lag_ms']['p99'])} ms",
        f"saved {saved['syntheses']} syntheses, {saved['characters']} characters, {saved['speech_s']:.1f} s of speech   "
        f"memory {memory['entries']} recordings, {memory['size_bytes'] / 2**20:.1f} of "
        f"{memory['capacity_bytes'] / 2**20:.0f} MiB",
    )
    return Text("\n".join(lines))


def _mode(told: Mapping[str, Any]) -> str:
    others = [cause for cause in told["causes"] if cause != told["now"]]
    return str(told["now"]) + (f" ({', '.join(others)} too)" if others else "")


def _sources(said: Mapping[str, Any]) -> Table:
    rates = {name: sum(said["results_per_s"].get(each, 0.0) for each in whose) for name, whose in _RESULTS.items()}
    whole = sum(rates.values())
    table = _table("speech from", *rates)
    table.add_row("a second", *(f"{rate:.2f}" for rate in rates.values()))
    table.add_row("share", *(f"{rate / whole:.1%}" if whole else "-" for rate in rates.values()))
    return table


def _first_bytes(said: Mapping[str, Any]) -> Table:
    table = _table("first byte ms", "p50", "p95", "p99", "requests")
    for group, told_ms in said["first_byte_ms"].items():
        table.add_row(group, *(_ms(told_ms[share]) for share in ("p50", "p95", "p99")), str(told_ms["events"]))
    return table


def _table(first: str, *headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
