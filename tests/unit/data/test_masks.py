"""Removal masks: nested in the rate, exact shares, and (mar) those first whose traits make an image unlikely."""

import numpy as np
import polars as pl
import pytest

from pipeline.data.masks import absence_odds, masks
from pipeline.data.splits import split
from pipeline.params import Masks, Splits
from tests.support.made_up_data import stays_frame

RULES = Splits(scheme="folds", test_from_year=2014, salt="s", folds=3, dev_share=0.1, val_share=0.2, stratify=False)


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(1)
    stays = stays_frame(900, rng)
    emergency = (stays["admission_group"] == "EMERGENCY").to_numpy()
    has_cxr = rng.random(900) < np.where(emergency, 0.8, 0.3)
    stays = stays.with_columns(
        has_cxr=pl.Series(has_cxr), cxr_status=pl.Series(np.where(has_cxr, "present", "not_taken"))
    )
    labels = stays.select("stay_id")
    return stays, split(stays, labels, RULES)


def test_every_rate_removes_its_share_of_every_part(cohort):
    stays, splits = cohort
    frame, _ = masks(stays, splits, Masks(salt="m"))
    with_image = stays.filter("has_cxr").select("stay_id")
    for modality, base in (("cxr", with_image), ("ehr", stays.select("stay_id"))):
        rows = frame.filter((pl.col("modality") == modality) & (pl.col("mechanism") == "mcar") & (pl.col("fold") == 1))
        assert rows.height == base.height
        placed = rows.join(splits.filter(pl.col("fold") == 1), on="stay_id")
        for rate in (0.0, 0.25, 0.5, 0.75):
            for part in ("train", "test"):
                values = placed.filter(pl.col("part") == part)["removed_at"]
                assert (values < rate).sum() == int(np.ceil(rate * values.len()))


def test_removal_at_random_depends_on_traits_where_it_should(cohort):
    stays, splits = cohort
    frame, facts = masks(stays, splits, Masks(salt="m"))
    assert facts["propensity_fitted"] == {"0": True, "1": True, "2": True}
    gone = frame.filter((pl.col("modality") == "cxr") & (pl.col("removed_at") < 0.5)).join(stays, on="stay_id")
    share = {
        mechanism: float((rows["admission_group"] == "ELECTIVE").mean())
        for (mechanism,), rows in gone.group_by("mechanism")
    }
    overall = float((stays.filter("has_cxr")["admission_group"] == "ELECTIVE").mean())
    assert abs(share["mcar"] - overall) < 0.06
    assert share["mar"] > overall + 0.08


def test_the_propensity_looks_at_training_rows_alone(cohort):
    stays, _ = cohort
    train = np.arange(stays.height) < 500
    odds, fitted = absence_odds(stays, train)
    changed = stays.with_columns(has_cxr=pl.when(pl.Series(train)).then("has_cxr").otherwise(pl.lit(False)))
    again, _ = absence_odds(changed, train)
    assert fitted
    assert np.array_equal(odds, again)


def test_without_both_outcomes_it_says_so(cohort):
    stays, _ = cohort
    odds, fitted = absence_odds(stays.with_columns(has_cxr=pl.lit(True)), np.ones(stays.height, np.bool_))
    assert not fitted
    assert set(odds.tolist()) == {1.0}
