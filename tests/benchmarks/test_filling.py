"""Filling and scaling: once per fold, or in every batch? As a ratio of one run."""

import time

import numpy as np
import pytest

from pipeline.data.inputs import build_inputs
from pipeline.mimic.variables import load_variables

VARIABLES = load_variables("core")
STATISTICS = {v.name: {"median": 0.0, "iqr": 1.0, "scale": 1.0, "count": 9} for v in VARIABLES if v.kind != "category"}


def best(function, times=3):
    found = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return min(found)


@pytest.mark.benchmark
def test_an_epoch_of_ready_rows_is_cheaper_than_filling_every_batch():
    rng = np.random.default_rng(0)
    values = np.where(rng.random((2048, 48, len(VARIABLES))) < 0.3, 1.0, np.nan).astype(np.float32)
    ready = build_inputs(values, VARIABLES, STATISTICS)
    order = rng.permutation(2048).reshape(-1, 64)

    def gather():
        for rows in order:
            ready.ehr[rows], ready.observed[rows], ready.since[rows]

    def fill():
        for rows in order:
            build_inputs(values[rows], VARIABLES, STATISTICS)

    ratio = best(fill) / best(gather)
    print(f"filling in every batch costs {ratio:.1f} × gathering ready rows")
    assert ratio > 2
