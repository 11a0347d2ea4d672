"""How figures look, as SVG text: byte-identical for equal data, text as text, a palette safe for colour blindness.

Figures are small, so that the page can lay them side by side or, on a phone, one below the other. Colours are the light
theme's; `themed` swaps them for the page's CSS variables: an inlined figure follows dark mode.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any
from zlib import crc32

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

INK, MUTED, RULE = "#1b1f24", "#5b6571", "#d8dde3"
# Okabe & Ito (2008); each has a contrast of at least 3 : 1 on white, so that yellow is left out, orange and purple are
# darker, and violet stands for the light blue.
PALETTE = ("#0072b2", "#d55e00", "#00946c", "#bf649a", "#a66f00", "#5b4fc4", "#7f5f3f")
DASHED, DOTTED = (0, (4, 2)), (0, (1, 1.5))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDTH = 4.7
COLUMNS = 4  # of panels
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "fusion",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
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
SMALL: dict[Any, Any] = {"font.size": 7, "legend.fontsize": 8.5, "lines.linewidth": 1.3}
LABEL: dict[str, Any] = {"size": 9.0}
TITLE: dict[str, Any] = {"size": 10.0, "weight": "bold"}


class Looks:
    """A colour and marker for each strategy, by its name: the same in all figures, whoever else is in the grid.

    Where two names ask for the same look, the later one takes the next that is free.
    """

    def __init__(self, strategies: Sequence[str]) -> None:
        looks, self._place = len(PALETTE) * len(MARKERS), dict[str, int]()
        for name in strategies:
            place, taken = crc32(name.encode()) % looks, set(self._place.values())
            free = [each % looks for each in range(place, place + looks) if each % looks not in taken]
            self._place[name] = free[0] if free else place

    def point(self, strategy: str) -> dict[str, Any]:
        """49 combinations before one comes again."""
        place = self._place[strategy]
        return {"color": PALETTE[place % len(PALETTE)], "marker": MARKERS[place // len(PALETTE) % len(MARKERS)]}


@contextmanager
def canvas(width: float, height: float, rows: int = 1) -> Iterator[tuple[Figure, list[Axes]]]:
    """An empty figure of `width` × `height` inches in the house's style, and its axes, one below the other."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, 1, sharex=rows > 1, squeeze=False)
        yield figure, list(axes[:, 0])


