"""The first screen: every task by every cohort, also where nothing is to be told."""

import polars as pl
import pytest

from pipeline import params
from pipeline.estimation.verdicts import GAINS, UNDETERMINED
from pipeline.page.matrix import matrix
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
        return matrix(tmp_path, ("mortality",), trained, rule).rows[0].cells

    return made


def test_the_interval_is_the_one_by_which_the_verdict_was_told(entries):
    """The unadjusted one lies below 0, which the verdict denies."""
    base, matched = entries(TOLD | {"family_low": -0.06, "family_high": 0.001})
    assert base.chip[1:] == SIGNS[UNDETERMINED]
    assert base.text == "AUROC −0.020 (−0.060 to 0.001)"
    assert base.target == "figure-when_mortality"
    assert matched.chip is None
    assert matched.text == "Empty: no fusion strategy to compare with both single modalities"


def test_an_interval_that_told_nothing_is_said_to_be_unadjusted(entries):
    assert entries(TOLD)[0].text == "AUROC −0.020 (−0.040 to −0.010), unadjusted"


def test_a_gain_beyond_the_margin(entries):
    told = {"verdict": GAINS, "beyond": True, "difference": 0.1, "family_low": 0.05, "family_high": 0.2}
    assert entries(TOLD | told)[0].chip.text == "gains by more than 0.01"


def test_why_a_cell_is_empty(entries):
    none = {"cohort": "base", "note": UNCHOSEN}
    assert [each.text for each in entries(none, trained=("base",))] == [
        f"Empty: {UNCHOSEN}",
        "Empty: not trained at this scale",
    ]
