"""The first screen: every task by every cohort, also where nothing is to be told."""

import polars as pl
import pytest

from pipeline import params
from pipeline.estimation.verdicts import GAINS, NOT_TESTABLE, UNDETERMINED, WORDS
from pipeline.page.matrix import HIGHER, LOWER, MEANINGS, NO_INTERVAL, NOT_APART, matrix
from pipeline.questions.when.contest import CONFIRMATORY, SCHEMA, UNCHOSEN
from pipeline.questions.when.tables import SIGNS

ROW = {"task": "mortality", "label": "icu_mortality", "metric": "auroc", "family": CONFIRMATORY}
TOLD = {"cohort": "base", "verdict": UNDETERMINED, "difference": -0.02, "low": -0.04, "high": -0.01}


@pytest.fixture
def entries(root, tmp_path):
    rule = params.load(root / "params.yaml").verdicts

    def made(*rows, trained=("base", "matched")):
        table = pl.DataFrame([dict.fromkeys(SCHEMA) | ROW | row for row in rows], schema=SCHEMA, orient="row")
        table.write_csv(tmp_path / "gain.csv")
        whole = matrix(tmp_path, ("mortality",), trained, rule)
        assert whole.heads == tuple(("mortality", cohort) for cohort in trained)
        return whole.rows[0].cells if rows[0].get("chosen") is None else whole.strategies

    return made


def test_the_interval_is_the_one_by_which_the_verdict_was_told(entries):
    """The unadjusted one lies below 0, which the verdict denies."""
    base, matched = entries(TOLD | {"family_low": -0.06, "family_high": 0.001})
    assert base.chip[1:] == SIGNS[UNDETERMINED]
    assert base.text == "AUROC −0.020 (−0.060 to 0.001)"
    assert base.target == "verdict-mortality-base"
    assert matched.chip is None
    assert matched.text == "Empty: no fusion strategy to compare with both single modalities"


def test_an_interval_that_told_nothing_is_said_to_be_unadjusted(entries):
    assert entries(TOLD)[0].text == "AUROC −0.020 (−0.040 to −0.010), unadjusted"


def test_a_gain_beyond_the_margin(entries):
    told = {"verdict": GAINS, "beyond": True, "difference": 0.1, "family_low": 0.05, "family_high": 0.2}
    assert entries(TOLD | told)[0].chip.text == "gains by more than 0.01"


def test_the_words_of_the_verdicts_that_are_there_are_explained(root, tmp_path):
    rule = params.load(root / "params.yaml").verdicts
    rows = [ROW | TOLD, ROW | {"cohort": "matched", "verdict": NOT_TESTABLE}]
    table = pl.DataFrame([dict.fromkeys(SCHEMA) | row for row in rows], schema=SCHEMA, orient="row")
    table.write_csv(tmp_path / "gain.csv")
    told = dict(matrix(tmp_path, ("mortality",), ("base", "matched"), rule).words)
    assert list(told) == [UNDETERMINED, NOT_TESTABLE]
    assert told[NOT_TESTABLE] == "fewer than 50 test stays with the rarer outcome, or a single run"
    assert set(MEANINGS) == set(WORDS) == set(SIGNS)


def test_why_a_cell_is_empty(entries):
    none = {"cohort": "base", "note": UNCHOSEN}
    assert [each.text for each in entries(none, trained=("base",))] == [
        f"Empty: {UNCHOSEN}",
        "Empty: not trained at this scale",
    ]


def test_every_strategy_has_the_side_of_zero_of_its_own_interval_and_no_verdict(entries):
    own = {"family": None, "chosen": False, "stratum": "all", "cohort": "base", "difference": 0.1}
    told = entries(
        own | {"strategy": "a", "low": 0.05, "high": 0.2},
        own | {"strategy": "b", "low": -0.2, "high": -0.05},
        own | {"strategy": "c", "low": -0.05, "high": 0.2},
        own | {"strategy": "d"},
    )
    assert [row.title for row in told] == ["a", "b", "c", "d"]
    assert [row.cells[0].chip for row in told] == [HIGHER, LOWER, NOT_APART, NO_INTERVAL]
    assert told[0].cells[0].text == "AUROC 0.100 (0.050–0.200)"
    assert told[0].cells[0].target == "every-a"
    assert told[0].cells[1] == (None, "Empty: not compared", "")
    assert not {HIGHER.text, LOWER.text} & set(WORDS)
