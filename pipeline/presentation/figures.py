"""How figures look, as SVG text: byte-identical for equal data, text as text, a palette safe for colour blindness.

Figures are small, so that the page can lay them side by side or, on a phone, one below the other. Colours are the light
theme's; `themed` swaps them for the page's CSS variables: an inlined figure follows dark mode.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, RULE = "#1b1f24", "#5b6571", "#d8dde3"
# Okabe & Ito (2008), yellow left out (too faint on white) and the blues first.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f5f3f")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDTH = 4.7
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "fusion",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
}


class Looks:
    """A colour, dash and marker for each strategy, by its place in the grid: the same in all figures."""

    def __init__(self, strategies: Sequence[str]) -> None:
        self._place = {name: i for i, name in enumerate(strategies)}

    def line(self, strategy: str) -> dict[str, Any]:
        """Colour and dash: 28 combinations before one comes again."""
        place = self._place[strategy]
        return {"color": PALETTE[place % len(PALETTE)], "linestyle": DASHES[place // len(PALETTE) % len(DASHES)]}

    def point(self, strategy: str) -> dict[str, Any]:
        """Colour and marker."""
        place = self._place[strategy]
        marker = MARKERS[(place + place // len(PALETTE)) % len(MARKERS)]
        return {"color": PALETTE[place % len(PALETTE)], "marker": marker}


@contextmanager
def canvas(width: float, height: float, rows: int = 1) -> Iterator[tuple[Figure, list[Axes]]]:
    """An empty figure of `width` × `height` inches in the house's style, and its axes, one below the other."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, 1, sharex=rows > 1, squeeze=False)
        yield figure, list(axes[:, 0])


def as_svg(figure: Figure, name: str, title: str) -> str:
    """The figure as an SVG with a title for screen readers, and ids that no other figure has."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{name}-", text)
    text = re.sub(r"font-family: [^;\"]*; ?", "", text)
    label = escape(title, quote=True)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" font-family="{FONTS}" ', 1)


def themed(svg: str) -> str:
    """The SVG with the page's CSS variables for its colours."""
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would hold for the whole page
    names = {INK: "--ink", MUTED: "--muted", RULE: "--rule"} | {c: f"--c{i}" for i, c in enumerate(PALETTE)}
    return re.sub("|".join(names), lambda hit: f"var({names[hit.group()]})", svg)


def legend_below(figure: Figure, axes: Axes) -> None:
    """Below the axes; from its third row on the figure grows with it."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = min(len(handles), 2 if len(handles) <= 4 else 3)
        figure.legend(handles, labels, loc="outside lower left", ncols=columns, handlelength=2.4)
        figure.set_figheight(figure.get_figheight() + 0.19 * max(0, -(-len(handles) // columns) - 2))
