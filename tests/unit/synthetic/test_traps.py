"""The planted traps, one by one: in the raw tables at strength 1, not there at 0, and what the pipeline makes of them.

Raw tables are the frames that are written, of some thousand patients, since most traps are differences of rates; one
small hospital goes through the files.
"""

import functools
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from pipeline.closure import ROOT
from pipeline.data.audit.people import dead_at_prediction_time
from pipeline.mimic import cohort, cxr_links, labels, phenotypes
from pipeline.params import Cohort, Synthetic, SyntheticScale, Traps, load
from pipeline.synthetic import administration, diagnoses, hospital, model, studies, traps
from tests.support.prepared import TO_AUDIT, prepare

PLAIN = Synthetic(seed=7, image_missingness=1.0, disparity=1.0, signal=1.0)
NONE = Traps(dead_before_48h=0.0)
TRAPS = tuple(vars(NONE))
WINDOW = pl.duration(hours=48)


@dataclass(frozen=True)
class Drawn:
    """A hospital: what was drawn, and the raw tables that the pipeline looks at, typed as it types them."""

    params: Synthetic
    hospital: hospital.Hospital
    archive: studies.Archive
    rules: Cohort

    @cached_property
    def stays(self) -> pl.DataFrame:
        """All ICU stays as the cohort's rules see them, with the columns of planted.parquet."""
        people = self.hospital.people
        patients, admissions = administration.patients(people), administration.admissions(7, people)
        stays = administration.icustays(people).with_columns(pl.from_epoch("intime"), pl.from_epoch("outtime"))
        times = [pl.from_epoch(name) for name in ("admittime", "dischtime", "deathtime")]
        described = cohort.describe_stays(patients, admissions.with_columns(times), stays, stays["stay_id"])
        truth = hospital.planted(self.params, self.hospital).drop("subject_id", "hadm_id")
        return described.join(truth, on="stay_id").sort("stay_id")

    @cached_property
    def chosen(self) -> pl.DataFrame:
        """The stays that the rules leave."""
        return cohort.apply_rules(self.stays, cohort.rules(self.rules))[0]

    @cached_property
    def metadata(self) -> pl.DataFrame:
        """The metadata of MIMIC-CXR-JPG."""
        clock = pl.col("StudyTime").str.split(".").list.first().str.zfill(6)
        return self.archive.metadata.with_columns(
            study_time=(pl.col("StudyDate").cast(pl.String) + clock).str.to_datetime("%Y%m%d%H%M%S")
        ).rename(
            {"PerformedProcedureStepDescription": "procedure", "ViewPosition": "view_position", "Rows": "rows",
             "Columns": "columns"}
        )  # fmt: skip

    @cached_property
    def links(self) -> cxr_links.Links:
        return cxr_links.link_images(self.metadata, self.chosen, self.rules)

    @cached_property
    def labels(self) -> pl.DataFrame:
        """The chosen stays with their phenotypes, from the billed codes; has_cxr and icd_version beside them."""
        people, drawn = self.hospital.people, self.hospital.phenotypes
        billed = diagnoses.diagnoses_icd(self.params.seed, people.admissions, drawn)
        found = labels.phenotype_labels(self.chosen, phenotypes.classify(billed))
        seen = pl.col("stay_id").is_in(self.links.images["stay_id"].unique().implode())
        return self.chosen.join(found, on="stay_id").join(
            cohort.icd_versions(billed), on="hadm_id", how="left"
        ).with_columns(has_cxr=seen)  # fmt: skip


@functools.cache
def drawn(trap: str, strength: float, patients: int = 3000) -> Drawn:
    params = replace(PLAIN, traps=replace(NONE, **{trap: strength}))
    made = hospital.draw(params, SyntheticScale(patients=patients, image_px=20))
    archive = studies.archive(params, made.people, made.cxr, 20)
    return Drawn(params, made, archive, load(ROOT / "params.yaml").cohort)


def related(first: pl.Series, second: pl.Series) -> float:
    return float(np.corrcoef(first.cast(float), second.cast(float))[0, 1])


def chance_level(rows: int) -> float:
    """A correlation that two unrelated columns hardly ever reach."""
    return 4 / rows**0.5


# Each trap ----------------------------------------------------------------------------------------------------------


def test_dead_before_48h() -> None:
    paper = (pl.col("deathtime") < pl.col("intime") + WINDOW) & (pl.col("outtime") >= pl.col("intime") + WINDOW)
    last = pl.col("place_in_admission") == pl.col("stays_in_admission")
    assert drawn("dead_before_48h", 0.0).stays.filter(paper).is_empty()
    assert drawn("dead_before_48h", 1.0).stays.filter(last).select(paper.all()).item()
    some = drawn("dead_before_48h", 0.3)
    assert some.stays.filter(last).select(paper.fill_null(False).mean()).item() == pytest.approx(0.3, abs=0.03)
    assert some.chosen.filter(paper).is_empty()
    assert some.chosen.height > 500
    careless = [(name, holds) for name, holds in cohort.rules(some.rules) if not name.startswith("alive 48")]
    assert len(careless) == len(cohort.rules(some.rules)) - 1
    kept, _ = cohort.apply_rules(some.stays, careless)
    of_admission = ["deathtime", "dischtime", "hospital_expire_flag"]
    stays = kept.drop(of_admission)
    audited = SimpleNamespace(stays=stays, icustays=stays, admissions=kept.select("subject_id", *of_admission))
    leak = dead_at_prediction_time(cast(Any, audited))
    assert leak is not None
    assert "dead before intime + 48 h" in leak.text


