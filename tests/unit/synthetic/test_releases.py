"""MIMIC-IV 3.1 and MIMIC-CXR-JPG 2.1.0: the synthetic hospital in their layouts, and the same cohort from either."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from pipeline.errors import InputError
from pipeline.mimic import schema
from pipeline.mimic.manifest import load_manifest, recognise
from pipeline.params import Synthetic, SyntheticRelease, load
from pipeline.synthetic import releases
from tests.support.prepared import TO_SERIES, prepare

OLD, NEW = SyntheticRelease("2.2", "2.0.0"), SyntheticRelease("3.1", "2.1.0")
SEED = 11
KEYS = {"hosp/patients": "subject_id", "hosp/admissions": "hadm_id", "icu/icustays": "stay_id"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict[SyntheticRelease, Path]:
    """The same small hospital in either layout, each taken to the series."""
    return {
        release: prepare(tmp_path_factory.mktemp("release"), 90, TO_SERIES, Synthetic(SEED, 1.0, 1.0, 1.0, release))
        for release in (OLD, NEW)
    }


def raw(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_csv(folder / f"data/raw/synthetic/mimiciv/{name}.csv.gz", infer_schema_length=0)


def header(path: Path) -> list[str]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        return next(csv.reader(file))


def test_the_manifest_says_which_release(both: dict[SyntheticRelease, Path]) -> None:
    for release, folder in both.items():
        manifest = load_manifest(folder / "data/manifest.json")
        assert manifest["mimiciv"]["release"] == f"synthetic hospital (MIMIC-IV {release.mimiciv})"
        assert manifest["mimic_cxr"]["release"] == f"synthetic hospital (MIMIC-CXR-JPG {release.mimic_cxr})"
        assert {part["kind"] for part in manifest.values()} == {"synthetic"}


@pytest.mark.parametrize(
    ("release", "names"),
    [(OLD, {"MIMIC-IV 2.2", "MIMIC-CXR-JPG 2.0.0"}), (NEW, {"MIMIC-IV 3.1", "MIMIC-CXR-JPG 2.1.0"})],
)
def test_without_its_mark_a_layout_is_recognised_by_the_rows_of_the_real_release(
    both: dict[SyntheticRelease, Path], release: SyntheticRelease, names: set[str], tmp_path: Path
) -> None:
    """Each real release has counts of its own; a synthetic one has none of them."""
    manifest, found = load_manifest(both[release] / "data/manifest.json"), set()
    for database, folder in (("mimiciv", "mimiciv"), ("mimic_cxr", "mimic-cxr-jpg")):
        root = tmp_path / folder
        root.mkdir()
        for path in (both[release] / "data/raw/synthetic" / folder).iterdir():
            if path.name != "SYNTHETIC.json":
                (root / path.name).symlink_to(path)
        files = manifest[database]["files"]
        with pytest.raises(InputError, match="not a release that is known"):
            recognise(database, root, files, False)
        real = next(r for r in schema.RELEASES[database] if r.name in names or database == "mimic_cxr")
        counted = {name: {"rows": real.rows.get(name.removesuffix(".csv.gz"), 1)} for name in files}
        assert set(real.rows) <= {name.removesuffix(".csv.gz") for name in files}
        found.add(recognise(database, root, counted, False)[0])
    assert found == names


def test_tables_columns_and_their_order_are_the_same_in_both(both: dict[SyntheticRelease, Path]) -> None:
    def headers(folder: Path) -> dict[str, list[str]]:
        root = folder / "data/raw/synthetic"
        return {path.relative_to(root).as_posix(): header(path) for path in root.rglob("*.csv*")}

    old, new = headers(both[OLD]), headers(both[NEW])
    labeled = new.pop("mimic-cxr-jpg/mimic-cxr-2.1.0-test-set-labeled.csv")
    assert new == old
    findings = {name.replace("Lung Opacity", "Airspace Opacity") for name in schema.FINDINGS}
    assert labeled[0] == "study_id"
    assert set(labeled[1:]) == findings
    assert schema.CXR_MARK_OF_2_1_0 == releases.LABELED_FILE


def test_2_1_0_adds_two_files_and_leaves_the_others(both: dict[SyntheticRelease, Path]) -> None:
    old, new = (both[release] / "data/raw/synthetic/mimic-cxr-jpg" for release in (OLD, NEW))
    names = {path.relative_to(new).as_posix() for path in new.rglob("*") if path.is_file()}
    before = {path.relative_to(old).as_posix() for path in old.rglob("*") if path.is_file()}
    assert names - before == {"IMAGE_FILENAMES", releases.LABELED_FILE}
    assert before <= names
    for name in before - {"SYNTHETIC.json"}:
        assert (old / name).read_bytes() == (new / name).read_bytes(), name
    listed = (new / "IMAGE_FILENAMES").read_text().splitlines()
    assert sorted(listed) == sorted(name for name in names if name.endswith(".jpg"))


def test_test_studies_are_labeled_by_radiologists(tmp_path: Path) -> None:
    seen = {name: [1.0, None] for name in schema.FINDINGS}
    chexpert = pl.DataFrame({"subject_id": [1, 2], "study_id": [8, 9]} | seen)
    split = pl.DataFrame({"study_id": [9, 9, 8], "split": ["test", "test", "train"]})
    releases.add_2_1_0(tmp_path, ["files/p10/a.jpg"], split, chexpert.with_columns(Fracture=pl.Series([0.0, -1.0])))
    (row,) = csv.DictReader((tmp_path / releases.LABELED_FILE).read_text().splitlines())
    assert {name: value for name, value in row.items() if value} == {"study_id": "9", "Fracture": "-1"}


def test_3_1_keeps_the_rows_of_2_2_and_adds_patients_of_2020_to_2022(both: dict[SyntheticRelease, Path]) -> None:
    changed = {"hosp/admissions": {"insurance", "language", "deathtime"}, "hosp/patients": {"dod"}}
    for name, key in KEYS.items():
        old, new = raw(both[OLD], name), raw(both[NEW], name)
        assert new[key].is_unique().all()
        kept = new.join(old, on=key, how="semi", maintain_order="left")
        same = [column for column in old.columns if column not in changed.get(name, ())]
        assert kept.select(same).equals(old.select(same)), name
        assert old.height < new.height
    patients = raw(both[NEW], "hosp/patients").join(raw(both[OLD], "hosp/patients"), on="subject_id", how="anti")
    assert patients.height == 20
    assert patients["anchor_year_group"].unique().to_list() == ["2020 - 2022"]
    for name in ("hosp/labevents", "icu/chartevents", "icu/outputevents", "hosp/diagnoses_icd", "hosp/transfers"):
        old, new = raw(both[OLD], name), raw(both[NEW], name)
        assert new.head(old.height).equals(old), name
        assert set(new.tail(new.height - old.height)["subject_id"]) <= set(patients["subject_id"]), name
    assert raw(both[NEW], "hosp/labevents")["labevent_id"].is_unique().all()
    assert raw(both[NEW], "hosp/transfers")["transfer_id"].is_unique().all()


def test_3_1_tells_insurance_and_language_more_finely(both: dict[SyntheticRelease, Path]) -> None:
    joined = raw(both[OLD], "hosp/admissions").join(raw(both[NEW], "hosp/admissions"), on="hadm_id", suffix="_new")
    told = joined.group_by("insurance").agg(pl.col("insurance_new").unique())
    finer = {old: set(new) for old, new in told.rows()}
    assert finer.pop("Other") <= {"Private", "Other", "No charge", None}
    assert finer == {"Medicare": {"Medicare"}, "Medicaid": {"Medicaid"}}
    assert joined.filter(pl.col("language") == "ENGLISH")["language_new"].unique().to_list() == ["English"]
    assert (joined.filter(pl.col("language") == "?")["language_new"].fill_null("") != "English").all()


def test_3_1_has_deaths_without_a_time_and_a_dod_that_is_off() -> None:
    n = 400
    tables = {
        "hosp/admissions": pl.DataFrame(
            {
                "subject_id": range(n), "insurance": ["Other"] * n, "language": ["?"] * n,
                "dischtime": [100] * n, "deathtime": [100 if i % 2 else 90 for i in range(n)],
                "hospital_expire_flag": [1] * n,
            }
        ),
        "hosp/patients": pl.DataFrame({"subject_id": range(n), "dod": pl.Series([5] * n, dtype=pl.Int32)}),
    }  # fmt: skip
    told = releases.as_3_1(1, tables)
    silent = told["hosp/admissions"].with_row_index("i").filter(pl.col("deathtime").is_null())
    assert 0 < silent.height < 40
    assert (silent["i"] % 2 == 1).all()  # only where dischtime says the same
    off = told["hosp/patients"]["dod"] - 5
    assert set(off.unique()) == {0, 2, 3, 4, 5, 6, 7}
    assert 0 < (off > 0).sum() < 50


def test_both_give_the_same_cohort_labels_links_and_series(both: dict[SyntheticRelease, Path]) -> None:
    """3.1 adds stays of 2020 - 2022, none of them with an image, and tells insurance more finely: nothing else."""
    stays = {release: pl.read_parquet(folder / "data/cohort/stays.parquet") for release, folder in both.items()}
    old, new = stays[OLD], stays[NEW]
    assert old.height > 20
    assert old["has_cxr"].sum() > 3
    kept = new.join(old, on="stay_id", how="semi", maintain_order="left")
    assert kept.drop("insurance").equals(old.drop("insurance"))
    added = new.join(old, on="stay_id", how="anti")
    assert added.height > 0
    assert added["era"].unique().to_list() == ["2020 - 2022"]
    assert added["cxr_status"].unique().to_list() == ["not_collectable"]
    assert added["icd_version"].unique().to_list() == [10]
    assert "2020 - 2022" not in old["era"]
    for name in ("cohort/labels", "series/hourly"):
        before, after = (pl.read_parquet(both[release] / f"data/{name}.parquet") for release in (OLD, NEW))
        assert after.join(old, on="stay_id", how="semi", maintain_order="left").equals(before), name
    links = [(both[release] / "data/cohort/cxr.parquet").read_bytes() for release in (OLD, NEW)]
    assert links[0] == links[1]
    packed = {release: np.load(folder / "data/series/values.npy") for release, folder in both.items()}
    rows = new["stay_id"].is_in(old["stay_id"].implode()).to_numpy()
    np.testing.assert_array_equal(packed[NEW][rows], packed[OLD])


def test_the_truth_has_every_stay_of_either(both: dict[SyntheticRelease, Path]) -> None:
    old, new = (pl.read_parquet(both[release] / "data/truth/planted.parquet") for release in (OLD, NEW))
    assert new["stay_id"].to_list() == sorted(raw(both[NEW], "icu/icustays")["stay_id"].cast(int))
    assert new.join(old, on="stay_id", how="semi", maintain_order="left").equals(old)
    assert new.join(old, on="stay_id", how="anti")["p_image"].unique().to_list() == [0.0]
    assert json.loads((both[OLD] / "data/truth/model.json").read_text()) == json.loads(
        (both[NEW] / "data/truth/model.json").read_text()
    )


@pytest.mark.parametrize("text", ["3.1", "'3.1'", '"3.1"'])
def test_a_release_may_be_written_as_a_number(tmp_path: Path, root: Path, text: str) -> None:
    """`dvc exp run -S synthetic.release.mimiciv=3.1` writes a number to params.yaml."""
    path = tmp_path / "params.yaml"
    path.write_text((root / "params.yaml").read_text().replace("    mimiciv: '2.2'", f"    mimiciv: {text}"))
    assert load(path).synthetic.release.mimiciv == "3.1"
    content = yaml.safe_load(path.read_text())
    content["synthetic"]["release"]["mimiciv"] = 3.2
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"synthetic\.release\.mimiciv: must be one of 2\.2, 3\.1; is 3\.2"):
        load(path)
