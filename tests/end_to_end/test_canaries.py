"""Two canaries, from raw files to predictions: what lies after hour 48 and permuted labels must not be found.

The first: of a hospital whose labels are coin tosses (`synthetic.signal: 0`), the breathing rate is charted after hour
48 alone, and its value is the label, death in the ICU. The second: the labels are permuted among the stays. The same
rows moved into the window, and the permuted labels put among the inputs, have to be found: the canaries can sing.

The test: AUROC on the held-out stays, pooled over folds (pairs of a positive and a negative of the same fold), against
20,000 permutations of the labels within folds; above chance is p < 0.001. All is drawn from seeds: no verdict flickers.
"""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.synthetic import csvgz
from tests.support.inprocess import DATA_STAGES, run, synthesize, write_params

BREATHING = ["220210", "224690"]
LABEL = "icu_mortality"
TRAIN = ("tune", "train lstm")
SMALL = {
    "synthetic.signal": 0.0,
    "splits.folds": 3,
    "splits.stratify": True,
    "splits.val_share": 0.25,  # a dozen deaths choose the epoch
    "grid.strategies": ["lstm"],
    "grid.tasks": ["mortality"],
    "training.device": "cpu",
    "strategies.lstm.lr": 0.01,
    "scales.tiny.training.cohorts": ["base"],
    "scales.tiny.training.folds": [0, 1, 2],
    "scales.tiny.training.max_epochs": 12,
    "scales.tiny.training.patience": 12,
}
DRAWS, LEVEL = 20_000, 0.001


def chart_the_label(folder: Path, first: float) -> None:
    """In the raw chartevents, breathing rates that are the label, and no others: every 20 minutes of 12 hours, from
    `first` hours after intime (to the second), of every stay of 48 h and more."""
    icu = folder / "data/raw/synthetic/mimiciv/icu"
    time = pl.col("intime", "outtime", "deathtime").str.to_datetime("%Y-%m-%d %H:%M:%S")
    admissions = pl.read_csv(icu.parent / "hosp/admissions.csv.gz", infer_schema=False).select("hadm_id", "deathtime")
    stays = pl.read_csv(icu / "icustays.csv.gz", infer_schema=False).join(admissions, on="hadm_id").with_columns(time)
    stays = stays.filter(pl.col("outtime") - pl.col("intime") >= pl.duration(hours=48))
    dead = pl.col("deathtime").is_between("intime", "outtime").fill_null(False).cast(pl.Int8).cast(pl.String)
    chart = pl.read_csv(icu / "chartevents.csv.gz", infer_schema=False)
    minutes = pl.DataFrame({"minutes": [round(60 * first) + 20 * i for i in range(36)]})
    charttime = (pl.col("intime") + pl.duration(minutes="minutes")).dt.strftime("%Y-%m-%d %H:%M:%S")
    rows = stays.join(minutes, how="cross").select(
        *("subject_id", "hadm_id", "stay_id"),
        charttime=charttime,
        storetime=charttime,
        itemid=pl.lit(BREATHING[0]),
        value=dead,
        valuenum=dead,
        valueuom=pl.lit("insp/min"),
        warning=pl.lit("0"),
    )
    others = chart.filter(~pl.col("itemid").is_in(BREATHING))
    csvgz.write([pl.concat([others, rows], how="diagonal")], icu / "chartevents.csv.gz")


def above_chance(folder: Path) -> tuple[float, float]:
    """AUROC of the cell's test predictions, and the share of permutations (with the data's own) that reach it."""
    predictions = pl.read_parquet(folder / "data/runs/lstm/mortality/predictions.parquet").filter(part="test")
    labels = pl.read_parquet(folder / "data/cohort/labels.parquet").select(pl.col("stay_id").cast(pl.Int64), LABEL)
    rng = np.random.default_rng(0)
    sums, pairs, least = np.zeros(DRAWS + 1), 0, 0.0
    for _, rows in sorted(predictions.join(labels, on="stay_id").sort("stay_id").group_by("fold")):
        rank, label = rows[f"p_{LABEL}"].rank().to_numpy(), rows[LABEL].to_numpy()
        drawn = rng.permuted(np.tile(label, (DRAWS, 1)), axis=1)
        sums += np.vstack([label, drawn]) @ rank
        positives = int(label.sum())
        least += positives * (positives + 1) / 2
        pairs += positives * (len(label) - positives)
    return (sums[0] - least) / pairs, float((sums >= sums[0]).mean())


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    write_params(folder, patients=450, seed=3, changes=SMALL)
    synthesize(folder)
    return folder


def hospital_with(raw: Path, folder: Path, first: float) -> Path:
    shutil.copytree(raw, folder)
    chart_the_label(folder, first)
    run(folder, *DATA_STAGES)
    return folder


@pytest.fixture(scope="module")
def told(raw, tmp_path_factory):
    """The data of the hospital in which the rows lie in hours 35 to 46."""
    return hospital_with(raw, tmp_path_factory.mktemp("told") / "h", first=35)


@pytest.fixture
def permuted(told, tmp_path):
    """The same, its labels permuted among the stays."""
    shutil.copytree(told, tmp_path / "h", ignore=shutil.ignore_patterns("raw", "runs", "work"))
    path = tmp_path / "h/data/cohort/labels.parquet"
    labels = pl.read_parquet(path)
    order = np.random.default_rng(1).permutation(labels.height)
    labels[order].with_columns(labels["stay_id"]).write_parquet(path)
    return tmp_path / "h"


def test_a_variable_that_equals_the_label_after_hour_48_is_not_found(raw, tmp_path):
    folder = hospital_with(raw, tmp_path / "h", first=48)
    run(folder, "audit", *TRAIN)
    auroc, p = above_chance(folder)
    assert p >= LEVEL, f"AUROC {auroc:.3f} above chance, p = {p:.5f}: the future is among the inputs"


def test_the_same_rows_in_the_window_are_found_and_the_audit_would_have_stopped_them(told):
    with pytest.raises(SystemExit, match="labels_among_inputs: resp_rate or its presence gives the label icu_mort"):
        run(told, "audit")
    run(told, *TRAIN)
    auroc, p = above_chance(told)
    assert p < LEVEL
    assert auroc > 0.9


def test_permuted_labels_are_not_found(permuted):
    with pytest.raises(SystemExit, match="mortality_contradicts_admissions"):
        run(permuted, "audit")
    run(permuted, *TRAIN)
    auroc, p = above_chance(permuted)
    assert p >= LEVEL, f"AUROC {auroc:.3f} above chance, p = {p:.5f}: a model knows labels that nothing tells"


def test_permuted_labels_among_the_inputs_are_found(permuted):
    labels = pl.read_parquet(permuted / "data/cohort/labels.parquet")[LABEL].to_numpy()
    values = np.load(permuted / "data/series/values.npy")
    values[:, 24:, 0] = np.nanmedian(values[:, :, 0]) + 60 * labels[:, None]
    np.save(permuted / "data/series/values.npy", values)
    run(permuted, *TRAIN)
    auroc, p = above_chance(permuted)
    assert p < LEVEL
    assert auroc > 0.9
