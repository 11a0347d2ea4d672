"""Which raw tables are needed, which of their columns, with which types; and which releases are known.

Names are those of the files; a file's columns may stand in any order and case, and more may be there. What becomes of
the rows is the business of tables.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Database = Literal["mimiciv", "mimic_cxr"]
Kind = Literal["mimic", "demo", "synthetic", "unlisted"]

SUFFIXES = (".csv.gz", ".csv")
CXR_PREFIX = "mimic-cxr-2.0.0-"  # release 2.1.0 keeps the names of 2.0.0
CXR_TABLES = tuple(CXR_PREFIX + name for name in ("metadata", "split", "chexpert", "negbio"))
# 2.1.0 adds a file to 2.0.0 and leaves the four tables as they were.
CXR_MARK_OF_2_1_0 = "mimic-cxr-2.1.0-test-set-labeled.csv"

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)


@dataclass(frozen=True)
class Table:
    """A raw table: `source` is its path below the database's folder without suffix, `columns` name -> DuckDB type.

    `order` sorts the interim table, `key` is what must be unique and not null.
    """

    database: Database
    source: str
    columns: dict[str, str]
    order: tuple[str, ...]
    key: tuple[str, ...] = ()
    required: bool = True
    itemids: str = ""  # the source in variables.yaml whose itemids are kept
    outcome: bool = False  # only labels are made of it


# In the order of ingestion: chart, output and lab rows are compared with the stays read before.
# Types: icd_code, value and race are text whatever they look like (ICD-9 "0389" is no number, "None" no null);
# StudyDate and StudyTime are text because a value that is no date is counted, not fatal; the storetime of an output
# because it is only compared.
TABLES: dict[str, Table] = {
    "patients": Table(
        "mimiciv",
        "hosp/patients",
        {
            "subject_id": "INTEGER",
            "gender": "VARCHAR",
            "anchor_age": "INTEGER",
            "anchor_year": "INTEGER",
            "anchor_year_group": "VARCHAR",
            "dod": "DATE",
        },
        order=("subject_id",),
        key=("subject_id",),
    ),
    "admissions": Table(
        "mimiciv",
        "hosp/admissions",
        {
            "subject_id": "INTEGER",
            "hadm_id": "INTEGER",
            "admittime": "TIMESTAMP",
            "dischtime": "TIMESTAMP",
            "deathtime": "TIMESTAMP",
            "admission_type": "VARCHAR",
            "admission_location": "VARCHAR",
            "insurance": "VARCHAR",
            "language": "VARCHAR",
            "race": "VARCHAR",
            "hospital_expire_flag": "SMALLINT",
        },
        order=("hadm_id",),
        key=("hadm_id",),
    ),
    "icustays": Table(
        "mimiciv",
        "icu/icustays",
        {
            "subject_id": "INTEGER",
            "hadm_id": "INTEGER",
            "stay_id": "INTEGER",
            "first_careunit": "VARCHAR",
            "last_careunit": "VARCHAR",
            "intime": "TIMESTAMP",
            "outtime": "TIMESTAMP",
        },
        order=("stay_id",),
        key=("stay_id",),
    ),
    "diagnoses": Table(
        "mimiciv",
        "hosp/diagnoses_icd",
        {
            "subject_id": "INTEGER",
            "hadm_id": "INTEGER",
            "seq_num": "INTEGER",
            "icd_code": "VARCHAR",
            "icd_version": "SMALLINT",
        },
        order=("hadm_id", "seq_num", "icd_version", "icd_code"),
        outcome=True,
    ),
    "chart": Table(
        "mimiciv",
        "icu/chartevents",
        {
            "stay_id": "INTEGER",
            "subject_id": "INTEGER",
            "charttime": "TIMESTAMP",
            "itemid": "INTEGER",
            "value": "VARCHAR",
            "valuenum": "DOUBLE",
            "valueuom": "VARCHAR",
        },
        order=("stay_id", "charttime", "itemid", "value", "valuenum"),
        itemids="chartevents",
    ),
    "output": Table(
        "mimiciv",
        "icu/outputevents",
        {
            "stay_id": "INTEGER",
            "subject_id": "INTEGER",
            "charttime": "TIMESTAMP",
            "storetime": "VARCHAR",
            "itemid": "INTEGER",
            "value": "DOUBLE",
            "valueuom": "VARCHAR",
        },
        order=("stay_id", "charttime", "itemid", "value"),
        itemids="outputevents",
    ),
    "lab": Table(
        "mimiciv",
        "hosp/labevents",
        {
            "subject_id": "INTEGER",
            "hadm_id": "INTEGER",
            "itemid": "INTEGER",
            "charttime": "TIMESTAMP",
            "storetime": "TIMESTAMP",
            "value": "VARCHAR",
            "valuenum": "DOUBLE",
            "valueuom": "VARCHAR",
            "comments": "VARCHAR",
        },
        order=("stay_id", "charttime", "available", "itemid", "valuenum"),
        itemids="labevents",
    ),
    "cxr_metadata": Table(
        "mimic_cxr",
        CXR_PREFIX + "metadata",
        {
            "dicom_id": "VARCHAR",
            "subject_id": "INTEGER",
            "study_id": "INTEGER",
            "PerformedProcedureStepDescription": "VARCHAR",
            "ViewPosition": "VARCHAR",
            "Rows": "INTEGER",
            "Columns": "INTEGER",
            "StudyDate": "VARCHAR",
            "StudyTime": "VARCHAR",
        },
        order=("dicom_id",),
        key=("dicom_id",),
    ),
    "cxr_findings": Table(
        "mimic_cxr",
        CXR_PREFIX + "chexpert",
        {"study_id": "INTEGER", "subject_id": "INTEGER", **dict.fromkeys(FINDINGS, "DOUBLE")},
        order=("study_id",),
        key=("study_id",),
        required=False,
    ),
}


@dataclass(frozen=True)
class Release:
    """A known release, recognised by the number of rows of its small tables (source -> rows)."""

    name: str
    kind: Kind
    rows: dict[str, int]


# MIMIC-IV: mimic-code, buildmimic validate.sql of the releases. MIMIC-CXR-JPG: 377,110 images in 2.0.0 and 2.1.0.
RELEASES: dict[Database, tuple[Release, ...]] = {
    "mimiciv": (
        Release(
            "MIMIC-IV 2.2", "mimic", {"hosp/patients": 299_712, "hosp/admissions": 431_231, "icu/icustays": 73_181}
        ),
        Release(
            "MIMIC-IV 3.1", "mimic", {"hosp/patients": 364_627, "hosp/admissions": 546_028, "icu/icustays": 94_458}
        ),
        Release("MIMIC-IV demo 2.2", "demo", {"hosp/patients": 100, "hosp/admissions": 275, "icu/icustays": 140}),
    ),
    "mimic_cxr": (
        Release("MIMIC-CXR-JPG 2.0.0", "mimic", {CXR_PREFIX + "metadata": 377_110}),
        # radiographs of others, paired arbitrarily with the subjects of the MIMIC-IV demo
        Release("MIMIC-CXR-JPG stand-in for the demo", "demo", {CXR_PREFIX + "metadata": 253}),
    ),
}


def tables_of(database: Database) -> dict[str, Table]:
    """The needed tables of a database: source -> table."""
    return {table.source: table for table in TABLES.values() if table.database == database}


def place_columns(header: list[str], columns: dict[str, str]) -> tuple[dict[int, str], list[str]]:
    """Where the needed columns stand in a file: position -> name as in the schema; and the names that are missing.

    Names are compared without case and surrounding blanks.
    """
    places: dict[str, int] = {}
    for i, name in reversed(list(enumerate(header))):
        places[name.strip().casefold()] = i
    found = {places[name.casefold()]: name for name in columns if name.casefold() in places}
    return found, [name for name in columns if name.casefold() not in places]
