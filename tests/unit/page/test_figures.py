"""Figures: the same bytes twice, text as text, gaps instead of crashes, ids that do not collide on one page."""

import io
import re
import xml.etree.ElementTree as ElementTree

import polars as pl
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from pipeline.closure import ROOT
from pipeline.page.figures import branches, forest, history, monitor, phenotypes, pr, reliability, roc
from pipeline.presentation import figures
from pipeline.presentation.figures import (
    LABEL,
    PALETTE,
    STYLE,
    TITLE,
    WIDTH,
    Looks,
    as_svg,
    canvas,
    legend_below,
    line_width,
    panels,
    themed,
)

NAMES = ("lstm", "<b>&$x$")


CHOSEN = {"ehr": "lstm", "image": "resnet", "fusion": "medfuse"}


def results(values=((0.8, 0.7, 0.9), (None, None, None))) -> pl.DataFrame:
    rows = [
        {"metric": "auroc", "strategy": name, "train_cohort": c, "eval_cohort": c, "value": v, "low": low, "high": high}
        for name, (v, low, high) in zip(NAMES, values, strict=True)
        for c in ("base", "matched")
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def curve(x: str, y: str) -> pl.DataFrame:
    rows = [{"strategy": name, "cohort": "base", x: i / 10, y: i / 10} for name in NAMES for i in range(11)]
    return pl.DataFrame(rows)


def epochs() -> pl.DataFrame:
    rows = [
        {"strategy": s, "fold": f, "seed": 0, "epoch": e, "train_loss": 1 / e, "val_loss": 1.1 / e, "metric": None}
        for s in NAMES
        for f in (0, 1)
        for e in (1, 2, 3)
    ]
    return pl.DataFrame(rows).with_columns(pl.col("metric").cast(pl.Float64), ehr=pl.col("epoch") / 10, cxr=0.1)


DRAWN = {
    "forest": lambda: forest(results(), "auroc", "AUROC", "forest", "A <title> & more"),
    "roc": lambda: roc(curve("fpr", "tpr"), "base", "roc", "ROC"),
    "pr": lambda: pr(curve("recall", "precision"), "base", "pr", "PR", 0.2),
    "reliability": lambda: reliability(curve("predicted", "observed"), "base", "reliability", "Calibration"),
    "history": lambda: history(epochs(), "AUPRC", "history", "History"),
    "monitor": lambda: monitor(epochs().with_columns(metric=0.5), "AUPRC", "monitor", "Metric"),
    "branches": lambda: branches(epochs(), "AUPRC", "branches", "Imbalance"),
    "phenotypes": lambda: phenotypes(
        [("<b>&$x$", {"lstm": 0.7, "resnet": None, "medfuse": 0.75}, CHOSEN), ("Other", {"lstm": None}, {})], "p", "P"
    ),
}


@pytest.mark.parametrize(
    ("draw", "columns"),
    [
        (lambda rows: roc(rows, "base", "roc", "ROC"), ("fpr", "tpr")),
        (lambda rows: pr(rows, "base", "pr", "PR", None), ("recall", "precision")),
        (lambda rows: reliability(rows, "base", "reliability", "Calibration"), ("predicted", "observed")),
    ],
)
def test_where_no_curve_could_be_estimated_the_figure_says_so(draw, columns):
    nothing = pl.read_csv(io.StringIO(f"strategy,cohort,{','.join(columns)}\n"))
    assert "not estimable" in draw(nothing)


@pytest.mark.parametrize("kind", DRAWN)
def test_figures_are_reproducible_and_well_formed(kind):
    svg = DRAWN[kind]()
    assert svg == DRAWN[kind]()
    root = ElementTree.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"]
    texts = {"".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")}
    assert "<b>&$x$" in texts or kind == "forest"  # names are text: neither markup nor mathematics
    assert "date" not in svg.lower()
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
    assert used <= set(re.findall(r'\bid="([^"]+)"', svg))
    name = "p" if kind == "phenotypes" else kind
    assert all(each.startswith(f"{name}-") for each in used)


def by_savefig_alone(figure):
    """As matplotlib does it: laid out in a drawing that nobody sees, and drawn again."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


@pytest.mark.parametrize("kind", DRAWN)
def test_a_figure_drawn_once_is_the_bytes_of_one_drawn_twice(kind, monkeypatch):
    drawings, draw = [], Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda figure, renderer: drawings.append(figure) or draw(figure, renderer))
    own = DRAWN[kind]()
    assert len(drawings) == 1
    monkeypatch.setattr(figures, "drawn", by_savefig_alone)
    assert DRAWN[kind]() == own
    assert len(drawings) == 3


def test_a_strategy_without_estimate_keeps_its_row():
    svg = DRAWN["forest"]()
    assert "lstm" in svg
    assert "&lt;b&gt;" in svg


@pytest.mark.parametrize("text", ["x", "late_fusion", "Phenotypes, AUROC (macro mean): − 0.3", "W" * 60])
@pytest.mark.parametrize("font", [TITLE, LABEL, {"size": 8.5}])
def test_a_line_is_as_wide_as_its_letters_outlines(text, font):
    outline = TextPath((0, 0), text, prop=FontProperties(family=STYLE["font.family"], **font))
    assert line_width(text, **font) == pytest.approx(outline.get_extents().width, abs=2)  # points, at its two ends


@pytest.mark.parametrize("draw", [roc, reliability])
def test_nothing_to_draw_is_said(draw):
    columns = ("fpr", "tpr") if draw is roc else ("predicted", "observed")
    assert "not estimable" in draw(curve(*columns), "matched", "x", "X")


def test_nothing_at_all_in_a_forest():
    nothing = results(((None, None, None), (None, None, None)))
    assert "lstm" in forest(nothing, "auroc", "AUROC", "x", "X")
    ElementTree.fromstring(forest(nothing, "auroc", "AUROC", "x", "X"))


def test_themed_figures_follow_the_page():
    svg = themed(DRAWN["roc"]())
    assert "var(--c0)" in svg
    assert "var(--ink)" in svg
    assert not [color for color in (*PALETTE, figures.INK, figures.MUTED, figures.RULE) if color in svg]
    assert "<style" not in svg


def test_looks_tell_two_dozen_strategies_apart():
    names = [f"s{i}" for i in range(25)]
    looks = Looks(names)
    assert len({str(looks.point(name)) for name in names}) == 25


def _blend(color: str, ground: str, opacity: float) -> list[float]:
    both = [[int(each[i : i + 2], 16) for i in (1, 3, 5)] for each in (color, ground)]
    return [opacity * over + (1 - opacity) * under for over, under in zip(*both, strict=True)]


def _luminance(rgb: list[float]) -> float:
    shares = [each / 255 for each in rgb]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(color: str, ground: str, opacity: float = 1.0) -> float:
    light, dark = sorted((_luminance(_blend(each, ground, opacity)) for each in (color, ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def themes() -> dict[str, dict[str, str]]:
    """The page's colours by name: light, dark and on paper."""
    style = (ROOT / "pipeline/page/style.css").read_text()
    found = [dict(re.findall(r"--([\w-]+): (#\w+);", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)]
    light, dark, paper = ({name: _six(color) for name, color in each.items()} for each in found)
    return {"light": light, "dark": light | dark, "paper": light | paper}


def _six(color: str) -> str:
    return color if len(color) == 7 else "#" + "".join(2 * each for each in color[1:])


@pytest.mark.parametrize("theme", ["light", "dark", "paper"])
def test_every_mark_has_a_contrast_of_three(made, page, theme):
    """WCAG 2.1, 1.4.11: every stroke and fill of every figure, as it is blended with what lies beneath.

    But grid lines, and tints between edges that are drawn (`band`, the margin).
    """
    of = themes()[theme]
    drawn = sorted((made / "reports" / "figures").glob("*.svg"))
    faint = []
    for path in drawn:
        for style in set(re.findall(r'style="([^"]*)"', themed(path.read_text()))):
            said = dict(each.split(": ", 1) for each in style.split("; ") if ": " in each)
            opacity = float(said.get("opacity", 1))
            for what in ("fill", "stroke"):
                name = re.fullmatch(r"var\(--([\w-]+)\)", said.get(what, "none"))
                tint = name is not None and (name[1] == "rule" or (what == "fill" and opacity < 0.2))
                if name and not tint and contrast(of[name[1]], of["paper"], opacity) < 3:
                    faint.append((path.stem, style))
                assert name or said.get(what, "none") in ("none", "none;"), (path.stem, style)  # no colour of its own
    assert not faint
    assert len(drawn) > 50


@pytest.mark.parametrize("theme", ["light", "dark", "paper"])
@pytest.mark.parametrize("mark", ["good", "bad", "muted", "link"])
def test_chips_and_signs_have_the_contrast_of_text(mark, theme):
    of = themes()[theme]
    assert min(contrast(of[mark], of[ground]) for ground in ("paper", "panel")) >= 4.5


def test_the_page_has_the_palette_on_paper_and_in_print():
    style = (ROOT / "pipeline/page/style.css").read_text()
    assert style.count(" ".join(f"--c{i}: {color};" for i, color in enumerate(PALETTE))) == 2


def test_a_look_goes_with_the_name_not_with_the_place():
    alone, among = Looks(["medfuse", "mmtm"]), Looks(["another", "medfuse", "mmtm"])
    for name in ("medfuse", "mmtm"):
        assert alone.point(name) == among.point(name)
    assert Looks(["mmtm", "medfuse"]).point("mmtm") == alone.point("mmtm")


def test_a_figure_says_what_it_shows():
    svg = roc(curve("fpr", "tpr"), "base", "roc_base", "ROC, mortality")
    root = ElementTree.fromstring(svg)
    assert root[0].tag.endswith("desc")
    assert root.attrib["aria-describedby"] == root[0].attrib["id"] == "roc_base-desc"
    assert root[0].text == (
        "ROC, mortality. Mean height of the curve, highest: lstm 0.500, lowest: lstm 0.500. "
        "Up: True positive rate; across: False positive rate; panels: lstm, <b>&$x$. "
        "Drawn: chance, median of all, the strategy."
    )


FINDINGS = {
    "forest": "base cohort: highest: lstm 0.800. matched cohort: highest: lstm 0.800",
    "reliability": "Mean distance from the diagonal, highest: lstm 0.000, lowest: lstm 0.000",
    "history": "Lowest validation loss: highest: lstm 0.367, lowest: lstm 0.367. AUPRC at its best epoch: not ",
    "monitor": "At the last epoch, highest: lstm 0.500, lowest: lstm 0.500",
    "branches": "Record less image at the last epoch, highest: lstm 0.200, lowest: lstm 0.200",
    "phenotypes": "The best fusion lies above the best on the record in 1 of 1. Of it, highest: <b>&$x$ 0.750",
}


@pytest.mark.parametrize("kind", FINDINGS)
def test_the_description_says_the_finding(kind):
    told = ElementTree.fromstring(DRAWN[kind]())[0].text
    assert told.split(". ", 1)[1].startswith(FINDINGS[kind])


def test_every_figure_of_the_page_says_what_it_found(made, page):
    for path in (made / "reports" / "figures").glob("*.svg"):
        _, told = ElementTree.fromstring(path.read_text())[0].text.split(". ", 1)
        assert re.search(r"\d|not estimable", told.split(". Up:")[0].split(". Across:")[0]), (path.stem, told)


def test_what_is_fitted_at_once_has_no_panel_of_losses():
    fitted = epochs().filter(epoch=1).with_columns(strategy=pl.lit("gbm"), train_loss=None, val_loss=None)
    shown = history(pl.concat([epochs(), fitted], how="vertical_relaxed"), "AUPRC", "h", "H")
    assert "gbm" not in shown
    assert ">lstm<" in shown


def test_no_panel_holds_more_than_one_strategy():
    root = ElementTree.fromstring(roc(curve("fpr", "tpr"), "base", "roc", "ROC"))
    assert "".join(root.itertext()).count("False positive rate") == 2  # in the description, and once for all panels


def test_a_long_title_takes_two_lines_and_none_is_cut():
    title = "Length of stay (7 days or more), base cohort: AUROC by group"
    with canvas(WIDTH, 3) as (figure, _):
        as_svg(figure, "long", title, "")
        figure.draw_without_rendering()
        (head,) = figure.texts
        assert head.get_text() == "Length of stay (7 days or more),\nbase cohort: AUROC by group"
        assert head.get_window_extent().x1 <= figure.bbox.x1


@pytest.mark.parametrize(
    "labels", [("chance", "median", "the strategy"), ("as said", "at the temperature of validation")]
)
def test_the_legend_of_panels_covers_no_label(labels):
    with panels(["lstm"], "Mean predicted probability", "Observed share") as (figure, grid):
        for label in labels:
            grid["lstm"].plot([0, 1], [0, 1], label=label)
        legend_below(figure, grid["lstm"])
        figure.draw_without_rendering()
        (across,) = [each for each in figure.texts if each.get_text() == "Mean predicted probability"]
        assert not figure.legends[0].get_window_extent().overlaps(across.get_window_extent())
