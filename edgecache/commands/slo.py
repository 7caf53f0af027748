"""`edgecache slo`: how the promises of a running edge stand, by whose they are."""

import json
from collections.abc import Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from edgecache.commands.asking import Target

_COLOURS = {"met": "green", "missed": "yellow", "warning": "yellow", "critical": "bold red"}
#: With these someone has to look.
_ALARMING = frozenset({"warning", "critical"})


def told(target: Target) -> dict[str, Any]:
    """What the edge says."""
    return target.ask_admin("GET", "/slo")[1]


def kept(said: Mapping[str, Any]) -> bool:
    """Whether nobody has to look."""
    return not any(row["state"] in _ALARMING for row in said["objectives"])


def show(said: Mapping[str, Any], stream: TextIO, *, as_json: bool) -> None:
    """All of it, for people or for programs."""
    if as_json:
        print(json.dumps(said), file=stream)
        return
    # A pipe has no width: nothing is folded there.
    console = Console(file=stream, highlight=False, width=None if stream.isatty() else 200)
    console.print(_table(said) if said["objectives"] else "nothing was asked for yet")


def _table(said: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("objective", "whose", "state"):
        table.add_column(heading, no_wrap=True)
    for heading in ("5m", "target", "events", "burn 5m", "1h", "6h", "3d"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in said["objectives"]:
        now, colour = row["windows"]["5m"], _COLOURS.get(row["state"], "default")
        burns = (row["windows"][span]["burn_rate"] for span in ("5m", "1h", "6h", "3d"))
        table.add_row(
            row["slo"],
            row["subject"],
            f"[{colour}]{row['state']}[/]",
            _amount(row["unit"], now["value"]),
            _amount(row["unit"], row["target"]),
            str(now["events"]),
            *("-" if burn is None else f"{burn:.2f}" for burn in burns),
        )
    return table


def _amount(unit: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f} ms" if unit == "ms" else f"{value:.2%}"
