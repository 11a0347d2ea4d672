"""evaluate on fabricated artefacts: what is read and refused, what is averaged, and what is written."""

import dataclasses
import json
import shutil

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, cohen_kappa_score, f1_score, roc_auc_score

from pipeline.errors import InputError
from pipeline.evaluation.cells import read_history, read_people, read_predictions
from pipeline.evaluation.evaluate import evaluate, write
from pipeline.evaluation.scores import MACRO, Sampler, score
from pipeline.params import Evaluation, Grid
from pipeline.presentation.tables import Cell, results_latex, wide_tables
from pipeline.presentation.text import latex_row, markdown_table, number, plural, safe_markdown, with_interval
from pipeline.tasks import get_task, phenotype_slugs
from tests.support.made_up_runs import add_ensemble, fabricate, training

SCALE = training(folds=(0, 1), seeds=(0, 1))
EVALUATION = Evaluation(confidence=0.95, ece_bins=10, seed=1)
GRID = Grid(("lstm", "resnet"), ("mortality", "phenotype", "los"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("fabricated")
    fabricate(root, SCALE, GRID.strategies, GRID.tasks, stays=1000)
    return root


@pytest.fixture(scope="module")
def results(made):
    return evaluate(made / "data", GRID, SCALE, EVALUATION, 40)


@pytest.fixture
def own(made, tmp_path):
    """A copy of the artefacts, to be damaged."""
    shutil.copytree(made, tmp_path / "own")
    return tmp_path / "own" / "data"


def read(data, task="mortality", strategy="lstm", scale=SCALE):
    people = read_people(data, [get_task(task)], scale.folds)
    return read_predictions(data, get_task(task), strategy, scale, people)


def change(data, edit, task="mortality", strategy="lstm"):
    path = data / "runs" / strategy / task / "predictions.parquet"
    edit(pl.read_parquet(path)).write_parquet(path)


def test_rows_and_labels_of_a_cell(made):
    cell = read(made / "data")
    splits = pl.read_parquet(made / "data" / "splits.parquet").filter(pl.col("fold") < 2, pl.col("part") != "train")
    assert cell.height == splits.height * 2 * 2
    labels = pl.read_parquet(made / "data" / "cohort" / "labels.parquet")
    joined = cell.join(labels, on="stay_id", suffix="_there")
    assert (joined["icu_mortality"] == joined["icu_mortality_there"]).all()


def test_other_folders_are_ignored(made, own, results):
    fabricate(own.parent / "more", SCALE, ["drfuse"], ["mortality"], stays=60)
    shutil.copytree(own.parent / "more" / "data" / "runs" / "drfuse", own / "runs" / "drfuse")
    (own / "runs" / "lstm" / "old").mkdir()
    (own / "runs" / "lstm" / "old" / "predictions.parquet").write_bytes(b"not parquet")
    assert evaluate(own, GRID, SCALE, EVALUATION, 40).table.equals(results.table)


def test_an_ensemble_is_scored_as_a_strategy_and_has_no_history(own, results):
    add_ensemble(own, "both", "lstm")
    found = evaluate(own, dataclasses.replace(GRID, ensembles=("both",)), SCALE, EVALUATION, 40)
    assert found.history.equals(results.history)
    for name in ("table", "phenotypes", "roc", "pr", "calibration"):
        frame, before = getattr(found, name), getattr(results, name)
        of = [frame.filter(strategy=each).drop("strategy") for each in ("both", "lstm")]
        assert of[0].height
        assert of[0].equals(of[1]), name
        assert frame.filter(pl.col("strategy") != "both").equals(before), name
    assert found.metrics["dev"]["los"]["both"] == results.metrics["dev"]["los"]["lstm"]


def test_a_missing_cell_is_named(own):
    shutil.rmtree(own / "runs" / "resnet" / "los")
    with pytest.raises(InputError, match=r"resnet.los.predictions\.parquet: not found"):
        evaluate(own, GRID, SCALE, EVALUATION, 10)


def test_a_missing_and_a_surplus_run_are_named(own):
    more = dataclasses.replace(SCALE, seeds=(0, 1, 2))
    with pytest.raises(InputError, match=r"no run train_cohort=base, fold=0, seed=2, train_missing=0\.0"):
        read(own, scale=more)
    fewer = dataclasses.replace(SCALE, folds=(1,))
    with pytest.raises(InputError, match=r"a run train_cohort=base, fold=0, seed=0.* not ask for"):
        read(own, scale=fewer)
    with pytest.raises(InputError, match=r"history\.csv: no run train_cohort=base, fold=0, seed=2"):
        read_history(own, get_task("mortality"), "lstm", more)


def test_a_run_must_cover_its_stays_once(own):
    change(own, lambda frame: frame.slice(1))
    with pytest.raises(InputError, match=r"no prediction for stay_id \d+ \(\w+\) in run train_cohort=base, fold=0"):
        read(own)
    change(own, lambda frame: pl.concat([frame, frame.head(1)]), strategy="resnet")
    with pytest.raises(InputError, match=r"stay_id \d+ twice in run"):
        read(own, strategy="resnet")
    change(own, lambda frame: frame.with_columns(part=pl.lit("test")), task="los")
    with pytest.raises(InputError, match=r"no prediction for stay_id|is not in test"):
        read(own, task="los")


def test_a_training_stay_among_the_predictions_is_refused(own):
    splits = pl.read_parquet(own / "splits.parquet")
    train = splits.filter(pl.col("fold") == 0, pl.col("part") == "train")["stay_id"][0]
    change(
        own, lambda frame: pl.concat([frame, frame.head(1).with_columns(stay_id=pl.lit(train, frame["stay_id"].dtype))])
    )
    with pytest.raises(InputError, match=rf"stay_id {train} in run .* is not in dev of its fold"):
        read(own)


@pytest.mark.parametrize("value", [1.2, -0.01, float("nan"), None])
def test_what_is_no_probability_is_named(own, value):
    wrong = pl.when(pl.int_range(pl.len()) == 5).then(pl.lit(value, pl.Float32)).otherwise(pl.col("p_icu_mortality"))
    change(own, lambda frame: frame.with_columns(p_icu_mortality=wrong))
    with pytest.raises(InputError, match=r"p_icu_mortality of stay_id \d+ in run .* no probability"):
        read(own)


def test_softmax_rows_sum_to_one(own):
    change(own, lambda frame: frame.with_columns(pl.col("p_los_3") / 2), task="los")
    with pytest.raises(InputError, match=r"do not sum to 1"):
        read(own, task="los")


def test_columns_files_and_labels_that_are_absent_are_named(own):
    change(own, lambda frame: frame.drop("p_icu_mortality"))
    with pytest.raises(InputError, match=r"no column p_icu_mortality"):
        read(own)
    with pytest.raises(InputError, match=r"no fold 7"):
        read_people(own, [get_task("los")], (0, 7))
    path = own / "cohort" / "labels.parquet"
    labels = pl.read_parquet(path)
    labels.with_columns(shock=pl.when(pl.int_range(pl.len()) == 3).then(None).otherwise("shock")).write_parquet(path)
    with pytest.raises(InputError, match=r"labels\.parquet: shock is null for stay_id 30000021"):
        read_people(own, [get_task("phenotype")], (0,))
    labels.slice(1).write_parquet(path)
    with pytest.raises(InputError, match=r"labels\.parquet: no row for stay_id 30000000"):
        read_people(own, [get_task("phenotype")], (0,))
    path.unlink()
    with pytest.raises(InputError, match=r"labels\.parquet: not found"):
        read_people(own, [get_task("los")], (0,))


def test_rows_with_something_removed_at_inference_are_not_read(own):
    removed = {"test_modality": "cxr", "test_missing": 1.0, "test_mechanism": "mcar"}
    before = read(own)
    change(own, lambda frame: pl.concat([frame, frame.with_columns(**{k: pl.lit(v) for k, v in removed.items()})]))
    assert read(own).equals(before)


def naive(made, strategy, train, cohort, metric, label):
    """The metric by plain loops over folds and seeds."""
    cell = read(made / "data", "phenotype" if label != "icu_mortality" else "mortality", strategy)
    values = []
    for fold in SCALE.folds:
        for seed in SCALE.seeds:
            run = cell.filter(train_cohort=train, fold=fold, seed=seed)
            test = run.filter(pl.col("part") == "test", pl.lit(cohort == "base") | pl.col("has_cxr"))
            val = run.filter(pl.col("part") == "val", pl.lit(train == "base") | pl.col("has_cxr"))
            truth, scores = test[label].to_numpy(), test[f"p_{label}"].to_numpy()
            if metric == "f1":
                cuts = sorted(set(val[f"p_{label}"]))
                f1s = [f1_score(val[label], val[f"p_{label}"] >= cut, zero_division=0) for cut in cuts]
                cut = max(c for c, f in zip(cuts, f1s, strict=True) if f >= max(f1s) - 1e-12)
                values.append(f1_score(truth, scores >= cut))
            else:
                values.append({"auroc": roc_auc_score, "auprc": average_precision_score}[metric](truth, scores))
    return np.mean(values)


@pytest.mark.parametrize(
    ("train", "cohort"), [("base", "base"), ("matched", "matched"), ("matched", "base"), ("base", "matched")]
)
def test_scores_are_per_fold_and_seed_then_averaged(made, results, train, cohort):
    rows = results.table.filter(task="mortality", strategy="lstm", train_cohort=train, eval_cohort=cohort)
    for metric in ("auroc", "auprc", "f1"):
        value = rows.filter(metric=metric)["value"].item()
        assert value == pytest.approx(naive(made, "lstm", train, cohort, metric, "icu_mortality"))
    row = rows.filter(metric="auroc").row(0, named=True)
    assert row["low"] < row["value"] < row["high"]
    assert row["runs"] == row["runs_estimable"] == 4


def test_phenotypes_each_and_macro(made, results):
    one = results.phenotypes.filter(phenotype="shock", strategy="lstm", train_cohort="base", eval_cohort="base")
    assert one["auroc"].item() == pytest.approx(naive(made, "lstm", "base", "base", "auroc", "shock"))
    assert one["auroc_low"].item() < one["auroc"].item() < one["auroc_high"].item()
    each = results.phenotypes.filter(strategy="lstm", train_cohort="base", eval_cohort="base")
    assert each["phenotype"].to_list() == list(phenotype_slugs())
    macro = results.table.filter(
        task="phenotype", strategy="lstm", train_cohort="base", eval_cohort="base", metric="auroc"
    )
    assert macro["value"].item() == pytest.approx(each["auroc"].mean())
    assert macro["labels"].item() == each["auroc"].is_not_null().sum() == 25


def test_length_of_stay(made, results):
    cell = read(made / "data", "los").filter(part="test", train_cohort="base")
    kappas = []
    for run in cell.partition_by("fold", "seed"):
        predicted = run.select(f"p_los_{i}" for i in range(7)).to_numpy().argmax(1)
        kappas.append(cohen_kappa_score(run["los_class"], predicted))
    rows = results.table.filter(task="los", strategy="lstm", train_cohort="base", eval_cohort="base")
    assert rows.filter(metric="kappa")["value"].item() == pytest.approx(np.mean(kappas))
    assert rows.filter(metric="auroc")["labels"].item() == 7
    assert rows["metric"].to_list()[:2] == ["accuracy", "kappa"]


def test_strategies_share_their_draws(made):
    """Two strategies with the same predictions differ by exactly nothing in every draw."""
    task = get_task("mortality")
    people = read_people(made / "data", [task], SCALE.folds)
    cell = read(made / "data").filter(train_cohort="base")

    def scored(rows):
        return score(rows, task, "test", pl.lit(True), Sampler(people, 60, 1), 10).values

    first = scored(cell)
    shuffled = scored(cell.sample(fraction=1, shuffle=True, seed=1))
    for key, values in first.items():
        assert np.allclose(values, shuffled[key], equal_nan=True)
    same_ranks = scored(cell.with_columns(pl.col("p_icu_mortality") * 0.5 + 0.2))
    assert np.allclose(same_ranks["icu_mortality", "auroc"], first["icu_mortality", "auroc"], equal_nan=True)
    assert not np.allclose(same_ranks["icu_mortality", "brier"], first["icu_mortality", "brier"])


def test_what_cannot_be_estimated_is_null_and_counted(own):
    path = own / "cohort" / "labels.parquet"
    labels = pl.read_parquet(path)
    labels.with_columns(shock=pl.lit(False), icu_mortality=pl.lit(False)).write_parquet(path)
    change(own, lambda frame: frame.with_columns(p_cardiac_dysrhythmias=pl.lit(0.25, pl.Float32)), task="phenotype")
    found = evaluate(own, GRID, SCALE, EVALUATION, 20)
    shock = found.phenotypes.filter(phenotype="shock", strategy="lstm")
    for column in ("auroc", "auprc", "f1", "auroc_low", "auprc_high"):
        assert shock[column].null_count() == shock.height
    assert shock["brier"].null_count() == 0
    constant = found.phenotypes.filter(phenotype="cardiac_dysrhythmias", strategy="lstm")
    assert set(constant["auroc"]) == {0.5}
    macro = found.table.filter(
        task="phenotype", strategy="lstm", metric="auroc", train_cohort="base", eval_cohort="base"
    )
    assert macro["labels"].item() == 24
    assert macro["value"].item() is not None
    dead = found.table.filter(task="mortality", metric="auroc")
    assert dead["value"].null_count() == dead.height
    assert dead["runs_estimable"].to_list() == [0] * dead.height
    assert found.roc.height == 0
    for frame in (found.table, found.phenotypes, found.calibration):
        assert not any(frame[name].is_nan().any() for name, kind in frame.schema.items() if kind.is_float())
    write(found, own.parent / "reports", 0.95)
    content = json.loads((own.parent / "reports" / "metrics" / "test" / "mortality.json").read_text())
    assert content["lstm"]["base"]["auroc"] is None
    assert "NaN" not in (own.parent / "reports" / "tables" / "results.csv").read_text()


def test_no_matched_stay_at_all(own):
    path = own / "cohort" / "stays.parquet"
    pl.read_parquet(path).with_columns(has_cxr=pl.lit(False)).write_parquet(path)
    found = evaluate(own, GRID, SCALE, EVALUATION, 20).table.filter(eval_cohort="matched")
    assert found["value"].null_count() == found.height
    assert set(found["n"]) == {"0"}


def test_shares_removed_and_how_are_separate_rows(tmp_path):
    scale = dataclasses.replace(training(folds=(0,), missing=(0.0, 0.5)), train_mechanisms=("mcar", "mar"))
    fabricate(tmp_path, scale, ["lstm"], ["mortality"], stays=200)
    found = evaluate(tmp_path / "data", Grid(("lstm",), ("mortality",)), scale, EVALUATION, 20)
    kinds = (
        found.table.select("train_cohort", "train_missing", "train_mechanism")
        .unique()
        .sort("train_cohort", "train_missing", "train_mechanism")
    )
    whole = [("base", 0.0, "none"), ("matched", 0.0, "none")]
    assert kinds.rows() == [*whole, ("matched", 0.5, "mar"), ("matched", 0.5, "mcar")]
    titles = [each.title for each in wide_tables(found.table, "mortality") if each.train_missing]
    assert titles == [
        f"Trained on matched, evaluated on {cohort}, 50% of training images removed {how}"
        for how in ("by patient traits", "at random")
        for cohort in ("matched", "base")
    ]
    plain = found.table.filter(train_cohort="matched", eval_cohort="matched", train_missing=0.0, metric="auroc")
    assert found.metrics["test"]["mortality"]["lstm"]["matched"]["auroc"] == plain["value"].item()


def test_written_files(results, tmp_path):
    (tmp_path / "metrics" / "test").mkdir(parents=True)
    (tmp_path / "metrics" / "test" / "oldtask.json").write_text("{}")
    write(results, tmp_path, 0.95)
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert names == [
        *(f"metrics/dev/{task}.json" for task in ("los", "mortality", "phenotype")),
        *(f"metrics/sweep/{name}.json" for name in ("lstm", "resnet")),
        *(f"metrics/test/{task}.json" for task in ("los", "mortality", "phenotype")),
        *(f"plots/{name}.csv" for name in ("calibration", "history", "pr", "roc")),
        *(f"tables/{name}" for name in ("phenotypes.csv", "phenotypes.md", "results.csv", "results.md", "results.tex")),
    ]
    small = json.loads((tmp_path / "metrics" / "test" / "mortality.json").read_text())
    assert set(small) == {"lstm", "resnet"}
    assert set(small["lstm"]) == {"base", "matched"}
    assert set(small["lstm"]["base"]) == {"auroc", "auprc", "f1", "brier"}
    assert all(isinstance(value, float) for value in small["lstm"]["base"].values())
    assert small != json.loads((tmp_path / "metrics" / "dev" / "mortality.json").read_text())
    first = {"los": "accuracy", "mortality": "auroc", "phenotype": "auroc"}
    dev = {task: json.loads((tmp_path / "metrics" / "dev" / f"{task}.json").read_text()) for task in first}
    for strategy in ("lstm", "resnet"):
        shown = json.loads((tmp_path / "metrics" / "sweep" / f"{strategy}.json").read_text())
        assert shown == {task: dev[task][strategy]["base"][metric] for task, metric in first.items()}
    table = pl.read_csv(tmp_path / "tables" / "results.csv")
    assert table.height == results.table.height == 2 * 3 * 4 * 7
    history = pl.read_csv(tmp_path / "plots" / "history.csv")
    assert {"epoch", "train_loss", "val_loss", "metric", "strategy", "task", "cohort", "fold", "seed"} <= set(
        history.columns
    )
    assert history.height == 3 * 2 * 2 * 2 * 2 * 3
    assert "| lstm | 0." in (tmp_path / "tables" / "results.md").read_text()


def test_the_same_bytes_twice(made, results, tmp_path):
    write(results, tmp_path / "one", 0.95)
    write(evaluate(made / "data", GRID, SCALE, EVALUATION, 40), tmp_path / "two", 0.95)
    for path in (tmp_path / "one").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_macro_label_is_no_phenotype():
    assert MACRO not in phenotype_slugs()


def test_text_stays_text():
    assert safe_markdown("a|b\n<script>`x`*y* [z](u)") == r"a\|b &lt;script&gt;\`x\`\*y\* \[z\](u)"
    assert safe_markdown("late_fusion _x_") == r"late_fusion \_x\_"
    assert markdown_table(["a", "b"], [["x|y", 1]]).splitlines()[2] == r"| x\|y | 1 |"
    assert number(None) == "n. e."
    assert number(-0.0001) == "0.000"
    assert number(-0.5) == "−0.500"
    assert with_interval(0.5, 0.4, 0.6) == "0.500 (0.400–0.600)"
    assert with_interval(0.5, None, None) == "0.500"
    assert (plural(1, "run"), plural(0, "run"), plural(2, "run")) == ("1 run", "0 runs", "2 runs")
    told = [Cell(0.5, 0.4, 0.6).told, Cell(0.5, None, None).told, Cell(None, None, None).told]
    assert told == ["0.500 (0.400–0.600)", "0.500 (too few stays for an interval)", "not estimable"]


def test_latex_shows_text_as_it_is_and_holds_the_headline():
    assert latex_row(["a_b & 5% {x}", "κ −0.1–0.2", "\\"]) == (
        r"a\_b \& 5\% \{x\} & $\kappa$ $-$0.1--0.2 & \textbackslash{} \\"
    )
    row = {"task": "mortality", "part": "test", "train_missing": 0.0, "train_mechanism": "none"}
    row |= {"n": 9, "positives": 3, "runs": 1, "labels": None}
    rows = [
        {**row, "strategy": "late_fusion", "train_cohort": c, "eval_cohort": c, "metric": m, **value}
        for c in ("base", "matched")
        for m, value in (
            ("auroc", {"value": 0.8, "low": 0.7, "high": 0.9}),
            ("auprc", {"value": None, "low": None, "high": None}),
        )
    ]
    text = results_latex(pl.DataFrame(rows), 0.95)
    assert r"Strategy & AUROC (base) & AUPRC (base) & AUROC (matched) & AUPRC (matched) \\" in text
    assert r"late\_fusion & 0.800 (0.700--0.900) & n. e. & 0.800 (0.700--0.900) & n. e. \\" in text
    assert text.count(r"\begin{tabular}{lrrrr}") == text.count(r"\end{tabular}") == 1
