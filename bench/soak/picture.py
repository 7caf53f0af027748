"""A soak as a picture: what was answered in each second, what processes held, and when which fault was there. Pure."""

from collections.abc import Mapping, Sequence
from html import escape

from bench.soak.plan import OF_A_WORKER, OF_LISTENERS, OF_PURGES, OF_REDIS, Fault
from bench.soak.run import Result
from bench.soak.verdicts import Happened

_WIDTH, _LEFT, _RIGHT, _PANEL, _GAP, _TOP, _MARGIN = 920, 60, 150, 130, 40, 76, 16
_LANES = ("clusters", "Redis", "worker 1", "purges", "listeners", "machine")
_COLOURS = ("#2a6fbb", "#d1812c", "#4a9d5b", "#b3446c", "#6b5b95")
_STYLE = """
text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #222 }
.title { font-weight: 600; font-size: 14px } .note { fill: #666 }
.line { fill: none; stroke-width: 1.4 } .axis { stroke: #ccc; stroke-width: 1; fill: none }
.fault { fill: #c0392b; fill-opacity: .55 }
"""

Series = Sequence[tuple[float, float]]


def picture(result: Result) -> str:
    """The whole of it."""
    seconds = result.plan.seconds
    panels = [("answers a second", _answers(result)), ("memory, MiB", _ending(result, " MiB"))]
    panels.append(("descriptors", _ending(result, " descriptors")))
    panels.append(
        ("in all workers", {name: _series(result, name) for name in ("tasks", "connections", "fills in flight")})
    )
    parts, top = [], _TOP
    for title, lines in panels:
        parts.append(_panel(title, lines, top, seconds))
        top += _PANEL + _GAP
    parts.append(_faults(result.happened, top, seconds))
    height = top + len(_LANES) * 18 + _GAP
    broken = [name for name, how in result.promises.items() if how]
    note = f"{result.ledger.answers} answers, {len(result.happened)} faults, seed {result.plan.seed}; " + (
        f"BROKEN: {', '.join(broken)}" if broken else "every promise was kept"
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">'
    )
    words = _text(_MARGIN, 26, f"A soak of {seconds / 60:.0f} minutes", "title") + _text(_MARGIN, 46, note, "note")
    ground = f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>'
    return "\n".join([head, f"<style>{_STYLE}</style>", ground, words, *parts, "</svg>\n"])


def _answers(result: Result) -> dict[str, Series]:
    """By what they were, over spans of which there are about a hundred."""
    span = max(1, round(result.plan.seconds / 120))
    found: dict[str, dict[int, float]] = {}
    for second, counts in result.ledger.seconds.items():
        for kind, many in counts.items():
            spans = found.setdefault(kind, {})
            spans[second // span] = spans.get(second // span, 0.0) + many / span
    last = max(result.ledger.seconds, default=0) // span
    return {kind: [(at * span, spans.get(at, 0.0)) for at in range(last)] for kind, spans in sorted(found.items())}


def _series(result: Result, name: str) -> Series:
    end_s = result.plan.seconds
    return [(look.at_s, look.values[name]) for look in result.looks if name in look.values and look.at_s <= end_s]


def _ending(result: Result, end: str) -> dict[str, Series]:
    names = ("worker 0", "worker 1", "supervisor", "Redis")
    return {name: _series(result, name + end) for name in names}


def _panel(title: str, lines: Mapping[str, Series], top: int, seconds: float) -> str:
    most = max((value for series in lines.values() for _, value in series), default=0.0) or 1.0
    across, up = (_WIDTH - _LEFT - _RIGHT) / seconds, (_PANEL - 20) / most
    floor = top + _PANEL
    parts = [_text(_MARGIN, top + 4, title, "title")]
    parts.append(f'<path class="axis" d="M{_LEFT} {top + 20}V{floor}H{_WIDTH - _RIGHT}"/>')
    parts.append(_text(_LEFT - 6, top + 26, f"{most:.0f}", "note", "end") + _text(_LEFT - 6, floor, "0", "note", "end"))
    for number, (name, series) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(f"{_LEFT + at * across:.1f},{floor - value * up:.1f}" for at, value in series)
        parts.append(f'<polyline class="line" stroke="{colour}" points="{points}"/>')
        at = top + 30 + number * 17
        parts.append(f'<rect x="{_WIDTH - _RIGHT + 12}" y="{at - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(_WIDTH - _RIGHT + 28, at, name))
    return "\n".join(parts)


def _faults(happened: Sequence[Happened], top: int, seconds: float) -> str:
    """A lane for each kind of thing."""
    across = (_WIDTH - _LEFT - _RIGHT) / seconds
    parts = [_text(_MARGIN, top + 4, "faults", "title")]
    for number, lane in enumerate(_LANES):
        at = top + 14 + number * 18
        parts.append(_text(_WIDTH - _RIGHT + 12, at + 10, lane))
        for each in happened:
            if _lane(each) == lane:
                width = max(1.5, (min(each.until_s or seconds, seconds) - each.at_s) * across)
                told = f"<title>{escape(each.fault.value)}, {escape(each.target)}, {each.at_s:.0f} s</title>"
                x = _LEFT + each.at_s * across
                parts.append(f'<rect class="fault" x="{x:.1f}" y="{at}" width="{width:.1f}" height="12">{told}</rect>')
    foot = top + 28 + len(_LANES) * 18
    for part in range(5):
        at_s = seconds * part / 4
        told = f"{round(at_s / 60, 1):g} min" if seconds >= 300 else f"{at_s:.0f} s"
        parts.append(_text(_LEFT + at_s * across, foot, told, "note", "middle"))
    return "\n".join(parts)


def _lane(happened: Happened) -> str:
    kinds = {"Redis": OF_REDIS, "listeners": OF_LISTENERS, "worker 1": OF_A_WORKER, "purges": OF_PURGES}
    kinds["machine"] = frozenset({Fault.STARVED})
    return next((lane for lane, kind in kinds.items() if happened.fault in kind), "clusters")


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
