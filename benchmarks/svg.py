"""Bars as SVG, readable on light and on dark pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, BAR, GAP, HEAD = 760, 190, 110, 16, 5, 34
COLOURS = {"persistq": "#2f81c7", "raw": "#8b949e"}
OTHER = "#d0a24c"
STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #57606a }
@media (prefers-color-scheme: dark) { text { fill: #adbac7 } }
</style>"""


@dataclass(frozen=True)
class Bar:
    """One side's figure."""

    name: str
    value: float
    text: str


@dataclass(frozen=True)
class Panel:
    """The bars of one case; each panel has a scale of its own."""

    title: str
    bars: Sequence[Bar]


def draw(title: str, panels: Sequence[Panel]) -> str:
    """Return the picture."""
    parts: list[str] = []
    y = 10
    for panel in panels:
        parts.append(_text(0, y + 16, panel.title, weight="bold"))
        y += HEAD - 8
        largest = max(bar.value for bar in panel.bars) or 1
        for bar in panel.bars:
            length = max(1.0, (WIDTH - LEFT - RIGHT) * bar.value / largest)
            colour = COLOURS.get(bar.name.partition(",")[0].partition(" @")[0], OTHER)
            parts.append(_text(LEFT - 8, y + 12, bar.name, anchor="end"))
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2" fill="{colour}"/>')
            parts.append(_text(LEFT + length + 6, y + 12, bar.text))
            y += BAR + GAP
        y += 12
    size = f'viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}"'
    start = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    return "\n".join([start, f"<title>{escape(title)}</title>", STYLE, *parts, "</svg>\n"])


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'
