"""Packed data of made-up stays, as exports want them."""

import json
import shutil

import numpy as np
import polars as pl
import pytest

from tests.support.made_up_data import fabricate


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A data/ folder of 60 stays at tier `core`, with scores and rhythms charted and a stay with two images."""
    data = fabricate(tmp_path_factory.mktemp("packed") / "data", n=60)
    values = np.load(data / "series/values.npy")
    values[:, 3, 8:12] = 4, 6, 5, 15  # gcs_eyes, gcs_motor, gcs_verbal, gcs_total
    values[0, 4, 8:12] = 1, 2, 2, 5
    np.save(data / "series/values.npy", values)
    (data / "series/rules.json").write_text(json.dumps({"tier": "core", "lab_time": "available", "max_jump": 2.0}))
    stays = pl.read_parquet(data / "cohort/stays.parquet")
    cxr = pl.read_parquet(data / "cohort/cxr.parquet").join(
        stays.select("stay_id", "subject_id", "intime"), on="stay_id", maintain_order="left"
    )
    hours = pl.duration(seconds=(pl.col("hours_from_intime") * 3600).round())
    cxr.with_columns(cxr_time=pl.col("intime") + hours, dicom_id=pl.format("{}-{}", "dicom_id", "rank")).write_parquet(
        data / "cohort/cxr.parquet"
    )
    (data / "audit.ok").touch()
    admissions = stays.select("hadm_id", race=pl.lit("WHITE - RUSSIAN"))
    admissions.write_parquet(data / "interim/admissions.parquet")
    return data


@pytest.fixture
def own(packed, tmp_path):
    """A copy of `packed`."""
    return shutil.copytree(packed, tmp_path / "data")
