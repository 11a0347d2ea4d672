"""Static covariates are channels that do not change: what they hold, and that every kind of strategy is told."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import files
from pipeline.data.inputs import channel_variables
from pipeline.data.statics import STATICS, model_variables, static_values
from pipeline.data.tensors import load_fold
from pipeline.params import TrainingScale, load
from pipeline.tasks import get_task
from pipeline.training.grid import runs
from pipeline.training.run import make_run
from pipeline.training.store import Store, data_fingerprint
from tests.support.made_up_data import fabricate
from tests.support.small import ENCODERS

SCALE = TrainingScale(
    cohorts=("base",), folds=(0,), seeds=(0,), train_missing=(0.0,), batch_size=16, max_epochs=1, patience=9
)
GROUPS = ("EMERGENCY", "OBSERVATION", "ELECTIVE")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("fabricated"), n=80)


def fold(data, statics):
    return load_fold(data, 0, get_task("mortality"), model_variables("core", statics), "mcar")


def test_each_hour_holds_age_gender_and_admission_group(data):
    without, told = fold(data, False).series, fold(data, True).series
    channels, variables = without.ehr.shape[2], without.observed.shape[2]
    assert told.ehr.shape[2] == channels + 1 + 2 + 3 == len(channel_variables(model_variables("core", True)))
    for name, width in (("ehr", channels), ("observed", variables), ("since", variables)):
        assert np.array_equal(getattr(told, name)[:, :, :width], getattr(without, name)), name
    assert told.observed[:, :, variables:].all()
    assert not told.since[:, :, variables:].any()
    stays = pl.read_parquet(data / "cohort/stays.parquet")
    parts = pl.read_parquet(data / "splits.parquet").filter((pl.col("fold") == 0) & (pl.col("part") == "train"))
    ages = stays.join(parts, on="stay_id")["age"].to_numpy()
    low, median, high = np.percentile(ages, [25, 50, 75])
    for row, stay in enumerate(stays.iter_rows(named=True)):
        expected = [
            (stay["age"] - median) / (high - low),
            *(float(stay["gender"] == sex) for sex in "FM"),
            *(float(stay["admission_group"] == group) for group in GROUPS),
        ]
        np.testing.assert_allclose(told.ehr[row, :, channels:], np.tile(expected, (48, 1)), atol=1e-5)


@given(
    st.lists(
        st.tuples(
            st.none() | st.integers(18, 100),
            st.sampled_from([None, "F", "M", "?"]),
            st.sampled_from([None, *GROUPS]),
        ),
        min_size=1,
        max_size=9,
    )
)
def test_what_is_not_known_is_not_observed(rows):
    names = [variable.name for variable in STATICS]
    schema = dict(zip(names, (pl.Int32, pl.String, pl.String), strict=True))
    found = static_values(pl.DataFrame(rows, schema=schema, orient="row"))
    for row, (age, gender, group) in zip(found, rows, strict=True):
        assert np.isnan(row[0]) if age is None else row[0] == age
        assert "FM"[int(row[1])] == gender if gender in ("F", "M") else np.isnan(row[1])
        assert GROUPS[int(row[2])] == group if group else np.isnan(row[2])


@pytest.mark.parametrize("strategy", ["lstm", "umse", "logistic"])
def test_the_knob_reaches_a_run(root, data, tmp_path, strategy):
    params, digests = load(root / "params.yaml"), []
    for statics in (False, True):
        training = dataclasses.replace(params.training, device="cpu", statics=statics)
        (spec,) = runs(
            strategy,
            "mortality",
            hyper=params.strategies[strategy],
            tier="core",
            training=training,
            encoders=ENCODERS,
            scale=SCALE,
        )
        store = Store(tmp_path, data_fingerprint(data))
        make_run(spec, store, data, lambda epoch, row: None)
        digests.append(files.sha256(store.folder(spec) / "predictions.safetensors"))
    assert digests[0] != digests[1]