@pytest.mark.parametrize("slug", traps.CODING_LOSS)
def test_coding_loss(slug: str) -> None:
    rate = {}
    for strength in (0.0, 1.0):
        found = drawn("coding_loss", strength).labels
        rate[strength] = dict(found.group_by("icd_version").agg(pl.col(slug).mean()).rows())
    assert rate[0.0][10] == pytest.approx(rate[0.0][9], abs=0.06)
    assert rate[1.0][9] == rate[0.0][9]
    kept = 1 - traps.CODING_LOSS[slug]
    assert rate[1.0][10] / rate[0.0][10] == pytest.approx(kept, abs=0.08)


def test_coding_loss_makes_an_image_tell_a_label_unless_the_coding_is_held() -> None:
    slug = "pleurisy_pneumothorax_pulmonary_collapse"
    plain, lossy = (drawn("coding_loss", strength).labels for strength in (0.0, 1.0))
    assert plain.filter("has_cxr").select((pl.col("icd_version") == 10).mean()).item() < 0.35
    for labelled, low, high in ((plain, 0.85, 1.15), (lossy, 1.4, 2.0)):
        rate = dict(labelled.group_by("has_cxr").agg(pl.col(slug).mean()).rows())
        assert low < rate[True] / rate[False] < high
    held = lossy.filter(pl.col("icd_version") == 9)
    assert abs(related(held["has_cxr"], held[slug])) < chance_level(held.height)


def test_label_by_image_presence() -> None:
    slug = traps.PRESENCE_PHENOTYPE
    assert model.PHENOTYPES[slug].kind == "noise"
    plain, told = (drawn("label_by_image_presence", strength).labels for strength in (0.0, 1.0))
    assert abs(related(plain["has_cxr"], plain[slug])) < chance_level(plain.height)
    assert related(told["has_cxr"], told[slug]) > 0.4
    pictured = told.filter("has_cxr")
    for name in studies.PICTURED:  # what the pictures show tells nothing
        assert abs(related(pictured[f"cxr_{name}"], pictured[slug])) < chance_level(pictured.height), name
    assert pictured[f"p_{slug}"].n_unique() == 1
    others = [name for name in model.PHENOTYPES if name != slug]
    assert told.select(others).equals(plain.select(others))


def test_view_by_severity() -> None:
    share = {}
    for strength in (0.0, 1.0):
        made = drawn("view_by_severity", strength)
        people = made.hospital.people.admissions
        sick = people.select("hadm_id", sick=pl.Series(traps.sick(people)))
        views = made.links.images.join(made.stays.select("stay_id", "hadm_id", "p_icu_mortality"), on="stay_id")
        views = views.join(sick, on="hadm_id").filter(rank=1)
        share[strength] = dict(views.group_by("sick").agg((pl.col("view") == "AP").mean()).rows())
    assert share[0.0][True] == pytest.approx(share[0.0][False], abs=0.06)
    assert share[1.0] == {True: 1.0, False: 0.0}
    ap = views["view"] == "AP"
    assert 0.5 < (ap.mean() or 0) < 0.85
    assert related(ap, views["p_icu_mortality"]) > 0.3
    shown = made.stays.select("stay_id", pl.col("^cxr_.*$")).join(views, on="stay_id")
    for name in studies.PICTURED:  # the findings of either view are alike
        assert abs(related(shown["view"] == "AP", shown[f"cxr_{name}"])) < chance_level(shown.height), name


def test_image_by_finding() -> None:
    plain, tilted = (drawn("image_by_finding", strength).labels for strength in (0.0, 1.0))
    covered = pl.col("p_image") > 0
    before, after = plain.filter(covered), tilted.filter(covered)
    cause = f"z_{traps.FINDING}"
    assert model.CAUSES[traps.FINDING].seen_in == "cxr"
    assert abs(related(before["has_cxr"], before[cause])) < chance_level(before.height)
    assert related(after["has_cxr"], after[cause]) > 0.4
    slug = "pleurisy_pneumothorax_pulmonary_collapse"  # a label of that cause is rarer where no image is
    rate = dict(after.group_by("has_cxr").agg(pl.col(slug).mean()).rows())
    assert rate[True] > rate[False] + 0.1