@contextmanager
def panels(names: Sequence[str], across: str, up: str) -> Iterator[tuple[Figure, Mapping[str, Axes]]]:
    """Small multiples: a panel a name, all on the same axes, so that no line hides another."""
    columns = min(COLUMNS, max(1, len(names)))
    lines = -(-max(1, len(names)) // columns)
    with mpl.rc_context(STYLE | SMALL):
        figure = Figure(figsize=(WIDTH, 0.95 + 0.95 * lines), layout="constrained")
        grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for place, axes in enumerate(grid):
            if place < len(names):
                axes.set_title(names[place], fontsize=7.5, fontweight="normal", loc="left", pad=2)
                axes.tick_params(labelbottom=place + columns >= len(names))
                axes.locator_params(nbins=3)
            elif names:
                axes.remove()
            else:
                axes.text(0.5, 0.5, "not estimable", ha="center", color=MUTED, transform=axes.transAxes)
        figure.supxlabel(across, x=0.01, ha="left", **LABEL)  # the legend is at the right
        figure.supylabel(up, **LABEL)
        yield figure, dict(zip(names, grid, strict=False))


def band(axes: Axes, places: Any, low: Any, high: Any, color: str) -> None:
    """An interval along a line: tinted, between edges that are seen."""
    axes.fill_between(places, low, high, color=color, alpha=0.12, linewidth=0)
    for bound in (low, high):
        axes.plot(places, bound, color=color, linewidth=0.8, linestyle=DOTTED)


def as_svg(figure: Figure, name: str, title: str, finding: str) -> str:
    """The figure under its title as an SVG, with a description for screen readers, and ids that no other figure has.

    `finding` is what it shows, in words (pipeline.presentation.findings).
    """
    with mpl.rc_context(STYLE):
        _head(figure, title)
        text = drawn(figure)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{name}-", text)
    text = re.sub(r"font-family: [^;\"]*; ?", "", text)
    # a hundredth of a point is less than a pixel
    text = re.sub(r'\b(d|x|y)="[^"]*"', lambda hit: re.sub(r"(\.\d\d)\d+", r"\1", hit.group()), text)
    label = escape(title, quote=True)
    text = text.replace(
        "<svg ", f'<svg role="img" aria-label="{label}" aria-describedby="{name}-desc" font-family="{FONTS}" ', 1
    )
    told = escape(description(figure, title, finding))
    return text.replace(">", f'>\n <desc id="{name}-desc">{told}</desc>', 1)


def line_width(text: str, **font: Any) -> float:
    """Of a line of text in the figures' own font, in points; browsers' fonts are narrower.

    From the letters' advances; the extent of their outlines would be four tenths of a page's time.
    """
    look = FontProperties(family=STYLE["font.family"], **font)
    width, _, _ = text_to_path.get_text_width_height_descent(text, look, ismath=False)
    return float(width)


def drawn(figure: Figure) -> str:
    """matplotlib's SVG, drawn once: `savefig` alone lays out in a drawing that nobody sees, and draws again."""
    buffer = io.StringIO()
    FigureCanvasSVG(figure)
    figure.set_dpi(72)  # of SVG's points, in which text is measured
    if engine := figure.get_layout_engine():
        engine.execute(figure)
        figure.set_layout_engine(None)  # "none" would leave a placeholder, for which it is drawn twice all the same
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


def _head(figure: Figure, title: str) -> None:
    """The title at the figure's edge, where it has the most room, in as many lines as it takes."""
    room, whole, lines = 0.97 * 72 * figure.get_figwidth(), line_width(title, **TITLE), [""]
    if whole > room:  # no word alone
        room = min(room, 1.15 * whole / math.ceil(whole / room))
    for word in title.split():
        longer = f"{lines[-1]} {word}".strip()
        lines[-1:] = [longer] if not lines[-1] or line_width(longer, **TITLE) <= room else [lines[-1], word]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", color=INK, **TITLE)
    figure.set_figheight(figure.get_figheight() + 0.17 * (len(lines) - 1))


def description(figure: Figure, title: str, finding: str) -> str:
    """What the figure shows, for who does not see it: the finding, its axes, the rows or panels, what is drawn.

    For instance "ROC, base cohort. Mean height: highest: lstm 0.8, lowest: resnet 0.6. Up: True positive rate; …".
    """
    said = []
    small = bool(figure.get_supxlabel())
    if small:
        named = ", ".join(axes.get_title(loc="left") for axes in figure.axes)
        said.append(f"up: {figure.get_supylabel()}; across: {figure.get_supxlabel()}; panels: {named}")
    for axes in figure.axes[: 1 if small else None]:
        across, up = axes.get_xlabel(), axes.get_ylabel()
        told = [f"{where}: {what}" for where, what in (("up", up), ("across", across)) if what]
        named_rows = [each.get_text() for each in (*axes.get_yticklabels(), *axes.texts)]
        rows = [each for each in named_rows if each and not re.fullmatch(r"[−\d.,%<]+", each)]
        drawn = list(dict.fromkeys(axes.get_legend_handles_labels()[1]))
        told += [f"rows: {', '.join(rows)}"] if rows and not small else []
        told += [f"drawn: {', '.join(drawn)}"] if drawn else []
        said += ["; ".join(told)] if told else []
    return ". ".join([title, *([finding] if finding else []), *(each[0].upper() + each[1:] for each in said)]) + "."


def themed(svg: str) -> str:
    """The SVG with the page's CSS variables for its colours."""
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would hold for the whole page
    names = {INK: "--ink", MUTED: "--muted", RULE: "--rule"} | {c: f"--c{i}" for i, c in enumerate(PALETTE)}
    return re.sub("|".join(names), lambda hit: f"var({names[hit.group()]})", svg)


def legend_below(figure: Figure, axes: Axes) -> None:
    """Below the axes, of panels beside their label; from its third row on the figure grows with it."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns, beside = min(len(handles), 2 if len(handles) <= 4 else 3), figure.get_supxlabel()
        size = float(SMALL["legend.fontsize"])
        around = 5.5 * size  # an entry's line, and the space between
        entry = around + max(line_width(str(label), size=size) for label in labels)
        if beside and line_width(beside, **LABEL) + columns * entry > 72 * figure.get_figwidth():
            columns = 1
        figure.legend(
            handles,
            labels,
            loc="outside lower right" if beside else "outside lower left",
            ncols=columns,
            handlelength=2.4,
        )
        figure.set_figheight(figure.get_figheight() + 0.19 * max(0, -(-len(handles) // columns) - 2))
