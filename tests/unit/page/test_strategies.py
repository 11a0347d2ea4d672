"""docs/strategies.md is what the cards and the study's tables say."""

import re

import polars as pl
import pytest

from pipeline.closure import ROOT
from pipeline.modelling.cards import Card, read_card
from pipeline.modelling.fitted import Fitted
from pipeline.modelling.registry import names, strategy_class
from pipeline.page.strategies import (
    COMMAND,
    DOCUMENT,
    MOVES,
    NO_SYNERGY,
    SENSITIVITY,
    USES,
    found,
    of_images,
    read_sensitivity,
    render,
    told,
)
from pipeline.questions.which.own import FILES

NEIGHBOURS = ["moddrop", "qmf", "hypermm", "deq", "unseen", "mind", "climd", "pal", "cmcl", "fusemoe", "medpatch"]


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_card_says_which_of_the_papers_sentences_were_reproduced_and_which_not(name):
    told = read_card(name).entries["Changed"]
    assert re.search(r"\b[Rr]eproduced?\b", told)
    assert re.search(r"Not (reproduced|tested)|was not reproduced|; not that", told)


def test_the_document_is_fresh(root, monkeypatch):
    monkeypatch.chdir(root)
    written = (root / DOCUMENT).read_text(encoding="utf-8")
    fresh = render([read_card(name) for name in names()], told(), read_sensitivity(SENSITIVITY))
    assert written == fresh, f"{DOCUMENT} is stale: run `{COMMAND}`"


def test_cards_stand_in_groups_with_what_they_declare_and_what_was_found():
    entries = {"Paper": "p", "Idea": "i", "Missing image": "m", "Changed": "c"}
    kinds = {"b": ("cxr", "ehr"), "a": ("cxr", "ehr"), "z": ("ehr",), "y": ("ehr", "metadata", "presence")}
    cards = [Card(name, f"of {name}", entries, sees, "native", "joint", ()) for name, sees in kinds.items()]
    moves = pl.DataFrame([["a", 0.021, 1.5, 0.3, None]], schema=["strategy", *MOVES], orient="row")
    text = render(cards, {"Found": {"a": "much."}, "Images": {"b": "| more |"}}, moves)
    places = [
        text.index(f"\n{line}\n") for line in ("## One modality", "### z", "### y", "## Fusion", "### a", "### b")
    ]
    assert places == sorted(places)
    assert "| [y](#y) | control | ehr, presence, metadata | – | joint |" in text
    card = "\n\n**Paper.** p\n\n**Idea.** i\n\n**Missing image.** m\n\n**Changed.** c\n"
    head = f"| strategy | {' | '.join(MOVES.values())} |\n| --- | ---: | ---: | ---: | ---: |\n"
    assert text.endswith(f"{head}| a | 0.021 | 1.5 | 0.3 | – |\n")
    assert f"### a\n\nof a{card}\n**Found.** much.\n\n### b\n\nof b{card}\n**Images.**\n\n| more |\n" in text


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


def test_images_are_told_of_end_to_end_and_with_their_causes_given(tmp_path):
    kinds = {"ehr_only": 0.9, "cxr_only": 0.7, "synergistic": 0.5, "cost": 0.1}
    ends = (("", 0), ("_low", -0.1), ("_high", 0.1))
    numbers = {f"{kind}{end}": value + d for kind, value in kinds.items() for end, d in ends}
    first, second = ({"strategy": "x", "image": image, "trials": 0} | numbers for image in ("end_to_end", "causes"))
    second |= {"cxr_only": 0.8, "cxr_only_low": None, "cxr_only_high": None}
    lone = {**dict.fromkeys(first), "strategy": "y", "image": "causes", "trials": 0, "synergistic": 0.25}
    pl.DataFrame([first, second, lone, lone | {"trials": 4}]).write_csv(tmp_path / "use.csv")
    head = "| way | record-only | image-only | synergistic | others' images cost |\n"
    head += "| --- | ---: | ---: | ---: | ---: |\n"
    about = "0.900 (0.800–1.000) | {} | 0.500 (0.400–0.600) | 0.100 (0.000–0.200) |\n".format
    assert of_images(tmp_path / "use.csv") == {
        "x": f"{head}| end to end | {about('0.700 (0.600–0.800)')}| causes given | {about('0.800')}\n"
        "Even of the causes it finds no synergy, untuned: that is the method's, and not the CNN's.",
        "y": f"{head}| causes given | n. e. | n. e. | 0.250 | n. e. |\n"
        "| causes given, tuned (4 trials) | n. e. | n. e. | 0.250 | n. e. |",
    }


@pytest.mark.parametrize(
    ("way", "untuned", "tuned", "how"),
    [
        ("causes", 0.49, None, "untuned"),
        ("causes", 0.51, None, None),
        ("causes", 0.51, 0.5, "tuned"),
        ("causes", 0.49, 0.51, None),
        ("end_to_end", 0.49, None, None),
    ],
)
def test_no_synergy_of_given_causes_is_told_as_the_methods_after_the_last_trials(tmp_path, way, untuned, tuned, how):
    rows = [
        {"strategy": "x", "image": way, "trials": trials, "synergistic": low + 0.01, "synergistic_low": low}
        for trials, low in ((4, tuned), (0, untuned))
        if low is not None
    ]
    frame = pl.DataFrame(rows).with_columns(synergistic_high=pl.col("synergistic") + 0.01)
    others = [f"{kind}{end}" for kind in USES if kind != "synergistic" for end in ("", "_low", "_high")]
    frame.with_columns(pl.lit(None).alias(name) for name in others).write_csv(tmp_path / "use.csv")
    text = of_images(tmp_path / "use.csv")["x"]
    assert [each for each in ("untuned", "tuned") if text.endswith(NO_SYNERGY.format(how=each))] == (
        [how] if how else []
    )
