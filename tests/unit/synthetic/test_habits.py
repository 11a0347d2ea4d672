"""The habits of the real files that the synthetic hospital shares with them, one by one."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import polars as pl
import pytest

from pipeline.params import Synthetic, SyntheticScale
from pipeline.synthetic import hospital, studies

WINDOW = pl.duration(hours=48)


class Files:
    """The tables of a hospital as text, and what several habits need of them."""

    def __init__(self, folder: Path) -> None:
        self.table = {
            path.name.removesuffix(".csv.gz").removeprefix("mimic-cxr-2.0.0-"): pl.read_csv(path, infer_schema_length=0)
            for path in folder.rglob("*.csv.gz")
        }

    def __getitem__(self, name: str) -> pl.DataFrame:
        return self.table[name]

    def chart(self, *items: int) -> pl.DataFrame:
        """Rows of chartevents, with numbers parsed as `x`."""
        rows = self["chartevents"].filter(pl.col("itemid").is_in([str(item) for item in items]))
        return rows.with_columns(pl.col("valuenum").cast(float).alias("x"))

    @cached_property
    def stays(self) -> pl.DataFrame:
        """ICU stays with their admission's and patient's columns, times parsed, and age."""
        frame = self["icustays"].join(self["admissions"].drop("subject_id"), on="hadm_id")
        frame = frame.join(self["patients"], on="subject_id").with_columns(
            pl.col("intime", "outtime", "deathtime", "dischtime").str.to_datetime("%Y-%m-%d %H:%M:%S"),
            pl.col("los").cast(float),
            pl.col("anchor_age", "anchor_year").cast(int),
        )
        age = pl.col("anchor_age") + pl.col("intime").dt.year() - pl.col("anchor_year")
        return frame.with_columns(age.alias("age"), pl.len().over("hadm_id").alias("stays"))

    @cached_property
    def images(self) -> pl.DataFrame:
        """Images of subjects with an ICU stay, by stay; `taken` is parsed as the real files ask for."""
        clock = pl.col("StudyTime").str.split(".").list.first().str.zfill(6)
        taken = (pl.col("StudyDate") + clock).str.to_datetime("%Y%m%d%H%M%S").alias("taken")
        return self["metadata"].with_columns(taken).join(
            self.stays.select("subject_id", "stay_id", "intime", "outtime"), on="subject_id"
        )  # fmt: skip

    def share(self, table: str, condition: pl.Expr) -> float:
        """Share of a table's rows for which a condition holds."""
        return float(self[table].select(condition.mean()).item() or 0)

    def any(self, table: str, condition: pl.Expr) -> bool:
        """Whether a condition holds for a row of a table."""
        return bool(self[table].select(condition.any()).item())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("habits")
    params = Synthetic(seed=7, image_missingness=1.0, disparity=1.0, signal=1.0)
    hospital.write(folder / "raw", folder, params=params, scale=SyntheticScale(patients=400, image_px=20), workers=1)
    return Files(folder)


def holds(column: pl.Series, *values: str) -> bool:
    """Whether each of the values occurs."""
    return all((column == value).any() for value in values)


def minutes_from_death_to_outtime(files: Files) -> pl.Series:
    return (files.stays["outtime"] - files.stays["deathtime"]).dt.total_minutes().drop_nulls()


def charted_before_intime(files: Files) -> float:
    rows = files["chartevents"].join(files["icustays"].select("stay_id", "intime"), on="stay_id")
    return float((rows["charttime"] < rows["intime"]).mean() or 0)


def height_before_intime(files: Files) -> float:
    rows = files.chart(226707, 226730).join(files["icustays"].select("stay_id", "intime"), on="stay_id")
    return float((rows["charttime"] < rows["intime"]).mean() or 0)


def studies_in_a_window(files: Files) -> pl.Series:
    inside = files.images.filter(pl.col("taken").is_between("intime", pl.col("intime") + WINDOW))
    return inside.group_by("stay_id").agg(pl.col("study_id").n_unique())["study_id"]


def labels_that_differ(files: Files) -> float:
    pairs = [(files["chexpert"][name].fill_null(""), files["negbio"][name].fill_null("")) for name in studies.LABELS]
    return sum(float((first != second).mean() or 0) for first, second in pairs) / len(pairs)


