"""CareBench's folder read back by the rules of its loader; nothing in it runs when it is read."""

import numpy as np
import polars as pl
import pytest
import yaml

from pipeline.exporting.carebench import describe, inputs, write_carebench
from pipeline.mimic.variables import load_variables
from pipeline.tasks import phenotype_slugs


@pytest.fixture(scope="module")
def there(packed, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "carebench"
    write_carebench(packed, out)
    return out


def test_every_file_is_of_a_kind_that_runs_nothing(there):
    kinds = {path.suffix for path in there.rglob("*") if path.is_file()}
    assert kinds == {".csv", ".parquet", ".yaml", ".npy"}


def test_the_hours_of_a_stay_are_those_that_were_charted_and_a_mask_is_1_where_none_was(packed, there):
    names = yaml.safe_load((there / "splits/features.yaml").read_text())["chartlab_feature"]
    variables = load_variables("core")
    assert len(names) == 27
    assert names[:4] == ["vitalsign_heart_rate", "vitalsign_sbp", "vitalsign_dbp", "vitalsign_mbp"]
    assert [variable.name for variable, name in zip(variables, names, strict=True) if name.startswith("rhythm_")] == [
        *("heart_rhythm", "ectopy_type", "ectopy_frequency", "ectopy_type_secondary", "ectopy_frequency_secondary")
    ]
    values = np.load(packed / "series/values.npy")
    stays = pl.read_parquet(packed / "cohort/stays.parquet")["stay_id"]
    assert len(list((there / "merged").iterdir())) == len(stays)
    for row, stay_id in enumerate(stays):
        frame = pl.read_csv(there / f"merged/{stay_id}.csv", schema_overrides=dict.fromkeys(names, pl.Float32))
        assert frame.columns == ["timestep", *names, *(f"{n}_mask" for n in names if not n.startswith("rhythm_"))]
        assert frame["timestep"].to_list() == list(range(48))
        read = frame.select(pl.col(names).fill_null(float("nan"))).to_numpy()
        rhythm = np.array([name.startswith("rhythm_") for name in names])
        np.testing.assert_array_equal(read[:, ~rhythm], values[row][:, ~rhythm])
        np.testing.assert_array_equal(read[:, rhythm], values[row][:, rhythm] + 1)  # 0 is: none charted
        masks = frame.select(pl.col("^.*_mask$")).to_numpy()
        np.testing.assert_array_equal(masks, np.isnan(values[row][:, ~rhythm]).astype(int))


def test_phenotypes_stand_where_the_loader_looks_and_the_image_is_the_last(packed, there):
    labels = pl.read_parquet(packed / "cohort/labels.parquet")
    cxr = pl.read_parquet(packed / "cohort/cxr.parquet")
    splits = pl.read_parquet(packed / "splits.parquet")
    for fold in (1, 2, 3):
        for part in ("train", "val", "test", "dev"):
            stays = pl.read_parquet(there / f"splits/fold{fold}/stays_{part}.parquet")
            wanted = splits.filter(fold=fold - 1, part=part)["stay_id"].sort()
            assert stays["stay_id"].equals(wanted)
            own = stays.select("stay_id").join(labels, on="stay_id", maintain_order="left")
            assert stays.columns[-26] == "Acute and unspecified renal failure"
            assert (
                stays[:, -26:-1].to_numpy().tolist() == own.select(phenotype_slugs()).cast(pl.Int8).to_numpy().tolist()
            )
            assert stays["icu_mortality"].to_list() == own["icu_mortality"].cast(pl.Int8).to_list()
            assert set(stays["race"]) == {"WHITE - RUSSIAN"}
            for row in stays.iter_rows(named=True):
                images = cxr.filter(stay_id=row["stay_id"]).sort("rank", descending=True)
                assert row["valid_cxrs"] == images.select("dicom_id", "cxr_time").to_dicts()
    two = pl.read_parquet(there / "stays_meta_with_labels.parquet").filter(pl.col("valid_cxrs").list.len() == 2)
    assert [images[-1]["dicom_id"][-1] for images in two["valid_cxrs"]] == ["1"] * two.height
    assert two.height > 3


def test_statistics_are_of_the_training_stays_alone(packed, there):
    values, stays = np.load(packed / "series/values.npy"), pl.read_parquet(packed / "cohort/stays.parquet")
    train = pl.read_parquet(there / "splits/fold2/stays_train.parquet")["stay_id"]
    rate = values[stays["stay_id"].is_in(train.implode()).to_numpy(), :, 0].astype(float)
    told = yaml.safe_load((there / "splits/fold2/train_stats.yaml").read_text())
    assert told["vitalsign_heart_rate"] == {
        "iqr": pytest.approx(np.subtract(*np.percentile(rate, [75, 25]))),
        "max": pytest.approx(rate.max()),
        "mean": pytest.approx(rate.mean()),
        "median": pytest.approx(np.median(rate)),
        "min": pytest.approx(rate.min()),
        "std": pytest.approx(rate.std()),
        "normalize": True,
    }
    assert told["vitalsign_spo2"] == dict.fromkeys(("iqr", "max", "mean", "median", "min", "std")) | {
        "normalize": False
    }
    assert told["rhythm_heart_rhythm"]["normalize"] is False
    assert told["rhythm_heart_rhythm"]["min"] >= 1


def test_model_input_is_filled_scaled_and_masked_as_by_hand():
    nan = np.nan
    values = np.array([[[nan, nan, nan], [4.0, nan, 0.0], [nan, nan, nan], [8.0, nan, 2.0]]], np.float32)
    names = ["vitalsign_sbp", "vitalsign_spo2", "rhythm_heart_rhythm"]
    told = {name: describe(values[0, :, i], name) for i, name in enumerate(names)}
    assert (told["vitalsign_sbp"]["median"], told["vitalsign_sbp"]["iqr"]) == (6.0, 2.0)
    assert inputs(values, names, told).tolist() == [
        [[0.0, 0.0, 0.0, 1.0, 1.0], [-1.0, 0.0, 1.0, 0.0, 1.0], [-1.0, 0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 3.0, 0.0, 1.0]]
    ]


def test_a_feature_that_never_varies_is_centred_only():
    values = np.full((1, 4, 1), 7.0, np.float32)
    told = {"vitalsign_sbp": describe(values[0, :, 0], "vitalsign_sbp")}
    assert inputs(values + 1, ["vitalsign_sbp"], told)[0, :, 0].tolist() == [1.0] * 4


def test_arrays_are_those_of_the_stays_beside_them_and_load_without_pickle(packed, there):
    values, stays = np.load(packed / "series/values.npy"), pl.read_parquet(packed / "cohort/stays.parquet")
    below = there / "splits/fold1"
    names = yaml.safe_load((there / "splits/features.yaml").read_text())["chartlab_feature"]
    told = yaml.safe_load((below / "train_stats.yaml").read_text())
    for part in ("train", "val", "test", "dev"):
        array = np.load(below / f"ehr_{part}.npy", allow_pickle=False)
        ids = pl.read_parquet(below / f"stays_{part}.parquet")["stay_id"]
        rows = [stays["stay_id"].index_of(stay) for stay in ids]
        assert array.shape == (len(rows), 48, 49)
        np.testing.assert_array_equal(array, inputs(values[rows], names, told))
        assert np.isfinite(array).all()
