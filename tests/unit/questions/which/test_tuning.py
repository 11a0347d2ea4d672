"""What question 2 tells of tuning: the curve of expected best scores, who counts as tuned, the notes in each state."""

import itertools
import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.params import Grid
from pipeline.questions.which.compare import SCHEMAS, write
from pipeline.questions.which.section import answer
from pipeline.questions.which.text import UNEQUAL, UNTUNED, two_digits
from pipeline.questions.which.tuning import budget, expected_best, tuning
from pipeline.training.trials import HOURS, TRIALS, TRIALS_SCHEMA
from tests.support.made_up_runs import add_trials
from tests.support.which import EVALUATION, GRID, JUDGED, SCALE, SETTINGS, write_tuning

SCORES = {(strategy, task): [0.3, 0.5, 0.4] for strategy in GRID.strategies for task in GRID.tasks}
TWO = Grid(("resnet", "lstm"), ("los", "mortality"))


def test_the_curve_of_three_scores_by_hand():
    """One of 0.5, 0.9, 0.6; of pairs the best are 0.9, 0.6 and 0.9; of all it is 0.9."""
    assert expected_best([0.5, 0.9, 0.6]) == pytest.approx([2.0 / 3, 0.8, 0.9])


def test_a_draw_that_may_hold_nothing_estimable_has_no_best():
    """One of three is not: two hold at least one that is, and the best are 0.5, 0.9 and 0.9."""
    assert expected_best([0.5, None, 0.9]) == [None, pytest.approx(2.3 / 3), pytest.approx(0.9)]
    assert expected_best([None, None]) == [None, None]
    assert expected_best([]) == []


@given(st.lists(st.one_of(st.none(), st.floats(-1, 1)), min_size=1, max_size=7))
def test_the_curve_is_the_mean_over_all_subsets(scores):
    for k, found in enumerate(expected_best(scores), 1):
        drawn = [[score for score in each if score is not None] for each in itertools.combinations(scores, k)]
        if all(drawn):
            assert found == pytest.approx(sum(map(max, drawn)) / len(drawn), abs=1e-12)
        else:
            assert found is None


def test_rows_hold_budget_and_choice_in_the_order_of_the_grid(tmp_path):
    """transformer is no strategy of the grid, but one that another starts from."""
    scores = {("lstm", "los"): [0.3, 0.5, 0.4], ("lstm", "mortality"): [0.6, 0.2, None]}
    add_trials(tmp_path, {("transformer", "los"): [None, None, 0.2], **scores, ("resnet", "los"): [None] * 3})
    told, curve = tuning(tmp_path / "tuned", TWO, SCALE, JUDGED)
    names = ("task", "strategy", "default_score", "trial", "score", "differs")
    assert [tuple(row[name] for name in names) for row in told] == [
        ("los", "resnet", None, 1, None, ""),
        ("los", "lstm", 0.3, 2, 0.5, "lr 0.002"),
        ("los", "transformer", None, 3, 0.2, "lr 0.003"),
        ("mortality", "lstm", 0.6, 1, 0.6, ""),
    ]
    for row in told:
        rest = {name: row[name] for name in ("trials", "epochs", "hours", "cohorts", "seeds")}
        assert rest == {"trials": 3, "epochs": 30, "hours": 0.75, "cohorts": "base+matched", "seeds": 2}
    assert [row["k"] for row in curve] == [1, 2, 3] * 4
    assert [row["score"] for row in curve if row["strategy"] == "lstm"] == [
        *map(pytest.approx, (0.4, 1.4 / 3, 0.5)),
        *(None, pytest.approx(1.4 / 3), pytest.approx(0.6)),
    ]


