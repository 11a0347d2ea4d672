"""Figures: the same bytes twice, text as text, gaps instead of crashes, ids that do not collide on one page."""

import re
import xml.etree.ElementTree as ElementTree

import polars as pl
import pytest

from pipeline.closure import ROOT
from pipeline.page.figures import branches, forest, history, phenotypes, pr, reliability, roc
from pipeline.presentation import figures
from pipeline.presentation.figures import PALETTE, Looks, themed

NAMES = ("lstm", "<b>&$x$")
LOOKS = Looks(NAMES)


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
    "roc": lambda: roc(curve("fpr", "tpr"), "base", LOOKS, "roc", "ROC"),
    "pr": lambda: pr(curve("recall", "precision"), "base", LOOKS, "pr", "PR", 0.2),
    "reliability": lambda: reliability(curve("predicted", "observed"), "base", LOOKS, "reliability", "Calibration"),
    "history": lambda: history(epochs(), LOOKS, "AUPRC", "history", "History"),
    "branches": lambda: branches(epochs(), LOOKS, "AUPRC", "branches", "Imbalance"),
    "phenotypes": lambda: phenotypes([("Shock <x>", (0.7, None)), ("Other", (None, None))], NAMES, LOOKS, "p", "P"),
}


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


def test_a_strategy_without_estimate_keeps_its_row():
    svg = DRAWN["forest"]()
    assert "lstm" in svg
    assert "&lt;b&gt;" in svg


@pytest.mark.parametrize("draw", [roc, reliability])
def test_nothing_to_draw_is_said(draw):
    columns = ("fpr", "tpr") if draw is roc else ("predicted", "observed")
    assert "not estimable" in draw(curve(*columns), "matched", LOOKS, "x", "X")


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
    assert len({str(looks.line(name)) for name in names}) == 25
    assert len({str(looks.point(name)) for name in names}) == 25


def _luminance(color: str) -> float:
    shares = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("color", [*PALETTE, figures.INK, figures.MUTED])
def test_every_mark_has_a_contrast_of_three_on_white(color):
    """WCAG 2.1, 1.4.11."""
    assert 1.05 / (_luminance(color) + 0.05) >= 3


def test_the_page_has_the_palette_on_paper_and_in_print():
    style = (ROOT / "pipeline/page/style.css").read_text()
    assert style.count(" ".join(f"--c{i}: {color};" for i, color in enumerate(PALETTE))) == 2


def test_a_look_goes_with_the_name_not_with_the_place():
    alone, among = Looks(["medfuse", "mmtm"]), Looks(["another", "medfuse", "mmtm"])
    for name in ("medfuse", "mmtm"):
        assert alone.line(name) == among.line(name)
        assert alone.point(name) == among.point(name)
    assert Looks(["mmtm", "medfuse"]).line("mmtm") == alone.line("mmtm")


def test_a_figure_says_what_it_shows():
    svg = roc(curve("fpr", "tpr"), "base", LOOKS, "roc_base", "ROC, mortality")
    root = ElementTree.fromstring(svg)
    assert root[0].tag.endswith("desc")
    assert root.attrib["aria-describedby"] == root[0].attrib["id"] == "roc_base-desc"
    expected = "ROC, mortality. Up: True positive rate; across: False positive rate; drawn: lstm, <b>&$x$."
    assert root[0].text == expected


def test_a_long_legend_does_not_squeeze_its_figure():
    def height(count):
        names = [f"s{i}" for i in range(count)]
        rows = [{"cohort": "base", "strategy": name, "fpr": x, "tpr": x} for name in names for x in (0.0, 1.0)]
        return float(re.search(r'height="([\d.]+)pt"', roc(pl.DataFrame(rows), "base", Looks(names), "x", "X"))[1])

    assert height(1) == height(4) < height(12) < height(24)
