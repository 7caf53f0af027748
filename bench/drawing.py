"""Bars as SVG: in panels, because their scales differ. Pure, and needs no library."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from bench.samples import Spread

_WIDTH, _NAMES, _NUMBERS, _BAR, _GAP, _TITLE = 760, 210, 130, 20, 7, 34
_MARGIN = 16
_STYLE = """
text { font: 13px system-ui, "DejaVu Sans", sans-serif; fill: #222 }
.title { font-weight: 600; font-size: 14px }
.note { fill: #666; font-size: 12px }
.spread { stroke: #222; stroke-width: 1.2; fill: none }
.ours { fill: #2a6fbb } .peer { fill: #9aa5b1 } .limit { fill: #d5dae0 }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """kind: ours, peer or limit."""

    name: str
    value: Spread
    kind: str


def thousands(value: float) -> str:
    """So many thousands a second."""
    return f"{value / 1000:.1f} k/s"


def milliseconds(value: float) -> str:
    """In as many digits as say something."""
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars on one scale. told: a bar's number as it stands beside it."""

    title: str
    bars: Sequence[Bar]
    told: Callable[[float], str] = thousands

    @property
    def height(self) -> int:
        return _TITLE + len(self.bars) * (_BAR + _GAP) + _MARGIN


def draw(title: str, note: str, panels: Sequence[Panel]) -> str:
    """The whole picture."""
    top, parts = 64, []
    for panel in panels:
        parts.append(_panel(panel, top))
        top += panel.height
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}" '
        f'role="img" aria-label="{escape(title)}">'
    )
    words = f"{_text(_MARGIN, 26, title, 'title')}{_text(_MARGIN, 46, note, 'note')}"
    ground = f'<rect width="{_WIDTH}" height="{top}" fill="#fff"/>'
    return "\n".join([head, f"<style>{_STYLE}</style>", ground, words, *parts, "</svg>\n"])


def _panel(panel: Panel, top: int) -> str:
    most = max((bar.value.high for bar in panel.bars), default=0.0) or 1.0
    scale = (_WIDTH - _NAMES - _NUMBERS - _MARGIN) / most
    lines = [_text(_MARGIN, top + 20, panel.title, "title")]
    for number, bar in enumerate(panel.bars):
        at = top + _TITLE + number * (_BAR + _GAP)
        lines += _bar(bar, at, scale)
        lines.append(_text(_NAMES + bar.value.high * scale + 8, at + _BAR * 0.72, panel.told(bar.value.median)))
    return "\n".join(lines)


def _bar(bar: Bar, at: int, scale: float) -> list[str]:
    """Its name, itself, and the spread over rounds as a whisker."""
    middle, text_at = at + _BAR / 2, at + _BAR * 0.72
    low, high = (_NAMES + value * scale for value in (bar.value.low, bar.value.high))
    ends = "".join(f"M{x:.1f} {middle - 4:.1f}v8" for x in (low, high))
    return [
        _text(_NAMES - 8, text_at, bar.name, "", "end"),
        f'<rect class="{bar.kind}" x="{_NAMES}" y="{at}" width="{bar.value.median * scale:.1f}" height="{_BAR}" rx="2"/>',
        f'<path class="spread" d="M{low:.1f} {middle:.1f}H{high:.1f}{ends}"/>',
    ]


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
