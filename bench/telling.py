"""A run as text: a table for each load, ratios of the edge to its peers, and each target with met or not met. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from bench.samples import GETS, Cell, Figure, Sample, Spread
from bench.targets import Verdict, unfull

#: Whose ratios to all others are told.
OURS = "memory"
#: What the features cost more than this.
PROTOTYPE = "bare"
_DASH = "-"


def tables(samples: Sequence[Sample], names: Mapping[str, str]) -> str:
    """Every load, with its contenders in the order of `names`."""
    cells = dict.fromkeys(each.cell for each in samples if each.cell.load != GETS)
    ordered = sorted(cells, key=lambda cell: (cell.open, list(cells).index(cell)))
    return "\n".join(_table(cell, samples, names) for cell in ordered)


def _table(cell: Cell, samples: Sequence[Sample], names: Mapping[str, str]) -> str:
    """One load. Latencies are of the open loops."""
    here = [name for name in names if Figure(name, cell).over_rounds(samples)]
    rows = [_open_row(name, cell, samples) if cell.open else _closed_row(name, cell, samples) for name in here]
    heads = ["requests/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs", "core", "load core"]
    if not cell.open:
        heads = ["requests/s, thousands", "CPU µs", "core", "load core", f"{OURS} is times"]
    heads.append("")
    told = [names[name] for name in here]
    return f"{cell}\n{aligned([['', *heads], *([name, *row] for name, row in zip(told, rows, strict=True))])}\n"


def _closed_row(name: str, cell: Cell, samples: Sequence[Sample]) -> list[str]:
    rate = Figure(name, cell)
    times = Figure(OURS, cell).in_units_of(rate, samples) if name != OURS else None
    told = [_thousands(rate.over_rounds(samples)), *_costs(name, cell, samples)]
    notes = ["~"] if unfull(rate, samples) else []
    return [*told, times.told(".2f") if times else "", " ".join(notes + _faults(name, cell, samples))]


def _open_row(name: str, cell: Cell, samples: Sequence[Sample]) -> list[str]:
    rate = Figure(name, cell).over_rounds(samples)
    told = [f"{rate.median:.0f}" if rate else _DASH]
    for field in ("p50_ms", "p99_ms", "p999_ms"):
        found = Figure(name, cell, field).over_rounds(samples)
        told.append(found.told(".2f") if found else _DASH)
    return [*told, *_costs(name, cell, samples), " ".join(_faults(name, cell, samples))]


def _costs(name: str, cell: Cell, samples: Sequence[Sample]) -> list[str]:
    forms = (("cpu_us", ".1f"), ("busy", ".0%"), ("load_busy", ".0%"))
    found = ((Figure(name, cell, field).over_rounds(samples), form) for field, form in forms)
    return [f"{each.median:{form}}" if each else _DASH for each, form in found]


def _faults(name: str, cell: Cell, samples: Iterable[Sample]) -> list[str]:
    here = [each for each in samples if each.contender == name and each.cell == cell]
    failed, filled = sum(each.failed for each in here), sum(each.filled for each in here)
    told = [*([f"{failed} FAILED"] if failed else []), *([f"{filled} were no hits"] if filled else [])]
    disturbed = sum(each.disturbed for each in here)
    return [*told, *([f"{disturbed} disturbed"] if disturbed else [])]


def _thousands(rate: Spread | None) -> str:
    if rate is None:
        return _DASH
    return Spread(rate.median / 1000, rate.low / 1000, rate.high / 1000, rate.rounds).told(".1f")


def features(samples: Sequence[Sample]) -> str:
    """CPU a hit that the edge needs more than the bare prototype."""
    lines = []
    for cell in dict.fromkeys(each.cell for each in samples if each.cell.load == "identical"):
        mine = Figure(OURS, cell, "cpu_us").over_rounds(samples)
        bare = Figure(PROTOTYPE, cell, "cpu_us").over_rounds(samples)
        if mine and bare:
            added = mine.median - bare.median
            lines.append(f"{cell}: {mine.median:.1f} - {bare.median:.1f} = {added:.1f} µs")
    return "\n".join(["CPU that features add to a hit, over the bare prototype", *lines, ""]) if lines else ""


def verdicts(judged: Sequence[Verdict]) -> str:
    """The table of targets."""
    rows = [["target", "asked", "median (min..max)", "by CPU", "", ""]]
    for each in judged:
        found = each.measured.told(".2f") if each.measured else _DASH
        cpu = each.by_cpu.told(".2f") if each.by_cpu else ""
        word = {True: "met", False: "NOT MET", None: "not measured"}[each.met]
        notes = [*(["disturbed"] if each.disturbed else []), *([f"~ {', '.join(each.unfull)}"] if each.unfull else [])]
        rows.append([each.target.told, each.target.asked, found, cpu, word, "; ".join(notes)])
    return aligned(rows)


LEGEND = """\
core, load core: how much of its core the server used, and the load generator of its own. ~: the server's core was not
full, so the generator (or Redis beside it) was the limit, and the ratio of CPU time a request, peer's to edge's, says more.
disturbed: in so many rounds processes that are not of this benchmark used more than 5 % of a core; these rounds are left
out if there are others. Spreads are over rounds. Latency is counted from the scheduled time to the last byte."""


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns: the first to the left, the others to the right, the last one as it is."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        middle = [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *middle, row[-1]]).rstrip())
    return "\n".join(lines)
