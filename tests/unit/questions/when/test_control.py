"""The positive control, and the verdict that needs it."""

import polars as pl
import pytest

from pipeline.errors import InputError
from pipeline.params import Grid
from pipeline.questions.when import control
from pipeline.questions.when.gain import gain
from tests.support.made_up_runs import add_control
from tests.support.when import SCALE, known

COHORTS = ("base", "matched")


def test_the_control_is_asked_of_the_image_only_strategy_by_task_and_cohort(own, made):
    """Features that tell the findings pass; noise does not, nor does one finding alone, nor no image-only strategy."""
    grid, both = Grid(("resnet", "late_fusion"), ("mortality", "los")), ("mortality", "los")
    add_control(own, "resnet", SCALE, ("mortality",), told=2.0, cohorts=("matched",))
    found = gain(known(own, grid)).passed
    assert found == {(task, cohort): (task, cohort) == ("mortality", "matched") for task in both for cohort in COHORTS}
    assert not any(gain(known(made, grid)).passed.values())
    path = own / "probes" / "resnet" / "image_control.parquet"
    table = pl.read_parquet(path)
    table.filter(finding="edema").write_parquet(path)
    assert not any(gain(known(own, grid)).passed.values())
    (own / "probes" / "late_fusion").mkdir()
    table.write_parquet(own / "probes" / "late_fusion" / "image_control.parquet")
    assert not any(gain(known(own, Grid(("lstm", "late_fusion"), both))).passed.values())
    path.unlink()
    with pytest.raises(InputError, match=r"resnet.image_control\.parquet: not found"):
        gain(known(own, grid))


def test_no_gain_is_said_where_the_control_is_passed_alone(own):
    """A fusion strategy that answers as the best unimodal one does, but for a hair."""
    grid = Grid(("lstm", "resnet", "late_fusion"), ("mortality",))
    folder, name = own / "runs", "mortality/predictions.parquet"
    frame = pl.read_parquet(folder / "lstm" / name).sort("train_cohort", "fold", "seed", "stay_id")
    hair = pl.col("p_icu_mortality") * 0.98 + 0.02 * (pl.col("stay_id") % 97) / 97
    frame.with_columns(hair.cast(pl.Float32)).write_parquet(folder / "late_fusion" / name)
    add_control(own, "resnet", SCALE, ("mortality",), told=2.0, cohorts=("base",))
    rows = gain(known(own, grid)).table.filter(metric="auroc", stratum="all")
    assert dict(rows.select("cohort", "verdict").iter_rows()) == {"base": "no gain", "matched": "undetermined"}


def test_the_findings_are_those_of_the_probe():
    from pipeline.training.image_control import FINDINGS

    assert sorted(FINDINGS) == sorted(control.FINDINGS)
