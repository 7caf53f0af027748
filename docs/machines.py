"""Writes docs/machines.md: every state machine, drawn from its table of transitions. Run it with `python docs/machines.py`.

A diagram by hand would say what someone once meant; these say what the code does. tests/test_documents.py fails when the
file is not current, or when a table in the package is not drawn.
"""

import importlib
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import NamedTuple

TARGET = Path(__file__).with_suffix(".md")

Transitions = Mapping[tuple[Enum, Enum], Enum]


class Machine(NamedTuple):
    """Where a table is, and what is to be said of it."""

    module: str
    title: str
    remark: str

    @property
    def path(self) -> str:
        """The module's file, from the top of the repository."""
        return self.module.replace(".", "/") + ".py"


MACHINES = (
    Machine(
        "edgecache.fill.flight",
        "A flight",
        "One fill under way. `asking` lasts until the first audio: until then another cluster may be asked, and a failure "
        "is a proper 5xx. `ended` is whole as far as HTTP says, but not stored.",
    ),
    Machine(
        "edgecache.delivery.miss",
        "A miss being answered",
        "In the lane for misses. `waiting` lasts until the first audio, and may still become an error; what goes wrong "
        "later breaks the answer off.",
    ),
    Machine(
        "edgecache.clusters.health",
        "The health of an upstream",
        "Outcomes of requests and of probes, each against a ticket. An ejected upstream has no tickets of its epoch, so "
        "nothing but time can happen to it.",
    ),
    Machine(
        "edgecache.clusters.connections",
        "A line to an upstream",
        "One connection, one exchange at a time. Only one whose answer came whole, as HTTP framed it and not a byte more, "
        "is asked again.",
    ),
    Machine(
        "edgecache.crew",
        "A worker",
        "One process of several, as its supervisor sees it. A worker that is gone while it was serving died, and gets a "
        "successor.",
    ),
    Machine(
        "edgecache.store.breaker",
        "The breaker before Redis",
        "Whether Redis is asked at all. While it is open nobody waits for Redis; half open, one question is on its way.",
    ),
    Machine(
        "edgecache.ops.modes",
        "The mode of an edge",
        "Of one worker; the daemon's is the gravest of its workers'. The event is the gravest of the causes that hold.",
    ),
    Machine(
        "edgecache.measures.holding",
        "A condition",
        "A cause of a mode, or a threshold of shedding. `lasted` says that it was seen, or gone, for long enough.",
    ),
    Machine(
        "edgecache.fill.tail",
        "A tail that is followed",
        "What another process tells of the flight that it leads. Until `speaking` nobody has heard anything, and whoever "
        "follows may lead; later a break is a break. What comes out of turn is forged: there an empty cell is what is not "
        "believed.",
    ),
    Machine(
        "edgecache.ops.objectives",
        "An objective",
        "How a promise stands. A value past a threshold is followed at once; `eased` says that it has been well below the "
        "state's own threshold for long enough, and goes down one step.",
    ),
)

HEAD = """# State machines

Written by `python docs/machines.py` from the tables in the code; not to be edited by hand. In the grids an empty cell
(`·`) is a bug of ours: the machine raises `KeyError` rather than go on.
"""


def drawn(machines: tuple[Machine, ...] = MACHINES) -> str:
    """The whole document."""
    return "\n".join([HEAD, *(_section(machine) for machine in machines)])


def _section(machine: Machine) -> str:
    table: Transitions = importlib.import_module(machine.module).TRANSITIONS
    parts = (
        f"## {machine.title}\n",
        f"`{machine.path}`. {machine.remark}\n",
        f"```mermaid\n{_diagram(table)}\n```\n",
        _grid(table) + "\n",
    )
    return "\n".join(parts)


def _states(table: Transitions) -> list[Enum]:
    return list(type(next(iter(table))[0]))


def _diagram(table: Transitions) -> str:
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, event), after in table.items():
        arrows.setdefault((state.name, after.name), []).append(str(event.value))
    states = _states(table)
    leaving = {state for state, _ in table}
    lines = [f"    {state.name} : {state.value}" for state in states]
    lines += [f"    [*] --> {states[0].name}"]
    lines += [f"    {before} --> {after} : {', '.join(events)}" for (before, after), events in arrows.items()]
    lines += [f"    {state.name} --> [*]" for state in states if state not in leaving]
    return "\n".join(["stateDiagram-v2", *lines])


def _grid(table: Transitions) -> str:
    events = list(type(next(iter(table))[1]))
    rows = [["", *(str(event.value) for event in events)], ["---"] * (len(events) + 1)]
    for state in _states(table):
        reached = (table.get((state, event)) for event in events)
        rows.append([f"**{state.value}**", *("·" if after is None else str(after.value) for after in reached)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    TARGET.write_text(drawn(), "utf-8")
