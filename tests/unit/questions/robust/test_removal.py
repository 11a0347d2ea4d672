"""Removal from stored answers: nested in the rate, and where fusion stops paying."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.cells import kinds_of_run, read_people, read_predictions
from pipeline.evaluation.reading import read_probe
from pipeline.evaluation.scores import Sampler
from pipeline.questions.robust.removal import (
    NOTHING,
    Removal,
    answers,
    area,
    read_masks,
    removals,
    runs_of,
    stops_paying,
)
from pipeline.tasks import get_task
from tests.support.robust import PROBE, SCALE


def one_kind(data, strategy, task="mortality", cohort="matched"):
    """The runs of one kind, with their sampler."""
    task = get_task(task)
    people = read_people(data, [task], SCALE.folds)
    status = pl.read_parquet(data / "cohort/stays.parquet").select("stay_id", "cxr_status")
    rows = read_predictions(data, task, strategy, SCALE, people).join(status, on="stay_id")
    sampler = Sampler(people, 20, 1)
    chosen = next(rows for kind, rows in kinds_of_run(rows) if kind["train_cohort"] == cohort)
    return runs_of(
        chosen, read_probe(data, strategy, "removal").filter(task=task.name), read_masks(data), task, sampler, "x"
    )


def test_what_is_removed_follows_from_probe_and_schedule():
    assert removals(PROBE, 48) == [
        NOTHING,
        *(Removal("cxr", mechanism, rate) for mechanism in ("mcar", "mar") for rate in (0.25, 0.5, 1.0)),
        *(Removal("ehr", "mcar", rate) for rate in (0.25, 0.5, 1.0)),
        Removal("ehr", "last_hours", 0.25),
    ]


@pytest.mark.parametrize("modality", ["cxr", "ehr"])
@pytest.mark.parametrize("mechanism", ["mcar", "mar"])
def test_answers_change_where_the_mask_says_and_are_nested_in_the_rate(made, modality, mechanism):
    if (modality, mechanism) == ("ehr", "mar"):
        return
    mask = read_masks(made).filter(modality=modality, mechanism=mechanism)
    for run in one_kind(made, "late_fusion"):
        gone_at = dict(mask.filter(fold=run.fold).select("stay_id", "removed_at").iter_rows())
        stays = pl.read_parquet(made / "splits.parquet").filter(pl.col("fold") == run.fold, pl.col("part") == "test")
        stays = sorted(stays["stay_id"].to_list())
        before = np.zeros(len(stays), dtype=bool)
        for rate in (0.0, 0.1, 0.25, 0.5, 0.9, 1.0):
            p = answers(run, Removal(modality, mechanism, rate))
            without = run.without[Removal(modality, "whole", 1.0)]
            for i, stay in enumerate(stays):
                gone = gone_at.get(stay, np.inf) < rate
                assert p[i] == (without if gone else run.full)[i]
            changed = (p != run.full).any(axis=1)
            assert changed[before].all()
            before = changed
        if modality == "cxr":
            assert np.array_equal(before, run.groups["matched"])
        else:
            assert before.all()


def test_a_rate_of_zero_are_the_stored_predictions(made):
    for run in one_kind(made, "drfuse", "los"):
        for modality in ("cxr", "ehr"):
            assert np.array_equal(answers(run, Removal(modality, "mcar", 0.0)), run.full)


@given(
    st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=2, max_size=6),
    st.integers(0, 2**32 - 1),
)
def test_area_and_where_it_stops_paying_against_naive_formulas(lead, seed):
    random = np.random.default_rng(seed)
    rates = [0.0, *sorted(random.choice(np.arange(1, 100), len(lead) - 2, replace=False) / 100), 1.0]
    draws = [np.array([value, -value]) for value in lead]
    assert area(draws, rates)[0] == pytest.approx(np.trapezoid(lead, rates), abs=1e-12)
    for sign, found in zip((1, -1), stops_paying(draws, rates), strict=True):
        values = [sign * value for value in lead]
        expected = np.inf
        if values[0] <= 0:
            expected = 0.0
        else:
            for i in range(len(rates) - 1):
                if values[i + 1] <= 0:
                    share = values[i] / (values[i] - values[i + 1])
                    expected = rates[i] + (rates[i + 1] - rates[i]) * share
                    break
        assert found == pytest.approx(expected, abs=1e-12)


def test_a_lead_that_is_not_estimable_has_no_such_rate():
    assert np.isnan(stops_paying([np.array([0.1]), np.array([np.nan])], [0.0, 1.0])[0])
