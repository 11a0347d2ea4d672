"""Writes the synthetic hospital: the MIMIC-IV and MIMIC-CXR-JPG trees, and the planted truth beside them.

Everything is a function of the params and the scale: the same bytes on every run, whatever the number of workers. The
trees are built in a folder beside the target, which takes the target's place at the end.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from pipeline import files
from pipeline.errors import InputError
from pipeline.params import Synthetic, SyntheticScale
from pipeline.synthetic import (
    administration,
    charting,
    csvgz,
    darkroom,
    diagnoses,
    fluids,
    items,
    labs,
    model,
    people,
    releases,
    studies,
    traps,
)
from pipeline.synthetic.streams import Floats, Ints, stream
from pipeline.tasks import LOS_EDGES, phenotype_slugs

log = logging.getLogger(__name__)
MARKER = "SYNTHETIC.json"
BLOCK = 256  # stays charted at a time
TIMES = {
    "hosp/admissions": ("admittime", "dischtime", "deathtime", "edregtime", "edouttime"),
    "hosp/transfers": ("intime", "outtime"),
    "hosp/services": ("transfertime",),
    "hosp/labevents": ("charttime", "storetime"),
    "icu/icustays": ("intime", "outtime"),
    "icu/outputevents": ("charttime", "storetime"),
    "icu/inputevents": ("starttime", "endtime", "storetime"),
    "icu/procedureevents": ("starttime", "endtime", "storetime"),
}
DATES = {"hosp/patients": ("dod",), "hosp/omr": ("chartdate",)}


@dataclasses.dataclass(frozen=True)
class Hospital:
    """What was drawn of a group of patients, and its seed: people, what each modality shows of the causes (by row of
    admissions), phenotypes."""

    seed: int
    people: people.People
    ehr: dict[str, Floats]
    cxr: dict[str, Floats]
    phenotypes: pl.DataFrame


def draw(params: Synthetic, scale: SyntheticScale) -> Hospital:
    """Draw patients, stays, causes and labels: the hospital of MIMIC-IV 2.2."""
    return _draw(params, scale.patients, people.UNTIL_2019, people.NO_IDS)


def draw_newcomers(params: Synthetic, scale: SyntheticScale, taken: Ints) -> Hospital:
    """Draw the patients that MIMIC-IV 3.1 adds; `taken`: ids that are not theirs."""
    count = max(20, round(scale.patients * releases.NEWCOMERS))
    params = dataclasses.replace(params, seed=releases.newcomers_seed(params.seed))
    return _draw(params, count, people.UNTIL_2022, taken)


def _draw(params: Synthetic, count: int, years: people.Years, taken: Ints) -> Hospital:
    drawn = people.populate(params, count, years, taken)
    pictured = drawn.stays.filter(pl.Series(studies.pictured(params, drawn.stays), dtype=pl.Boolean))["hadm_id"]
    gender = drawn.admissions["gender"].to_numpy()
    share = model.image_signal(gender, params.disparity)
    ehr: dict[str, Floats] = {}
    cxr: dict[str, Floats] = {}
    for name, cause in model.CAUSES.items():
        value = drawn.admissions[f"z_{name}"].to_numpy()
        if cause.seen_in != "cxr":
            ehr[name] = people.shows(stream(params.seed, "shown", "ehr", name), value, name, model.EHR_NOISE)
        if cause.seen_in != "ehr":
            cxr[name] = people.shows(stream(params.seed, "shown", "cxr", name), value, name, model.CXR_NOISE, share)
    seen = drawn.admissions["hadm_id"].is_in(pictured.implode()).to_numpy()
    return Hospital(params.seed, drawn, ehr, cxr, diagnoses.draw_phenotypes(params, drawn.admissions, seen))


def write(folder: Path, truth: Path, *, params: Synthetic, scale: SyntheticScale, workers: int) -> dict[str, int]:
    """Write `folder`/mimiciv and /mimic-cxr-jpg, `truth`/planted.parquet and /model.json; returns rows per file.

    A hospital that stands there already is replaced. Raises InputError where `folder` holds something else.
    """
    folder, truth = Path(folder), Path(truth)
    _refuse_foreign(folder)
    hospitals = [draw(params, scale)]
    archive = studies.archive(params, hospitals[0].people, hospitals[0].cxr, scale.image_px)
    if params.release.mimiciv == "3.1":
        hospitals.append(draw_newcomers(params, scale, _ids(hospitals[0].people, archive)))
    with files.scratch(folder) as beside:
        root = beside / "mimic-cxr-jpg"
        with darkroom.developing(root, archive.shots, workers):
            rows = {
                name: csvgz.write([table], root / f"mimic-cxr-2.0.0-{name}.csv.gz")
                for name, table in _cxr_tables(archive).items()
            }
            rows |= _write_mimiciv(beside / "mimiciv", params, hospitals, archive)
            if params.release.mimic_cxr == "2.1.0":
                releases.add_2_1_0(root, [shot.path for shot in archive.shots], archive.split, archive.chexpert)
        rows["images"] = len(archive.shots)
        for name, release in (("mimiciv", params.release.mimiciv), ("mimic-cxr-jpg", params.release.mimic_cxr)):
            files.write_json(_mark(releases.NAMES[name], release, params, scale), beside / name / MARKER)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
    truths = pl.concat([planted(params, hospital) for hospital in hospitals]).sort("stay_id")
    files.write_parquet(files.significant(truths), truth / "planted.parquet")
    described = traps.describe(params.traps)
    files.write_json(model.describe(params) | ({"traps": described} if described else {}), truth / "model.json")
    log.info("%d patients, %d stays, %d images", rows["hosp/patients"], truths.height, len(archive.shots))
    return rows


def _ids(drawn: people.People, archive: studies.Archive) -> Ints:
    """All ids of subjects (also those whom only the pictures know), admissions and stays."""
    columns = (drawn.patients["subject_id"], archive.metadata["subject_id"], drawn.admissions["hadm_id"])
    return pl.concat([*columns, drawn.stays["stay_id"]]).unique().to_numpy()


def _mark(imitates: str, release: str, params: Synthetic, scale: SyntheticScale) -> dict[str, Any]:
    """The content of SYNTHETIC.json; `traps` is there where any is planted."""
    told = dataclasses.asdict(params) | dataclasses.asdict(scale) | {"traps": traps.planted(params.traps)}
    del told["release"]
    if not told["traps"]:
        del told["traps"]
    return {
        "generator": "pipeline.synthetic",
        "version": model.VERSION,
        "imitates": imitates,
        "release": release,
        "seed": params.seed,
        "parameters": told,
    }


def _refuse_foreign(folder: Path) -> None:
    """InputError unless `folder` is absent, empty, or holds nothing but a synthetic hospital."""
    if folder.exists():
        for path in folder.iterdir():
            if path.name not in releases.NAMES or (any(path.iterdir()) and not (path / MARKER).is_file()):
                raise InputError(f"{folder}: holds {path.name}, which is no synthetic hospital; not replaced")


def _cxr_tables(archive: studies.Archive) -> dict[str, pl.DataFrame]:
    return {name: getattr(archive, name) for name in ("metadata", "split", "chexpert", "negbio")}


def _write_mimiciv(
    root: Path, params: Synthetic, hospitals: Sequence[Hospital], archive: studies.Archive
) -> dict[str, int]:
    wards = [_Ward.of(hospital) for hospital in hospitals]
    tables = releases.join([_tables(ward, archive.ordered) for ward in wards])
    if params.release.mimiciv == "3.1":
        tables = releases.as_3_1(params.seed, tables)
    used = set(items.ITEMS) if tables["icu/icustays"].height else set()
    tables |= {
        "hosp/d_icd_diagnoses": diagnoses.d_icd_diagnoses(tables["hosp/diagnoses_icd"]),
        "hosp/d_labitems": items.d_labitems(set(tables["hosp/labevents"]["itemid"].unique().to_list())),
        "icu/d_items": items.d_items(used),
    }
    rows = {}
    for name, table in tables.items():
        stamped = csvgz.stamp(table, *TIMES.get(name, ()), dates=DATES.get(name, ()))
        rows[name] = csvgz.write([stamped], root / f"{name}.csv.gz")
    charted = (frame for ward in wards for frame in _charted(ward))
    rows["icu/chartevents"] = csvgz.write(charted, root / "icu" / "chartevents.csv.gz")
    return rows


@dataclasses.dataclass(frozen=True)
class _Ward:
    """A hospital's stays in the order of the event tables, with their row of admissions (`adm`), weight and
    charting.traits; and what the record shows of each stay's causes."""

    hospital: Hospital
    stays: pl.DataFrame
    ehr: dict[str, Floats]

    @classmethod
    def of(cls, hospital: Hospital) -> _Ward:
        admissions = hospital.people.admissions.with_row_index("adm").select(
            "hadm_id", pl.col("adm").cast(pl.Int64), "weight"
        )
        stays = hospital.people.stays.join(admissions, on="hadm_id", how="left").sort(
            "subject_id", "hadm_id", "stay_id"
        )
        ehr = {name: values[stays["adm"].to_numpy()] for name, values in hospital.ehr.items()}
        traits = charting.traits(hospital.seed, stays, ehr)
        return cls(hospital, stays.join(traits, on="stay_id", how="left", maintain_order="left"), ehr)


