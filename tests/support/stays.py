"""One ordinary stay as interim tables, to be changed by tests."""

from datetime import datetime, timedelta

import polars as pl

DAY = timedelta(days=1)

MOMENT = timedelta(microseconds=1)

IN = datetime(2150, 3, 1, 12)


def frames(
    stays=({},), admissions=({},), patients=({},), diagnoses=()
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Interim tables of rows that differ from an ordinary one in the given fields; ids count from 1, 11, 31."""
    stay_rows = [
        {
            "subject_id": 1,
            "hadm_id": 11 + i,
            "stay_id": 31 + i,
            "first_careunit": "MICU",
            "last_careunit": "MICU",
            "intime": IN,
            "outtime": IN + 3 * DAY,
        }
        | row
        for i, row in enumerate(stays)
    ]
    admission_rows = [
        {
            "subject_id": 1,
            "hadm_id": 11 + i,
            "admittime": IN - DAY,
            "dischtime": IN + 9 * DAY,
            "deathtime": None,
            "admission_type": "EW EMER.",
            "insurance": "Other",
            "race": "WHITE",
            "hospital_expire_flag": 0,
        }
        | row
        for i, row in enumerate(admissions)
    ]
    patient_rows = [
        {
            "subject_id": 1 + i,
            "gender": "F",
            "anchor_age": 50,
            "anchor_year": 2150,
            "anchor_year_group": "2011 - 2013",
            "dod": None,
        }
        | row
        for i, row in enumerate(patients)
    ]
    ids = {"subject_id": pl.Int32, "hadm_id": pl.Int32, "stay_id": pl.Int32}
    times = dict.fromkeys(("intime", "outtime", "deathtime", "dischtime", "admittime"), pl.Datetime("us"))
    overrides = {**ids, **times, "anchor_age": pl.Int32, "anchor_year": pl.Int32, "dod": pl.Date}

    def build(rows):
        return pl.DataFrame(rows, schema_overrides={k: v for k, v in overrides.items() if k in rows[0]})

    codes = pl.DataFrame(
        list(diagnoses), schema={"hadm_id": pl.Int32, "icd_version": pl.Int16, "icd_code": pl.String}, orient="row"
    )
    return build(patient_rows), build(admission_rows), build(stay_rows), codes
