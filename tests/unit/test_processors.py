"""The same bytes on a processor with fewer vector instructions: numpy and OpenBLAS are made to do without them.

What training computes is left out: there bits follow from the processor (README).
"""

import hashlib
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from pipeline import files
from pipeline.params import load
from pipeline.synthetic import hospital
from pipeline.training.image_control import _scores


def planted(patients: int = 400) -> pl.DataFrame:
    params = load()
    size = params.scales["tiny"].synthetic
    return hospital.planted(params.synthetic, hospital.draw(params.synthetic, type(size)(patients, size.image_px)))


def control() -> pl.DataFrame:
    random = np.random.default_rng(1)
    features = random.normal(size=(500, 32)).astype(np.float32)
    present = features[:, 0] + random.normal(size=500) > 0
    return pl.DataFrame({"score": _scores(features[:300], present[:300], features[300:])})


def digest(frame: pl.DataFrame) -> str:
    return hashlib.sha256(frame.write_csv().encode()).hexdigest()


def digests() -> list[str]:
    """Of what is computed, and of what is written."""
    made = [planted(), control()]
    return [digest(each) for each in (*made, *map(files.significant, made))]


def wide() -> list[str]:
    """Instructions of this processor that numpy may do without."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    return [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]


def test_what_is_written_does_not_follow_from_vector_instructions(root):
    if not wide():
        pytest.skip("numpy has no vector instructions here that it could do without")
    environment = {
        "NPY_DISABLE_CPU_FEATURES": " ".join(wide()),
        "OPENBLAS_CORETYPE": "Nehalem",
        "PYTHONPATH": str(root),
    }
    code = "from tests.unit.test_processors import digests; print(*digests())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, env=os.environ | environment, capture_output=True, text=True, check=True)
    truth, scores, written_truth, written_scores = zip(digests(), done.stdout.split(), strict=True)
    assert written_truth[0] == written_truth[1]
    assert written_scores[0] == written_scores[1]
    if truth[0] == truth[1] and scores[0] == scores[1]:
        pytest.skip("this processor computes the same bits without its vector instructions: nothing was to be rounded")


def test_the_truth_is_written_rounded(tmp_path):
    """To nine significant digits; other columns, nulls and NaN stay as they are."""
    frame = pl.DataFrame({"a": [1 / 3, -2e-9 / 3, None, float("nan"), 0.0], "b": [1, 2, 3, 4, 5], "c": list("abcde")})
    found = files.significant(frame)
    assert found["a"].to_list()[:3] == [0.333333333, -6.66666667e-10, None]
    assert found.drop("a").equals(frame.drop("a"))
    size = load().scales["tiny"].synthetic
    hospital.write(tmp_path / "raw", tmp_path / "truth", params=load().synthetic, scale=size, workers=1)
    written = pl.read_parquet(tmp_path / "truth/planted.parquet")
    assert written.equals(files.significant(written))