def _tables(ward: _Ward, ordered: pl.DataFrame) -> releases.Tables:
    """The tables of MIMIC-IV but chartevents and the dictionaries; times in seconds, dates in days."""
    seed, drawn = ward.hospital.seed, ward.hospital.people
    return {
        "hosp/patients": administration.patients(drawn),
        "hosp/admissions": administration.admissions(seed, drawn),
        "hosp/transfers": administration.transfers(seed, drawn),
        "hosp/services": administration.services(seed, drawn),
        "hosp/omr": administration.omr(seed, drawn),
        "hosp/diagnoses_icd": diagnoses.diagnoses_icd(seed, drawn.admissions, ward.hospital.phenotypes),
        "hosp/labevents": labs.labevents(seed, drawn.admissions, ward.stays, ward.hospital.ehr),
        "icu/icustays": administration.icustays(drawn),
        "icu/outputevents": fluids.outputevents(seed, ward.stays, ward.ehr),
        "icu/inputevents": fluids.inputevents(seed, ward.stays, ward.ehr),
        "icu/procedureevents": fluids.procedureevents(seed, ward.stays, ordered),
    }


def _charted(ward: _Ward) -> Iterator[pl.DataFrame]:
    for block, first in enumerate(range(0, ward.stays.height, BLOCK)):
        part = slice(first, first + BLOCK)
        ehr = {name: values[part] for name, values in ward.ehr.items()}
        frame = charting.chartevents(ward.hospital.seed, block, ward.stays[part], ehr)
        yield csvgz.stamp(frame, "charttime", "storetime")


