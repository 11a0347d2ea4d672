"""The stage compare on fabricated artefacts: its tables, where nothing can be told, too, and the page's answer."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from sklearn.metrics import mean_absolute_error as sklearn_mae

from pipeline.ensembles.ensemble import make
from pipeline.errors import InputError
from pipeline.estimation import days, decision
from pipeline.estimation.bootstrap import draw_subjects
from pipeline.estimation.metrics import confusion, quadratic_kappa
from pipeline.params import Ensemble, Grid
from pipeline.questions.which.compare import SCHEMAS, write
from pipeline.questions.which.section import answer, brief, sentence
from pipeline.questions.which.text import UNRANKED, UNTUNED
from pipeline.tasks import LOS_EDGES
from tests.support.made_up_runs import add_ensemble, add_trials, fabricate, training
from tests.support.which import COSTS, EVALUATION, GRID, SCALE, SETTINGS, run, write_tuning


def rows_of(data, task, strategy, cohort, fold, seed, part="test"):
    """Of one run, with labels and days, by hand."""
    stays = pl.read_parquet(data / "cohort" / "stays.parquet")
    labels = pl.read_parquet(data / "cohort" / "labels.parquet")
    found = pl.read_parquet(data / "runs" / strategy / task / "predictions.parquet")
    found = found.filter(train_cohort=cohort, fold=fold, seed=seed, part=part)
    found = found.join(labels, on="stay_id").join(stays.select("stay_id", "has_cxr", "los_days"), on="stay_id")
    return found.filter(pl.col("has_cxr") | (cohort == "base"))


RUNS = [(fold, seed) for fold in SCALE.folds for seed in SCALE.seeds]


def test_scores_are_the_means_of_runs_and_ranks_follow_them(made, tables):
    ranking = tables["ranking"].filter(task="mortality", cohort="matched", metric="auroc")
    for row in ranking.iter_rows(named=True):
        each = [rows_of(made / "data", "mortality", row["strategy"], "matched", *of) for of in RUNS]
        expected = np.mean([roc_auc_score(rows["icu_mortality"], rows["p_icu_mortality"]) for rows in each])
        assert row["value"] == pytest.approx(expected)
    assert ranking["rank"].to_list() == [1, 2, 3]
    assert ranking["value"].is_sorted(descending=True)
    assert ranking["share_best"].sum() == pytest.approx(1)
    assert set(ranking["runs"]) == {4}


def test_quadratic_kappa_and_days_are_those_of_scikit_learn(made, tables):
    middles = [2.5, 3.5, 4.5, 5.5, 6.5, 10.5, 22.0]
    for row in tables["los"].filter(strategy="late_fusion").iter_rows(named=True):
        kappas, errors = [], []
        for of in RUNS:
            rows = rows_of(made / "data", "los", "late_fusion", row["cohort"], *of)
            p = rows.select(f"p_los_{i}" for i in range(7)).to_numpy().astype(float)
            kappas.append(cohen_kappa_score(rows["los_class"], p.argmax(axis=1), weights="quadratic"))
            errors.append(sklearn_mae(rows["los_days"].clip(upper_bound=30), p @ middles))
        assert row["quadratic_kappa"] == pytest.approx(np.mean(kappas))
        assert row["absolute_days"] == pytest.approx(np.mean(errors))
        assert row["absolute_days_low"] < row["absolute_days"] < row["absolute_days_high"]


def test_the_reference_of_days_is_the_median_of_validation(made, tables):
    errors = []
    for of in RUNS:
        before = (
            rows_of(made / "data", "los", "lstm", "base", *of, part="val")["los_days"].clip(upper_bound=30).median()
        )
        errors.append(
            np.abs(rows_of(made / "data", "los", "lstm", "base", *of)["los_days"].clip(upper_bound=30) - before).mean()
        )
    row = tables["los"].filter(strategy="median_of_validation", cohort="base").row(0, named=True)
    assert row["absolute_days"] == pytest.approx(np.mean(errors))
    assert row["quadratic_kappa"] is None


def test_net_benefit_is_that_of_the_formula(made, tables):
    for threshold in (0.01, 0.2, 0.29, 0.5):
        for strategy in ("lstm", "treat_all", "treat_none"):
            values = []
            for of in RUNS:
                rows = rows_of(made / "data", "mortality", "lstm", "base", *of)
                y, p = rows["icu_mortality"].to_numpy(), rows["p_icu_mortality"].to_numpy().astype(float)
                act = {"lstm": p >= threshold, "treat_all": p >= 0, "treat_none": p > 1}[strategy]
                values.append((act & y).mean() - (act & ~y).mean() * threshold / (1 - threshold))
            row = tables["decision"].filter(
                (pl.col("threshold") - threshold).abs() < 1e-9, strategy=strategy, cohort="base"
            )
            assert row["net_benefit"].item() == pytest.approx(np.mean(values), abs=1e-12)


def test_tables_have_a_row_for_each_and_no_nan(tables):
    strategies, pairs = len(GRID.strategies), 2
    heights = {name: table.height for name, table in tables.items()}
    assert heights["ranking"] == strategies * pairs * (2 + 2 + 3)
    assert heights["score_cost"] == strategies * pairs * 3
    assert heights["calibration"] == strategies * pairs * 2 * (1 + 26 + 1)
    assert heights["decision"] == (strategies + 2) * pairs * 50
    assert heights["los"] == (strategies + 1) * pairs
    assert heights["tuning"] == heights["tuning_curve"] == 0
    assert set(tables) == set(SCHEMAS)
    for name, table in tables.items():
        assert dict(table.schema) == SCHEMAS[name]
        assert not any(table[column].is_nan().any() for column, kind in table.schema.items() if kind.is_float())
        key = [c for c in table.columns if table.schema[c] == pl.String or c in ("bin", "threshold")]
        assert not table.select(key).is_duplicated().any(), name


def test_temperatures_come_from_validation_alone(made, own):
    """Other test labels, the same temperature."""
    before = run(own)["calibration"].filter(scaling="temperature")
    splits = pl.read_parquet(own / "splits.parquet")
    tested = splits.filter(pl.col("part") == "test")["stay_id"].unique()
    validated = splits.filter(pl.col("fold").is_in([0, 1]), pl.col("part") == "val")["stay_id"].unique()
    turn = pl.col("stay_id").is_in(tested.implode()) & ~pl.col("stay_id").is_in(validated.implode())
    path = own / "cohort" / "labels.parquet"
    labels = pl.read_parquet(path)
    labels.with_columns(icu_mortality=pl.col("icu_mortality") ^ turn).write_parquet(path)
    after = run(own)["calibration"].filter(scaling="temperature")
    of = {"task": "mortality", "strategy": "lstm", "cohort": "base"}
    assert before.filter(**of)["temperature"].item() == after.filter(**of)["temperature"].item()
    assert before.filter(**of)["brier"].item() != after.filter(**of)["brier"].item()
    assert before["temperature"].null_count() == 0


def test_the_frontier_holds_whom_no_cheaper_one_beats(tables):
    for (_, _), rows in tables["score_cost"].group_by("task", "cohort", maintain_order=True):
        for row in rows.iter_rows(named=True):
            beaten = [
                other
                for other in rows.iter_rows(named=True)
                if (other["flops_with_image"] <= row["flops_with_image"] and other["value"] > row["value"])
                or (other["flops_with_image"] < row["flops_with_image"] and other["value"] == row["value"])
            ]
            assert row["frontier"] == (not beaten)
    bare = compare_without_flops(tables)
    assert bare["frontier"].null_count() == bare.filter(strategy="lstm").height


def compare_without_flops(tables):
    from pipeline.questions.which.compare import _score_cost

    fitted = pl.col("strategy") == "lstm"
    costs = COSTS.with_columns(pl.when(~fitted).then(pl.col("flops_with_image")).alias("flops_with_image"))
    return _score_cost(tables["ranking"], costs)


def test_the_same_bytes_twice(made, tables, tmp_path):
    write(tables, tmp_path / "one", GRID, EVALUATION, SETTINGS)
    write(run(made / "data"), tmp_path / "two", GRID, EVALUATION, SETTINGS)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    markdown = ("calibration", "decision", "los", "ranking", "score_cost", "tuning")
    assert names == sorted([f"{name}.csv" for name in SCHEMAS] + [f"{name}.md" for name in markdown])
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert UNTUNED in (tmp_path / "one" / "ranking.md").read_text()
    one, two = (answer(tmp_path / each, GRID, EVALUATION, SETTINGS) for each in ("one", "two"))
    assert one == two


def test_a_grid_of_one_unimodal_strategy_and_one_task(made, tmp_path):
    scale = training(folds=(0,))
    fabricate(tmp_path / "one", scale, ["lstm"], ["phenotype"], stays=150)
    grid = Grid(("lstm",), ("phenotype",))
    found = run(tmp_path / "one" / "data", grid, scale)
    assert found["ranking"]["rank"].to_list() == [1.0] * 4
    assert found["ranking"]["set_low"].null_count() == 4
    assert found["decision"].height == found["los"].height == 0
    write(found, tmp_path / "tables", grid, EVALUATION, SETTINGS)
    shown = answer(tmp_path / "tables", grid, EVALUATION, SETTINGS)
    assert "lstm alone was scored" in shown.sentence
    assert not [table for table in shown.tables if table.source in ("tables/los.csv", "tables/decision.csv")]


@pytest.mark.usefixtures("undrawn")
def test_nobody_dies_and_no_image(own, tmp_path):
    stays, labels = own / "cohort" / "stays.parquet", own / "cohort" / "labels.parquet"
    pl.read_parquet(stays).with_columns(has_cxr=pl.lit(False)).write_parquet(stays)
    pl.read_parquet(labels).with_columns(icu_mortality=pl.lit(False), shock=pl.lit(True)).write_parquet(labels)
    found = run(own)
    dead = found["ranking"].filter(task="mortality")
    assert dead["value"].null_count() == dead["rank"].null_count() == dead.height
    nobody = found["calibration"].filter(cohort="matched")
    assert nobody["brier"].null_count() == nobody.height
    assert set(nobody["n"]) == {"0"}
    shock = found["calibration"].filter(cohort="base", label="shock")
    assert shock["slope"].null_count() == shock.height
    assert shock["brier"].null_count() == 0
    assert found["calibration"].filter(cohort="base", label="icu_mortality")["temperature"].null_count() == 6
    for table in found.values():
        assert not any(table[column].is_nan().any() for column, kind in table.schema.items() if kind.is_float())
    write(found, tmp_path / "tables", GRID, EVALUATION, SETTINGS)
    assert "nan" not in "".join(path.read_text().lower() for path in (tmp_path / "tables").iterdir()).replace(
        "finan", ""
    )
    shown = answer(tmp_path / "tables", GRID, EVALUATION, SETTINGS)
    assert "ICU mortality: AUROC is not estimable" in shown.sentence


def test_a_single_subject(tmp_path):
    scale = training(folds=(0, 1))
    fabricate(tmp_path, scale, GRID.strategies, GRID.tasks, stays=200)
    path = tmp_path / "data" / "cohort" / "stays.parquet"
    pl.read_parquet(path).with_columns(subject_id=pl.lit(5)).write_parquet(path)
    found = run(tmp_path / "data", scale=scale)["ranking"]
    for column in ("low", "high", "rank_low", "set_low", "share_best"):
        assert found[column].null_count() == found.height
    assert found["rank"].null_count() == found["value"].null_count() == 0


def test_an_unknown_length_of_stay_is_named(own):
    path = own / "cohort" / "stays.parquet"
    stays = pl.read_parquet(path)
    stays.with_columns(los_days=pl.when(pl.int_range(pl.len()) != 3).then("los_days")).write_parquet(path)
    with pytest.raises(InputError, match=rf"los_days is null for stay_id {stays['stay_id'][3]}"):
        run(own)


def test_removed_images_are_left_to_robustness(tmp_path):
    scale = training(folds=(0,), missing=(0.0, 0.5))
    fabricate(tmp_path, scale, ["lstm", "resnet"], ["mortality"], stays=200)
    grid = Grid(("lstm", "resnet"), ("mortality",))
    plain = dataclasses.replace(scale, train_missing=(0.0,))
    found = run(tmp_path / "data", grid, scale)
    for strategy in grid.strategies:
        path = tmp_path / "data" / "runs" / strategy / "mortality" / "predictions.parquet"
        pl.read_parquet(path).filter(pl.col("train_missing") == 0).write_parquet(path)
    again = run(tmp_path / "data", grid, plain)
    assert all(found[name].equals(again[name]) for name in found)


def tune(folder):
    """As if every strategy had had two trials on every task."""
    add_trials(folder, {(strategy, task): (0.3, 0.4) for strategy in GRID.strategies for task in GRID.tasks})
    write_tuning(folder, folder)


def test_an_ensemble_is_scored_beside_the_strategies_and_ranked_among_none(own, tables, tmp_path):
    """One that is the best strategy's twin stands in nobody's way."""
    add_ensemble(own, "both", "late_fusion")
    found = run(own, dataclasses.replace(GRID, ensembles=("both",)))
    others = pl.col("strategy") != "both"
    assert found["ranking"].filter(others).equals(tables["ranking"])
    for name in ("calibration", "reliability", "decision", "los", "score_cost"):
        assert found[name].filter(others).equals(tables[name]), name
        assert found[name].filter(strategy="both").height == tables[name].filter(strategy="late_fusion").height, name
    keys = ["task", "cohort", "metric"]
    both = found["ranking"].filter(strategy="both").join(tables["ranking"].filter(strategy="late_fusion"), on=keys)
    assert both.height == tables["ranking"].filter(strategy="late_fusion").height
    assert both["value"].equals(both["value_right"], check_names=False)
    assert both["low"].equals(both["low_right"], check_names=False)
    assert set(both["rank"]) == set(both["set_low"]) == set(both["share_best"]) == {None}
    costs = found["score_cost"].filter(strategy="both")
    assert set(costs["parameters"]) == set(costs["frontier"]) == {None}
    write(found, tmp_path, GRID, EVALUATION, SETTINGS)
    assert UNRANKED in (tmp_path / "ranking.md").read_text()
    write(tables, tmp_path, GRID, EVALUATION, SETTINGS)
    assert UNRANKED not in (tmp_path / "ranking.md").read_text()


@pytest.mark.usefixtures("undrawn")
def test_the_page_tells_an_ensembles_weights_and_scores(own, tmp_path):
    grid = Grid(GRID.strategies, ("los",), ("both",))
    knobs = Ensemble(("resnet", "lstm"), "greedy", 3, 0, "monitor", 1)
    made = make(own, grid, {"both": knobs}, SCALE, own / "ensembles")["ensemble"]
    write(run(own, grid), tmp_path, grid, EVALUATION, SETTINGS)
    with pytest.raises(InputError, match=r"ensemble\.csv: not found"):
        answer(tmp_path, grid, EVALUATION, SETTINGS)
    made.write_csv(tmp_path / "ensemble.csv")
    shown = answer(tmp_path, grid, EVALUATION, SETTINGS)
    assert UNRANKED in shown.notes
    base, matched = [table for table in shown.tables if table.source == "tables/ensemble.csv"]
    assert (base.title, matched.title) == tuple(f"both: Length of stay, {each} cohort" for each in ("base", "matched"))
    assert "Accuracy on the validation stays" in base.note
    assert "What predicts: greedy selection." in base.note
    lines = ["(best single)", "(unweighted mean)", "(greedy selection)", "(TPE)"]
    assert [row[0] for row in base.rows] == ["lstm", "resnet", *lines]
    rows = made.filter(cohort="base", presence="image", component="resnet")
    assert rows.height == len(RUNS)
    assert base.rows[1][1].value == pytest.approx(rows["weight"].mean())
    assert base.rows[1][2:5] == tuple(
        (pytest.approx(rows[each].mean()), None, None) for each in ("validation", "test", "optimism")
    )
    assert base.rows[1][5:] == ("–", (None, None, None), (None, None, None), (None, None, None))
    assert answer(tmp_path, GRID, EVALUATION, SETTINGS).tables[-1].source != "tables/ensemble.csv"


@pytest.mark.usefixtures("undrawn")
def test_the_answer_claims_only_what_the_sets_carry(tables, tmp_path):
    write(tables, tmp_path, GRID, EVALUATION, SETTINGS)
    untuned = answer(tmp_path, GRID, EVALUATION, SETTINGS)
    assert untuned.notes[0].startswith(f"{UNTUNED}: ")
    assert untuned.sentence.startswith("Settings were tuned for no strategy: nothing is claimed")
    assert untuned.figures[0].name == "ranking_mortality_base"
    tune(tmp_path)
    tuned = answer(tmp_path, GRID, EVALUATION, SETTINGS)
    assert not [note for note in tuned.notes if "untuned" in note]
    first = (
        pl.read_csv(tmp_path / "ranking.csv").filter(task="mortality", cohort="base", metric="auroc").row(0, named=True)
    )
    text = f"ICU mortality: {first['strategy']} scores higher than all 2 others, AUROC {first['value']:.3f}"
    assert (text in tuned.sentence) == (first["set_high"] == 1 and int(first["positives"]) >= 50)
    ranking = pl.read_csv(tmp_path / "ranking.csv", schema=SCHEMAS["ranking"])
    ranking.with_columns(set_low=1, set_high=3, n=200, positives=80).write_csv(tmp_path / "ranking.csv")
    vague = answer(tmp_path, GRID, EVALUATION, SETTINGS)
    assert "ICU mortality: too small to tell, any of 3 strategies may be first" in vague.sentence


def test_a_score_has_the_same_digits_beside_its_rank_and_beside_its_cost(tables, tmp_path):
    write(tables, tmp_path, GRID, EVALUATION, SETTINGS)
    keys = ["task", "cohort", "metric", "strategy"]
    ranking, cost = (
        pl.read_csv(tmp_path / f"{name}.csv", infer_schema_length=None).select(*keys, "value", "low", "high")
        for name in ("ranking", "score_cost")
    )
    both = cost.join(ranking, on=keys, suffix="_ranked")
    assert both.height == cost.height > 0
    for name in ("value", "low", "high"):
        assert both[name].to_list() == both[f"{name}_ranked"].to_list()


@pytest.mark.usefixtures("undrawn")
def test_a_handful_of_stays_names_no_best_strategy(tables, tmp_path):
    """On five stays one strategy may be right about all: its confidence set is one place, and means nothing."""
    write(tables, tmp_path, GRID, EVALUATION, SETTINGS)
    tune(tmp_path)
    ranking = tables["ranking"].with_columns(set_low=1, set_high=1)
    for few in ({"n": "49"}, {"positives": "12"}, {"positives": "<10"}, {"positives": "hidden"}):
        ranking.with_columns(pl.lit(text).alias(name) for name, text in few.items()).write_csv(tmp_path / "ranking.csv")
        shown = answer(tmp_path, GRID, EVALUATION, SETTINGS).sentence
        assert f"ICU mortality: too small to tell on {few.get('n', ranking['n'][0])} test stays" in shown
        assert ("scores higher" in shown) is False
    ranking.with_columns(n=200, positives=80).write_csv(tmp_path / "ranking.csv")
    shown = answer(tmp_path, GRID, EVALUATION, SETTINGS).sentence
    assert "scores higher than all 2 others, AUROC" in shown
    one_task = ranking.filter(task="mortality", cohort="base", metric="auroc")
    two = one_task.with_columns(n=pl.lit("200"), positives=pl.lit("80")).head(2)
    assert "scores higher than the one other, AUROC" in sentence(two, 1)
    unknown = one_task.with_columns(n=pl.lit("1"), rank=pl.lit(None, pl.Float64))
    assert sentence(unknown, 1) == "In the base cohort: ICU mortality: AUROC is not estimable on 1 test stay."
    assert sentence(unknown.clear(), 1) == brief(unknown.clear(), 1) == "There is no task to compare strategies on."
    sure = two.with_columns(set_low=1, set_high=1)
    first, score = two["strategy"][0], f"{two['value'][0]:.3f}"
    told = f"In the base cohort the highest score is {first}'s on ICU mortality (AUROC {score})"
    assert brief(sure, 1) == f"On ICU mortality {first} scores highest for certain. {told}."
    vague = "The data are too small to tell which strategy is best on ICU mortality."
    assert brief(sure.with_columns(set_high=2), 1) == f"{vague} {told}."
    claim = "; settings were tuned for no strategy, so that nothing is claimed about which is better."
    assert brief(sure.with_columns(set_high=2), 0) == f"{vague} {told}{claim}"
    assert brief(unknown, 1) == vague
    both = pl.concat([sure, sure.with_columns(task=pl.lit("los"), metric=pl.lit("kappa"), strategy=pl.lit("other"))])
    assert f"on ICU mortality (AUROC {score}), other's on length of stay (κ {score})." in brief(both, 1)


def test_the_answer_names_a_missing_and_a_broken_table(tables, tmp_path):
    write(tables, tmp_path, GRID, EVALUATION, SETTINGS)
    (tmp_path / "los.csv").write_text("cohort,strategy\nbase\n")
    with pytest.raises(InputError, match=r"los\.csv: cannot be read"):
        answer(tmp_path, GRID, EVALUATION, SETTINGS)
    (tmp_path / "ranking.csv").unlink()
    with pytest.raises(InputError, match=r"ranking\.csv: not found"):
        answer(tmp_path, GRID, EVALUATION, SETTINGS)


def test_figures_are_one_line_of_svg_each_with_ids_of_their_own(tables, tmp_path):
    write(tables, tmp_path, GRID, EVALUATION, SETTINGS)
    shown = answer(tmp_path, GRID, EVALUATION, SETTINGS)
    names = [figure.name for figure in shown.figures]
    assert len(set(names)) == len(names) == 6 + 3 + 3 + 2 + 1
    for figure in shown.figures:
        assert figure.svg.startswith("<svg ")
        assert (tmp_path / figure.source.removeprefix("tables/")).is_file()
        assert "math" not in figure.svg
    for table in shown.tables:
        assert all(len(row) == len(table.header) for row in table.rows)


def test_quadratic_kappa_under_weights_is_that_of_scikit_learn():
    random = np.random.default_rng(0)
    truth, predicted = random.integers(0, 5, 60), random.integers(0, 5, 60)
    subjects = random.integers(0, 25, 60)
    draws = draw_subjects(subjects, 12, 0, "test", 0)
    rows = draws.rows(subjects)
    found = quadratic_kappa(confusion(predicted, truth, 5, rows, draws))
    for column, weight in enumerate(np.concatenate(draws.blocks, axis=1)[rows].T):
        expected = cohen_kappa_score(truth, predicted, weights="quadratic", sample_weight=weight, labels=range(5))
        assert found[column] == pytest.approx(expected)
    same = quadratic_kappa(
        confusion(np.full(6, 2), np.full(6, 2), 5, np.arange(6), draw_subjects(np.arange(6), 3, 0, "test", 0))
    )
    assert np.isnan(same).all()


def test_days_of_classes():
    assert days.class_days(30.0).tolist() == [2.5, 3.5, 4.5, 5.5, 6.5, 10.5, 22.0]
    assert len(days.class_days(30.0)) == len(LOS_EDGES)
    assert days.expected_days(np.eye(7), 20.0).tolist() == [2.5, 3.5, 4.5, 5.5, 6.5, 10.5, 17.0]
    subjects = np.arange(3)
    draws = draw_subjects(subjects, 2, 0, "test", 0)
    found = days.mean_absolute_error(np.array([2.0, 10, 25]), np.array([3.0, 4, 90]), 30.0, subjects, draws)
    assert found[0] == pytest.approx((1 + 6 + 5) / 3)


def test_net_benefit_of_everybody_is_the_prevalence_less_the_odds_of_the_rest():
    labels = np.array([True, False, False, False])
    subjects = np.arange(4)
    draws = draw_subjects(subjects, 5, 0, "test", 0)
    found = decision.net_benefit(np.ones(4), labels, subjects, draws)[:, 0]
    for value, threshold in zip(found, decision.THRESHOLDS, strict=True):
        assert value == pytest.approx(0.25 - 0.75 * threshold / (1 - threshold))
    assert decision.THRESHOLDS[0] == 0.01
    assert decision.THRESHOLDS[-1] == 0.5
    nobody = draw_subjects(np.zeros(0, np.int64), 5, 0, "test", 0)
    nothing = np.zeros(0, np.int64)
    assert np.isnan(decision.net_benefit(np.zeros(0), np.zeros(0, bool), nothing, nobody)).all()