def test_the_same_settings_are_one_run_and_any_kind_of_knob_is_told(tmp_path):
    """The default twice, and a trial that differs in all."""
    first = {"hyper": {"lr": 0.001, "second_order": True}, "dropout": 0.1, "weight_decay": 0.01}
    other = {"hyper": {"lr": 0.0003, "second_order": False}, "dropout": 0.25, "weight_decay": 0.0123}
    rows = [("lstm", "los", i, i / 10, i == 3, 7, json.dumps(each)) for i, each in enumerate((first, first, other), 1)]
    add_trials(tmp_path, {})
    pl.DataFrame(rows, schema=TRIALS_SCHEMA, orient="row").write_csv(tmp_path / "tuned" / TRIALS)
    (tmp_path / "tuned" / HOURS).write_text('{"lstm": {"los": 1.2345}}')
    ((told,), _) = tuning(tmp_path / "tuned", TWO, SCALE, JUDGED)
    assert told["epochs"] == 14
    assert told["hours"] == 1.2
    assert told["differs"] == "lr 0.0003, second_order False, dropout 0.25, weight_decay 0.0123"


def test_what_is_missing_is_named(tmp_path):
    add_trials(tmp_path, {("lstm", "los"): [0.1, 0.2]})
    folder = tmp_path / "tuned"
    trials = pl.read_csv(folder / TRIALS)
    (folder / HOURS).write_text('{"lstm": {}}')
    with pytest.raises(InputError, match=r"hours\.json: no hours of lstm on los$"):
        tuning(folder, TWO, SCALE, JUDGED)
    (folder / HOURS).write_text("{")
    with pytest.raises(InputError, match=r"hours\.json: not JSON: "):
        tuning(folder, TWO, SCALE, JUDGED)
    (folder / HOURS).unlink()
    with pytest.raises(InputError, match=r"hours\.json: not found; run the stage"):
        tuning(folder, TWO, SCALE, JUDGED)
    for damaged in (trials.with_columns(chosen=True), trials.with_columns(trial=pl.col("trial") + 1)):
        add_trials(tmp_path, {})
        damaged.write_csv(folder / TRIALS)
        with pytest.raises(InputError, match=r"trials\.csv: lstm on los: trials are not 1 to 2, one of them chosen$"):
            tuning(folder, TWO, SCALE, JUDGED)


def found_budget(folder, scores):
    add_trials(folder, scores)
    told, _ = tuning(folder / "tuned", GRID, SCALE, JUDGED)
    return budget(pl.DataFrame(told, schema=SCHEMAS["tuning"], orient="row"), GRID)


def test_strategies_are_tuned_where_all_had_the_same_number_of_trials_on_every_task(tmp_path):
    assert found_budget(tmp_path, SCORES) == 3
    assert found_budget(tmp_path, {}) == 0
    assert found_budget(tmp_path, SCORES | {("resnet", "los"): [0.1, 0.2]}) is None
    assert found_budget(tmp_path, {key: scores for key, scores in SCORES.items() if key != ("resnet", "los")}) is None
    assert found_budget(tmp_path, SCORES | {("transformer", "los"): [0.1]}) == 3  # is not compared


def told_of_tuning(folder):
    """The answer, and whether it tells anything of trials beyond its notes."""
    shown = answer(folder, GRID, EVALUATION, SETTINGS)
    sources = [each.source for each in (*shown.figures, *shown.tables)]
    return shown, [source for source in sources if "tuning" in source]


@pytest.mark.usefixtures("undrawn")
def test_the_answer_of_untuned_strategies_tells_so_and_no_trial(tables, tmp_path):
    write(tables, tmp_path, GRID, EVALUATION, SETTINGS)
    shown, sources = told_of_tuning(tmp_path)
    assert shown.sentence.startswith(
        "Settings were tuned for no strategy: nothing is claimed about which is better. In"
    )
    assert shown.notes[0] == (
        "All strategies ran on untuned defaults (tuning.trials in params.yaml is 0): the order below is of these "
        "settings, and nothing is claimed about the strategies."
    )
    assert sources == []
    assert "dev" not in " ".join(shown.notes)
    assert (tmp_path / "tuning.md").read_text() == f"# Tuning\n\n{UNTUNED}.\n"