def test_image_of_two_stays() -> None:
    def shared(made: Drawn) -> pl.DataFrame:
        """Images in the windows of two stays of 48 h and more."""
        long = made.stays.filter(pl.col("los_days") >= 2)
        links = cxr_links.link_images(made.metadata, long, made.rules).images
        return links.filter(pl.len().over("dicom_id") > 1)

    assert shared(drawn("image_of_two_stays", 0.0)).is_empty()
    made = drawn("image_of_two_stays", 1.0)
    pairs = made.hospital.people.stays.filter(pl.col("shares").is_not_null())
    found = shared(made)
    assert pairs.height > 60
    assert set(found["stay_id"]) == set(pairs["stay_id"])
    per_subject = pairs.sort("intime").group_by("subject_id").agg("intime", "outtime", "year", "shares")
    for begin, end, year, shares in per_subject.select("intime", "outtime", "year", "shares").rows():
        assert 0 <= begin[1] - begin[0] < 86400
        assert min(end) - begin[0] >= 48 * 3600
        assert all(2011 <= value <= 2016 for value in year)
        assert shares == ["borrows", "lends"]
    assert made.links.counts["images_in_windows_of_several_stays"] > 0
    plain = drawn("image_of_two_stays", 0.0)
    assert plain.links.counts["images_in_windows_of_several_stays"] == 0


# What holds for all -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trap", TRAPS)
def test_the_planted_truth_stays_right(trap: str) -> None:
    """Labels and images come as often as planted, whatever the coding, the presence of an image and the finding."""
    made = drawn(trap, 0.3 if trap == "dead_before_48h" else 1.0)
    found = made.labels.with_columns(high=pl.col(f"z_{traps.FINDING}") > 0, image=pl.col("has_cxr").cast(float))
    for slug, p in [*((slug, f"p_{slug}") for slug in model.PHENOTYPES), ("image", "p_image")]:
        strata = ["icd_version", "high"] + ([] if slug == "image" else ["has_cxr"])
        rates = found.group_by(strata).agg(
            rows=pl.len(), gap=pl.col(p).mean() - pl.col(slug).mean(), p=pl.col(p).mean()
        )
        for rows, gap, p_mean in rates.filter(pl.col("rows") >= 50).select("rows", "gap", "p").rows():
            assert abs(gap) < 4.5 * (max(p_mean * (1 - p_mean), 0.01) / rows) ** 0.5, slug


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_is_told_where_it_is_planted_and_nowhere_else(trap: str) -> None:
    default = load(ROOT / "params.yaml").synthetic.traps
    assert default == Traps()
    assert traps.describe(default) == {}
    told = traps.describe(replace(default, **{trap: 0.5}))
    assert list(told) == [trap]
    assert told[trap]["strength"] == 0.5
    text = (ROOT / "docs/synthetic-hospital.md").read_text()
    assert f"`{trap}`" in text
    with pytest.raises(ValueError, match=trap):
        replace(default, **{trap: 1.5})


@pytest.fixture(scope="module")
def trapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital with all traps, taken from its files to the audit."""
    planted = Traps(**(dict.fromkeys(TRAPS, 1.0) | {"dead_before_48h": 0.15}))
    folder = tmp_path_factory.mktemp("trapped")
    return prepare(folder, 250, TO_AUDIT, replace(PLAIN, seed=5, traps=planted))


def test_with_all_traps_the_pipeline_finds_no_leak_and_says_what_it_left_out(trapped: Path) -> None:
    counts = json.loads((trapped / "reports/data/cohort.json").read_text())
    steps = dict(pl.read_csv(trapped / "data/cohort/attrition.csv").select("step", "stays").iter_rows())
    assert steps["ICU stay of at least 48 h"] - steps["alive 48 h after ICU admission"] > 10
    assert counts["images"]["images_in_windows_of_several_stays"] not in (0, None)
    assert all(row["passed"] for row in json.loads((trapped / "reports/audit.json").read_text())["checks"])
    assert (trapped / "data/audit.ok").is_file()
    strata = json.loads((trapped / "reports/data/labels.json").read_text())["prevalence_by_icd_version_and_image"]
    assert {(row["icd_version"], row["has_cxr"]) for row in strata} >= {(9, True), (9, False), (10, False)}
    mark = json.loads((trapped / "data/raw/synthetic/mimiciv/SYNTHETIC.json").read_text())
    told = json.loads((trapped / "data/truth/model.json").read_text())
    assert set(mark["parameters"]["traps"]) == set(told["traps"]) == set(TRAPS)


def test_two_stays_with_one_image_are_in_one_part(trapped: Path) -> None:
    links = pl.read_parquet(trapped / "data/cohort/cxr.parquet").filter(pl.len().over("dicom_id") > 1)
    assert links["stay_id"].n_unique() == 2 * links["subject_id"].n_unique() > 0
    placed = links.join(pl.read_parquet(trapped / "data/splits.parquet").drop("subject_id"), on="stay_id")
    assert placed.group_by("dicom_id", "fold").agg(pl.col("part").n_unique())["part"].max() == 1
