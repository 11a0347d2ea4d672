"""Writes the synthetic hospital: the MIMIC-IV and MIMIC-CXR-JPG trees, and the planted truth beside them.

Everything is a function of the params and the scale: the same bytes on every run, whatever the number of workers. The
trees are built in a folder beside the target, which takes the target's place at the end.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Iterator
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
    studies,
)
from pipeline.synthetic.streams import Floats, stream
from pipeline.tasks import LOS_EDGES, phenotype_slugs

log = logging.getLogger(__name__)
MARKER = "SYNTHETIC.json"
RELEASES = {"mimiciv": ("MIMIC-IV", "2.2"), "mimic-cxr-jpg": ("MIMIC-CXR-JPG", "2.0.0")}
BLOCK = 256  # stays charted at a time


@dataclasses.dataclass(frozen=True)
class Hospital:
    """What was drawn: people, what each modality shows of the causes (by row of admissions), phenotypes."""

    people: people.People
    ehr: dict[str, Floats]
    cxr: dict[str, Floats]
    phenotypes: pl.DataFrame


def draw(params: Synthetic, scale: SyntheticScale) -> Hospital:
    """Draw patients, stays, causes and labels."""
    drawn = people.populate(params, scale.patients)
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
    return Hospital(drawn, ehr, cxr, diagnoses.draw_phenotypes(params.seed, params.signal, drawn.admissions))


def write(folder: Path, truth: Path, *, params: Synthetic, scale: SyntheticScale, workers: int) -> dict[str, int]:
    """Write `folder`/mimiciv and /mimic-cxr-jpg, `truth`/planted.parquet and /model.json; returns rows per file.

    A hospital that stands there already is replaced. Raises InputError where `folder` holds something else.
    """
    folder, truth = Path(folder), Path(truth)
    _refuse_foreign(folder)
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    hospital = draw(params, scale)
    archive = studies.archive(params, hospital.people, hospital.cxr, scale.image_px)
    root = beside / "mimic-cxr-jpg"
    with darkroom.developing(root, archive.shots, workers):
        rows = {
            name: csvgz.write([table], root / f"mimic-cxr-2.0.0-{name}.csv.gz")
            for name, table in _cxr_tables(archive).items()
        }
        rows |= _write_mimiciv(beside / "mimiciv", params, hospital, archive)
    rows["images"] = len(archive.shots)
    for name, (imitates, release) in RELEASES.items():
        files.write_json(
            {
                "generator": "pipeline.synthetic",
                "version": model.VERSION,
                "imitates": imitates,
                "release": release,
                "seed": params.seed,
                "parameters": dataclasses.asdict(params) | dataclasses.asdict(scale),
            },
            beside / name / MARKER,
        )
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    files.write_parquet(planted(params, hospital), truth / "planted.parquet")
    files.write_json(model.describe(params), truth / "model.json")
    log.info("%d patients, %d stays, %d images", scale.patients, hospital.people.stays.height, len(archive.shots))
    return rows


def _refuse_foreign(folder: Path) -> None:
    """InputError unless `folder` is absent, empty, or holds nothing but a synthetic hospital."""
    if folder.exists():
        for path in folder.iterdir():
            if path.name not in RELEASES or (any(path.iterdir()) and not (path / MARKER).is_file()):
                raise InputError(f"{folder}: holds {path.name}, which is no synthetic hospital; not replaced")


def _cxr_tables(archive: studies.Archive) -> dict[str, pl.DataFrame]:
    return {name: getattr(archive, name) for name in ("metadata", "split", "chexpert", "negbio")}


def _write_mimiciv(root: Path, params: Synthetic, hospital: Hospital, archive: studies.Archive) -> dict[str, int]:
    seed, drawn = params.seed, hospital.people
    stays = _charted_stays(seed, hospital)
    ehr = {name: values[stays["adm"].to_numpy()] for name, values in hospital.ehr.items()}
    billed = diagnoses.diagnoses_icd(seed, drawn.admissions, hospital.phenotypes)
    lab = labs.labevents(seed, drawn.admissions, stays, hospital.ehr)
    output = fluids.outputevents(seed, stays, ehr)
    given = fluids.inputevents(seed, stays, ehr)
    done = fluids.procedureevents(seed, stays, archive.ordered)
    used = set(items.ITEMS) if stays.height else set()
    at = csvgz.stamp
    tables: dict[str, pl.DataFrame] = {
        "hosp/patients": at(administration.patients(drawn), dates=("dod",)),
        "hosp/admissions": at(
            administration.admissions(seed, drawn), "admittime", "dischtime", "deathtime", "edregtime", "edouttime"
        ),
        "hosp/transfers": at(administration.transfers(seed, drawn), "intime", "outtime"),
        "hosp/services": at(administration.services(seed, drawn), "transfertime"),
        "hosp/omr": at(administration.omr(seed, drawn), dates=("chartdate",)),
        "hosp/diagnoses_icd": billed,
        "hosp/d_icd_diagnoses": diagnoses.d_icd_diagnoses(billed),
        "hosp/labevents": at(lab, "charttime", "storetime"),
        "hosp/d_labitems": items.d_labitems(set(lab["itemid"].unique().to_list())),
        "icu/icustays": at(administration.icustays(drawn), "intime", "outtime"),
        "icu/outputevents": at(output, "charttime", "storetime"),
        "icu/inputevents": at(given, "starttime", "endtime", "storetime"),
        "icu/procedureevents": at(done, "starttime", "endtime", "storetime"),
        "icu/d_items": items.d_items(used),
    }
    rows = {name: csvgz.write([table], root / f"{name}.csv.gz") for name, table in tables.items()}
    rows["icu/chartevents"] = csvgz.write(_charted(seed, stays, ehr), root / "icu" / "chartevents.csv.gz")
    return rows


def _charted_stays(seed: int, hospital: Hospital) -> pl.DataFrame:
    """Stays in the order of the event tables, with their row of admissions (`adm`), weight and charting.traits."""
    admissions = hospital.people.admissions.with_row_index("adm").select(
        "hadm_id", pl.col("adm").cast(pl.Int64), "weight"
    )
    stays = hospital.people.stays.join(admissions, on="hadm_id", how="left").sort("subject_id", "hadm_id", "stay_id")
    ehr = {name: values[stays["adm"].to_numpy()] for name, values in hospital.ehr.items()}
    return stays.join(charting.traits(seed, stays, ehr), on="stay_id", how="left", maintain_order="left")


def _charted(seed: int, stays: pl.DataFrame, ehr: dict[str, Floats]) -> Iterator[pl.DataFrame]:
    for block, first in enumerate(range(0, stays.height, BLOCK)):
        part = slice(first, first + BLOCK)
        frame = charting.chartevents(seed, block, stays[part], {name: values[part] for name, values in ehr.items()})
        yield csvgz.stamp(frame, "charttime", "storetime")


def planted(params: Synthetic, hospital: Hospital) -> pl.DataFrame:
    """The planted truth, a row a stay in order of stay_id.

    p_SLUG: probability of the phenotype; p_icu_mortality and p_los_0 ... 6: of death in the ICU and of each class, null
    where the model does not speak (stays under 48 h, deaths before hour 48; for mortality also stays that another of
    the admission follows); p_image: of a frontal radiograph in the window; z_*: the causes; ehr_*, cxr_*: what the
    record and the pictures show of them.
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