def test_the_answer_of_tuned_strategies_tells_the_budget_the_curve_and_the_choice(tables, tmp_path):
    add_trials(tmp_path, SCORES | {("resnet", "los"): [None] * 3})
    told, curve = tuning(tmp_path / "tuned", GRID, SCALE, JUDGED)
    rows = {"tuning": told, "tuning_curve": curve}
    made = {name: pl.DataFrame(each, schema=SCHEMAS[name], orient="row") for name, each in rows.items()}
    write(tables | made, tmp_path, GRID, EVALUATION, SETTINGS)
    shown, sources = told_of_tuning(tmp_path)
    assert shown.sentence.startswith("In the base cohort: ")
    note = (
        "Settings were chosen on dev alone, task by task: 3 trials a strategy and task, the first with the defaults, "
        "each judged by 4 runs (base and matched cohorts, 2 seeds, one fold). All trials together took 270 epochs in "
        "6.8 hours."
    )
    assert shown.notes[0] == note
    assert UNTUNED not in " ".join(shown.notes)
    assert sources == ["tables/tuning_curve.csv"] * 3 + ["tables/tuning.csv"] * 3
    figures = {figure.name: figure.svg for figure in shown.figures if figure.name.startswith("tuning")}
    assert list(figures) == [f"tuning_{task}" for task in GRID.tasks]
    assert "Expected best AUPRC on dev" in figures["tuning_mortality"]
    assert "Expected best Accuracy on dev" in figures["tuning_los"]
    table = next(table for table in shown.tables if table.title == "Tuning: Length of stay")
    assert table.header[2:5] == ("Accuracy of the defaults", "Chosen trial", "Its Accuracy")
    (lstm, resnet, _) = table.rows
    assert [lstm[i] for i in (0, 1, 3, 5, 6, 7)] == ["lstm", 3, 2, 30, "0.75", "lr 0.002"]
    assert [lstm[2].text, lstm[4].text] == ["0.300", "0.500"]
    assert [resnet[i] for i in (3, 7)] == [1, "—"]
    assert [resnet[2].text, resnet[4].text] == ["n. e.", "n. e."]
    text = (tmp_path / "tuning.md").read_text()
    assert f"# Tuning\n\n{note}\n" in text
    assert "| lstm | 3 | 0.300 | 2 | 0.500 | 30 | 0.75 | lr 0.002 |" in text
    assert UNTUNED not in (tmp_path / "ranking.md").read_text()


@pytest.mark.usefixtures("undrawn")
def test_the_answer_after_unequal_budgets_claims_nothing(tables, tmp_path):
    write(tables, tmp_path, GRID, EVALUATION, SETTINGS)
    add_trials(tmp_path, SCORES | {("resnet", "los"): [0.1, 0.2]})
    write_tuning(tmp_path, tmp_path)
    shown, sources = told_of_tuning(tmp_path)
    assert shown.sentence.startswith("Settings were tuned unequally: nothing is claimed about which is better.")
    assert shown.notes[0].startswith(f"{UNEQUAL}: the order below")
    assert sources == []


def test_the_figure_of_scores_none_of_which_is_estimable_says_so(tables, tmp_path):
    write(tables, tmp_path, GRID, EVALUATION, SETTINGS)
    add_trials(tmp_path, SCORES | {(strategy, "mortality"): [None] * 3 for strategy in GRID.strategies})
    write_tuning(tmp_path, tmp_path)
    figures = {figure.name: figure.svg for figure in told_of_tuning(tmp_path)[0].figures}
    assert "not estimable" in figures["tuning_mortality"]
    assert "not estimable" not in figures["tuning_los"]


@pytest.mark.parametrize(("value", "text"), [(1234.0, "1200"), (0.0567, "0.057"), (2.0, "2"), (0.0, "0")])
def test_two_significant_digits(value, text):
    assert two_digits(value) == text
