"""docs/strategies.md is what the cards and the study's tables say."""

import polars as pl

from pipeline.closure import ROOT
from pipeline.modelling.cards import Card, read_card
from pipeline.modelling.fitted import Fitted
from pipeline.modelling.registry import names, strategy_class
from pipeline.page.strategies import COMMAND, DOCUMENT, MOVES, SENSITIVITY, STUDY, found, read_sensitivity, render
from pipeline.questions.which.own import FILES


def test_the_document_is_fresh(root):
    written = (root / DOCUMENT).read_text(encoding="utf-8")
    fresh = render([read_card(name) for name in names()], found(root / STUDY), read_sensitivity(root / SENSITIVITY))
    assert written == fresh, f"{DOCUMENT} is stale: run `{COMMAND}`"


def test_cards_stand_in_groups_with_what_they_declare_and_what_was_found():
    entries = {"Paper": "p", "Idea": "i", "Missing image": "m", "Changed": "c"}
    kinds = {"b": ("cxr", "ehr"), "a": ("cxr", "ehr"), "z": ("ehr",), "y": ("ehr", "metadata", "presence")}
    cards = [Card(name, f"of {name}", entries, sees, "native", "joint", ()) for name, sees in kinds.items()]
    moves = pl.DataFrame([["a", 0.021, 1.5, 0.3, None]], schema=["strategy", *MOVES], orient="row")
    text = render(cards, {"a": "much."}, moves)
    places = [
        text.index(f"\n{line}\n") for line in ("## One modality", "### z", "### y", "## Fusion", "### a", "### b")
    ]
    assert places == sorted(places)
    assert "| [y](#y) | control | ehr, presence, metadata | – | joint |" in text
    card = "\n\n**Paper.** p\n\n**Idea.** i\n\n**Missing image.** m\n\n**Changed.** c\n"
    head = f"| strategy | {' | '.join(MOVES.values())} |\n| --- | ---: | ---: | ---: | ---: |\n"
    assert text.endswith(f"{head}| a | 0.021 | 1.5 | 0.3 | – |\n")
    assert f"### a\n\nof a{card}\n**Found.** much.\n\n### b\n\nof b{card}" in text


def test_who_has_an_own_table_says_where():
    entries = {"Paper": "p", "Idea": "i", "Missing image": "m", "Changed": "c"}
    cards = [Card(name, "of it", entries, ("cxr", "ehr"), "native", "joint", ()) for name in ("climd", "a")]
    moves = pl.DataFrame([["a", 0.021, 1.5, 0.3, None]], schema=["strategy", *MOVES], orient="row")
    text = render(cards, {}, moves)
    where = "`reports/tables/curriculum.csv` and `reports/tables/curriculum_epochs.csv`, folded on the page"
    assert f"**Own table.** {where}: [what is told](reading-the-report.md#own-tables)." in text
    assert text.count("Own table") == 1
    document = (ROOT / "docs" / "reading-the-report.md").read_text(encoding="utf-8")
    assert "\n### Own tables\n" in document
    for names_of in FILES.values():
        assert [name for name in names_of if f"`{name}.csv`" not in document] == []


def test_found_is_of_the_mean_over_labels_the_synergistic_ones_and_removed_images(tmp_path):
    tables = tmp_path / "tables"
    tables.mkdir()
    shared = {"strategy": "x", "metric": "auroc"}
    gain = [
        shared
        | {"cohort": cohort, "label": label, "stratum": stratum, "difference": d, "low": d - 0.1, "high": d + 0.1}
        for cohort, label, stratum, d in (
            ("base", "macro", "all", 0.2),
            ("base", "macro", "has_cxr", 0.9),
            ("base", "shock", "all", 0.8),
            ("matched", "macro", "all", 0.05),
        )
    ]
    pl.DataFrame([*gain, gain[0] | {"metric": "auprc", "difference": 0.7}]).write_csv(tables / "gain.csv")
    kinds = [
        {"cohort": "base", "strategy": "x", "kind": kind, "difference": d, "low": None, "high": None}
        for kind, d in (("noise", 0.6), ("synergistic", 0.3))
    ]
    pl.DataFrame(kinds).write_csv(tables / "known_kinds.csv")
    loss = [
        shared
        | {"train_cohort": "base", "train_mechanism": removed, "modality": modality, "mechanism": mechanism}
        | {"loss": value, "loss_low": 0.0, "loss_high": 0.5}
        for removed, modality, mechanism, value in (
            ("none", "ehr", "mcar", 0.4),
            ("none", "cxr", "mar", 0.41),
            ("none", "cxr", "mcar", 0.42),
            ("mcar", "cxr", "mcar", 0.43),
        )
    ]
    pl.DataFrame(loss).write_csv(tables / "robustness_summary.csv")
    assert found(tmp_path) == {
        "x": "all phenotypes 0.200 (0.100–0.300) in base, 0.050 (−0.050 to 0.150) in matched; "
        "synergistic 0.300 in base; lost without images 0.420 (0.000–0.500) in base."
    }


def test_the_table_before_training_is_of_every_strategy_that_descends(root):
    descending = [name for name in names() if not issubclass(strategy_class(name), Fitted)]
    assert read_sensitivity(root / SENSITIVITY)["strategy"].to_list() == descending