def planted(params: Synthetic, hospital: Hospital) -> pl.DataFrame:
    """The planted truth, a row a stay in order of stay_id.

    p_SLUG: probability that the phenotype is billed, as labels have it; p_icu_mortality and p_los_0 ... 6: of death in
    the ICU and of each class, null where the model does not speak (stays under 48 h, deaths before hour 48; for
    mortality also stays that another of the admission follows); p_image: of a frontal radiograph in the window; z_*:
    the causes; ehr_*, cxr_*: what the record and the pictures show of them.
    """
    admissions, stays = hospital.people.admissions, hospital.people.stays.sort("stay_id")
    causes = {name: stays[f"z_{name}"].to_numpy() for name in model.CAUSES}
    classes = model.los_probabilities(causes, params.signal)
    shown: dict[str, Any] = {f"ehr_{name}": values for name, values in hospital.ehr.items()}
    shown |= {f"cxr_{name}": values for name, values in hospital.cxr.items()}
    by_admission = pl.DataFrame({"hadm_id": admissions["hadm_id"], **shown}).join(
        hospital.phenotypes.select("hadm_id", *[f"p_{slug}" for slug in phenotype_slugs()]), on="hadm_id", how="left"
    )
    modelled, long = pl.col("modelled"), pl.col("long")
    frame = stays.with_columns(
        pl.when(modelled).then("p_icu_mortality").alias("p_icu_mortality"),
        pl.Series("p_image", studies.image_chance(params, stays)),
        *[pl.Series(f"p_los_{k}", classes[:, k]) for k in range(len(LOS_EDGES))],
    ).with_columns(*[pl.when(long).then(f"p_los_{k}").alias(f"p_los_{k}") for k in range(len(LOS_EDGES))])
    return frame.join(by_admission, on="hadm_id", how="left").sort("stay_id").select(
        "stay_id", "subject_id", "hadm_id", *[f"p_{slug}" for slug in phenotype_slugs()], "p_icu_mortality",
        *[f"p_los_{k}" for k in range(len(LOS_EDGES))], "p_image", *[f"z_{name}" for name in model.CAUSES], *shown,
    )  # fmt: skip