view, text, number = pl.col("ViewPosition"), pl.col("PerformedProcedureStepDescription"), pl.col("StudyTime")
item, code = pl.col("itemid"), pl.col("icd_code")
died_early = (pl.col("deathtime") <= pl.col("intime") + WINDOW) & (pl.col("los") >= 2)
LATER = ["I4820", "I4819", "I4811", "N1830", "N1832", "E8720", "E8721"]

HABITS: dict[str, Callable[[Files], bool]] = {
    "readmissions": lambda f: (f["admissions"]["subject_id"].value_counts()["count"] > 2).any(),
    "several stays in an admission": lambda f: (f.stays["stays"] > 1).any(),
    "admissions without a stay": lambda f: len(set(f["admissions"]["hadm_id"]) - set(f["icustays"]["hadm_id"])) > 5,
    "unit transfers": lambda f: 0.02 < f.share("icustays", pl.col("first_careunit") != pl.col("last_careunit")) < 0.2,
    "patients under 18": lambda f: (f.stays["age"] < 18).any(),
    "ages above 89 are 91": lambda f: f["patients"]["anchor_age"].cast(int).max() == 91,
    "age at the stay is not anchor_age": lambda f: (f.stays["age"] != f.stays["anchor_age"]).mean() > 0.2,
    "deaths in the ICU": lambda f: (f.stays["deathtime"] <= f.stays["outtime"]).any(),
    "deaths after the ICU": lambda f: (f.stays["deathtime"] > f.stays["outtime"]).any(),
    "dead before hour 48, out after it": lambda f: f.stays.select(died_early.any()).item(),
    "out, on paper, hours after death": lambda f: (minutes_from_death_to_outtime(f) > 60).any(),
    "discharge at the midnight before death": lambda f: (f.stays["dischtime"] < f.stays["deathtime"]).any(),
    "dod is a date": lambda f: f["patients"]["dod"].drop_nulls().str.contains(r"^\d{4}-\d\d-\d\d$").all(),
    "stays of hours and of weeks": lambda f: f.stays["los"].min() < 0.5 and f.stays["los"].max() > 14,
    "both ICD versions": lambda f: holds(f["diagnoses_icd"]["icd_version"], "9", "10"),
    "one ICD version an admission": lambda f: (
        f["diagnoses_icd"].group_by("hadm_id").agg(pl.col("icd_version").n_unique())["icd_version"].max() == 1
    ),
    "leading zeros in codes": lambda f: f.any("diagnoses_icd", code.str.contains(r"^0\d+$")),
    "codes created later": lambda f: f.any("diagnoses_icd", code.is_in(LATER)),
    "codes that HCUP's tables lack": lambda f: f.any("diagnoses_icd", code.is_in([*LATER, "Z20822"])),
    "intubated verbal score": lambda f: 0.1 < (f.chart(223900)["value"] == "No Response-ETT").mean() < 0.6,
    "which is numbered 1": lambda f: (f.chart(223900).filter(pl.col("value") == "No Response-ETT")["x"] == 1).all(),
    "the text None, score 1": lambda f: (f.chart(220739).filter(pl.col("value") == "None")["x"] == 1).any(),
    "the text None, no ectopy": lambda f: (f.chart(224650)["value"] == "None").mean() > 0.5,
    "trailing blanks in rhythms": lambda f: f.chart(220048)["value"].str.ends_with(" ").any(),
    "rhythms have no number": lambda f: f.chart(220048, 224650, 224651)["x"].is_null().all(),
    "second ectopy": lambda f: f.chart(226479).height > 0 and f.chart(226480).height > 0,
    "Fahrenheit and Celsius": lambda f: f.chart(223761).height > f.chart(223762).height > 0,
    "Fahrenheit under the Celsius item": lambda f: (f.chart(223762)["x"] > 60).any(),
    "three sources of blood pressure": lambda f: all(f.chart(i).height for i in (220050, 220179, 225309)),
    "out-of-range charting": lambda f: (f.chart(220045)["x"] > 300).any(),
    "warnings": lambda f: 0 < f.share("chartevents", pl.col("warning") == "1") < 0.01,
    "charted before intime": lambda f: 0 < charted_before_intime(f) < 0.02,
    "charted off the hour": lambda f: f.share("chartevents", ~pl.col("charttime").str.ends_with(":00:00")) > 0.03,
    "stored later": lambda f: f.share("chartevents", pl.col("storetime") >= pl.col("charttime")) == 1,
    "weights in kg and lbs, daily": lambda f: all(f.chart(i).height for i in (226512, 226531, 224639)),
    "heights from before intime": lambda f: height_before_intime(f) > 0.5,
    "inches under the item for centimetres": lambda f: (f.chart(226730)["x"] < 90).any(),
    "oxygen as a fraction or a flow": lambda f: (f.chart(223835)["x"] < 20).any(),
    "tubes, masks and modes of two ventilators": lambda f: (
        holds(f.chart(226732)["value"], "Endotracheal tube", "Nasal cannula", "None", "Bipap mask ")
        and holds(f.chart(223849)["value"], "CPAP/PSV", "Standby")
        and holds(f.chart(229314)["value"], "APV (cmv)")
    ),
    "urine by several routes": lambda f: holds(f["outputevents"]["itemid"], "226559", "226560", "226561"),
    "irrigation in and out": lambda f: holds(f["outputevents"]["itemid"], "227488", "227489"),
    "outputs that are no urine": lambda f: holds(f["outputevents"]["itemid"], "226588", "226627"),
    "labs without hadm_id": lambda f: 0.15 < f.share("labevents", pl.col("hadm_id").is_null()) < 0.4,
    "labs without storetime": lambda f: 0 < f.share("labevents", pl.col("storetime").is_null()) < 0.05,
    "blotted lab results": lambda f: 0 < f.share("labevents", pl.col("value") == "___") < 0.05,
    "lab results without a number": lambda f: 0 < f.share("labevents", pl.col("valuenum").is_null()) < 0.02,
    "which stands as a bound in the comment": lambda f: f.any(
        "labevents",
        pl.col("value").is_null() & pl.col("valuenum").is_null() & pl.col("comments").str.contains(r"^<0\.01\.$"),
    ),
    "lost zeros of StudyTime": lambda f: f.any("metadata", number.str.contains(r"^\d{1,5}\.\d")),
    "fractions of StudyTime": lambda f: f.share("metadata", number.str.contains(r"^\d+\.\d+$")) == 1,
    "null views that resolve": lambda f: f.any(
        "metadata", view.is_null() & text.is_in(["CHEST (PA)", studies.PORTABLE])
    ),
    "null views that do not": lambda f: f.any("metadata", view.is_null() & (text == studies.PA_LAT)),
    "laterals and odd views": lambda f: holds(f["metadata"]["ViewPosition"], "LATERAL", "AP AXIAL", "LL"),
    "several studies in a window": lambda f: (studies_in_a_window(f) > 1).any(),
    "several images in a study": lambda f: (f["metadata"]["study_id"].value_counts()["count"] > 1).any(),
    "studies with equal times": lambda f: (
        f.images.group_by("stay_id", "taken").agg(pl.col("study_id").n_unique())["study_id"].max() > 1
    ),
    "images before a stay": lambda f: (f.images["taken"] < f.images["intime"]).any(),
    "images after the window, in the stay": lambda f: f.images.select(
        (pl.col("taken") > pl.col("intime") + WINDOW).and_(pl.col("taken") < pl.col("outtime")).any()
    ).item(),
    "images after a stay": lambda f: (f.images["taken"] > f.images["outtime"]).any(),
    "images of strangers": lambda f: len(set(f["metadata"]["subject_id"]) - set(f["patients"]["subject_id"])) > 0,
    "stays without any image": lambda f: len(set(f["icustays"]["subject_id"]) - set(f["metadata"]["subject_id"])) > 50,
    "labels affirmed, denied, uncertain": lambda f: holds(f["chexpert"]["Pneumonia"], "1.0", "0.0", "-1.0"),
    "labels that are silent": lambda f: f.share("chexpert", pl.col("Pneumonia").is_null()) > 0.3,
    "studies without a label row": lambda f: f["metadata"]["study_id"].n_unique() > f["chexpert"].height,
    "NegBio differs a little": lambda f: 0 < labels_that_differ(f) < 0.05,
    "portrait": lambda f: f.any("metadata", pl.col("Rows").cast(int) > pl.col("Columns").cast(int)),
    "landscape": lambda f: f.any("metadata", pl.col("Rows").cast(int) < pl.col("Columns").cast(int)),
}


@pytest.mark.parametrize("habit", HABITS)
def test_habit(habit: str, files: Files) -> None:
    assert HABITS[habit](files)
