"""Question 1 on fabricated artefacts: what is compared with what, in which strata, and what is written."""

import dataclasses
import shutil

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, cohen_kappa_score, roc_auc_score

from pipeline.errors import InputError
from pipeline.estimation.randomisation import holm
from pipeline.evaluation.cells import read_people, read_predictions
from pipeline.evaluation.reading import read_table
from pipeline.params import Evaluation, Grid, Verdicts
from pipeline.presentation.text import suppressed
from pipeline.questions.when import control
from pipeline.questions.when.gain import gain, source
from pipeline.questions.when.ladder import ladder
from pipeline.questions.when.strata import label_groups
from pipeline.questions.when.tables import icd, write
from pipeline.tasks import get_task, phenotype_slugs
from tests.support.made_up_runs import add_control, fabricate, training

SCALE = training(folds=(0, 1), seeds=(0, 1))
EVALUATION = Evaluation(confidence=0.95, ece_bins=10, seed=1)
RULE = Verdicts(margin=0.01, confidence=0.95, equivalence_confidence=0.9, permutations=99, control_auroc=0.7)
COHORTS = ("base", "matched")
GRID = Grid(
    ("lstm", "transformer", "resnet", "ehr_presence", "ehr_metadata", "late_fusion", "medfuse"),
    ("mortality", "phenotype", "los"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("gain")
    fabricate(root, SCALE, GRID.strategies, GRID.tasks, stays=900)
    return root / "data"


def known(data, grid=GRID, scale=SCALE, draws=60):
    return source(data, grid, scale, EVALUATION, RULE, draws)


@pytest.fixture(scope="module")
def found(made):
    return gain(known(made))


@pytest.fixture
def own(made, tmp_path):
    """A copy of the artefacts, to be damaged."""
    shutil.copytree(made, tmp_path / "own")
    return tmp_path / "own"


def one(table, **where):
    rows = table.filter(**where)
    assert rows.height == 1, rows
    return rows.row(0, named=True)


def scores(data, task, strategy, cohort, part, metric, where=True):
    """The metric by label, averaged over the runs that have both classes: by scikit-learn."""
    people = read_people(data, [get_task(task)], SCALE.folds, ["icd_version"])
    cell = read_predictions(data, get_task(task), strategy, SCALE, people)
    cell = cell.join(people.select("fold", "stay_id", "icd_version"), on=["fold", "stay_id"])
    rows = cell.filter((pl.col("part") == part) & where, train_cohort=cohort)
    if cohort == "matched":
        rows = rows.filter("has_cxr")
    runs = rows.partition_by("fold", "seed")
    return {
        label: np.mean([metric(run, label) for run in runs if run[label].n_unique() > 1])
        for label in get_task(task).labels
    }


def auroc(run, label):
    return roc_auc_score(run[label], run[f"p_{label}"])


def auprc(run, label):
    return average_precision_score(run[label], run[f"p_{label}"])


def test_both_strategies_are_chosen_on_validation_alone(made, found):
    for task, metric in (("mortality", auroc), ("phenotype", auroc)):
        for role, names in (("unimodal", ("lstm", "transformer", "resnet")), ("fusion", ("late_fusion", "medfuse"))):
            rows = found.chosen.filter(task=task, cohort="matched", role=role)
            assert tuple(rows["strategy"]) == names
            naive = [np.mean(list(scores(made, task, name, "matched", "val", metric).values())) for name in names]
            assert rows["validation"].to_list() == pytest.approx(naive)
            assert rows.filter("chosen")["strategy"].to_list() == [names[int(np.argmax(naive))]]


def test_what_test_says_does_not_change_the_choice(own, found):
    """On test, the other unimodal strategy becomes perfect: it is not chosen, and compared with as little."""
    path = own / "runs" / "resnet" / "mortality" / "predictions.parquet"
    labels = pl.read_parquet(own / "cohort" / "labels.parquet").select("stay_id", "icu_mortality")
    frame = pl.read_parquet(path).join(labels, on="stay_id", how="left", maintain_order="left")
    better = (
        pl.when(pl.col("part") == "test").then(pl.col("icu_mortality").cast(pl.Float32)).otherwise("p_icu_mortality")
    )
    frame.with_columns(p_icu_mortality=better).drop("icu_mortality").write_parquet(path)
    mortality = Grid(GRID.strategies, ("mortality",))
    changed = gain(known(own, mortality))
    assert changed.chosen.equals(found.chosen.filter(task="mortality"))
    names = ["difference", "low", "high", "p"]
    assert changed.table.select(names).equals(found.table.filter(task="mortality").select(names))


@pytest.mark.parametrize("cohort", ["base", "matched"])
def test_differences_are_those_of_scikit_learns_metrics(made, found, cohort):
    best = found.chosen.filter("chosen", role="unimodal", task="phenotype", cohort=cohort)["strategy"][0]
    for name, metric in (("auroc", auroc), ("auprc", auprc)):
        own = scores(made, "phenotype", "medfuse", cohort, "test", metric)
        against = scores(made, "phenotype", best, cohort, "test", metric)
        key = {"task": "phenotype", "cohort": cohort, "strategy": "medfuse", "metric": name, "stratum": "all"}
        for label in ("shock", "pneumonia_except_that_caused_by_tuberculosis_or_sexually_transmitted_disease"):
            row = one(found.table, label=label, **key)
            assert row["unimodal"] == best
            assert (row["value"], row["unimodal_value"]) == pytest.approx((own[label], against[label]))
            assert row["difference"] == pytest.approx(own[label] - against[label])
            assert row["low"] < row["equivalence_low"] < row["equivalence_high"] < row["high"]
        macro = one(found.table, label="macro", **key)
        assert macro["difference"] == pytest.approx(np.mean([own[label] - against[label] for label in own]))


def test_length_of_stay_is_compared_by_accuracy_and_kappa(made, found):
    def classes(run):
        return run["los_class"], run.select(f"p_los_{i}" for i in range(7)).to_numpy().argmax(axis=1)

    best = found.chosen.filter("chosen", role="unimodal", task="los", cohort="base")["strategy"][0]
    for name, metric in (("accuracy", accuracy_score), ("kappa", cohen_kappa_score)):
        own, against = (
            scores(made, "los", strategy, "base", "test", lambda run, _, m=metric: m(*classes(run)))["los_class"]
            for strategy in ("late_fusion", best)
        )
        row = one(found.table, task="los", cohort="base", strategy="late_fusion", metric=name, stratum="all")
        assert row["difference"] == pytest.approx(own - against)
        assert row["positives"] is None


def test_strata_are_of_stays_by_image_and_coding_and_of_phenotypes_by_type_and_prevalence(made, found):
    best = found.chosen.filter("chosen", role="unimodal", task="phenotype", cohort="base")["strategy"][0]
    rows = found.table.filter(task="phenotype", cohort="base", strategy="late_fusion", metric="auroc", label="macro")
    assert [tuple(row) for row in rows.select("stratum", "group").iter_rows()] == [
        ("all", "all"),
        ("type", "acute"),
        ("type", "chronic"),
        *(("prevalence", name) for name in ("low", "middle", "high")),
        ("has_cxr", "yes"),
        ("has_cxr", "no"),
        ("icd_version", "9"),
        ("icd_version", "10"),
    ]
    for group, where in {"yes": pl.col("has_cxr"), "no": ~pl.col("has_cxr"), "10": pl.col("icd_version") == 10}.items():
        own, against = (
            np.mean(list(scores(made, "phenotype", name, "base", "test", auroc, where).values()))
            for name in ("late_fusion", best)
        )
        assert one(rows, group=group)["difference"] == pytest.approx(own - against)
    assert "has_cxr" not in found.table.filter(cohort="matched")["stratum"].unique().to_list()


def test_phenotypes_are_grouped_by_the_benchmarks_types_and_by_their_counts(made):
    task = get_task("phenotype")
    people = read_people(made, [task], (0,))
    groups = label_groups(task, people, "matched")
    parts = [groups["prevalence", name] for name in ("low", "middle", "high")]
    assert [len(part) for part in parts] == [9, 8, 8]
    matched = people.filter("has_cxr")
    shares = [[matched[label].sum() for label in part] for part in parts]
    assert max(shares[0]) <= min(shares[1])
    assert max(shares[1]) <= min(shares[2])
    for split in (parts, [groups[key] for key in groups if key[0] == "type"]):
        assert sorted(label for part in split for label in part) == sorted(phenotype_slugs())
    assert label_groups(get_task("mortality"), people, "base") == {}


def test_the_confirmatory_family_is_one_test_a_label_task_and_cohort(found):
    family = found.table.filter(family="confirmatory")
    assert family.height == 2 * (1 + 26 + 1)
    assert family.select("task", "cohort", "label").is_unique().all()
    assert set(family["metric"]) == {"auroc", "accuracy"}
    for task, cohort in family.select("task", "cohort").unique().iter_rows():
        winner = found.chosen.filter("chosen", role="fusion", task=task, cohort=cohort)["strategy"][0]
        assert set(family.filter(task=task, cohort=cohort)["strategy"]) == {winner}
    assert family["p_holm"].to_list() == pytest.approx(holm(family["p"].to_list()))


def test_exploratory_rows_are_adjusted_within_their_block(found):
    block = found.table.filter(
        task="phenotype", cohort="base", stratum="all", metric="auroc", family="exploratory", group="all"
    )
    assert set(block["strategy"]) == {"late_fusion", "medfuse"} - set(
        found.chosen.filter("chosen", role="fusion", task="phenotype", cohort="base")["strategy"]
    )
    assert block["p_holm"].to_list() == pytest.approx(holm(block["p"].to_list()))


def test_p_of_the_second_metric_is_that_of_the_chosen_strategy_alone(found):
    second = found.table.filter(pl.col("metric").is_in(["auprc", "kappa"]), stratum="all")
    assert second.filter("chosen")["p"].null_count() == 0
    assert second.filter(~pl.col("chosen"))["p"].null_count() == second.filter(~pl.col("chosen")).height
    assert found.table.filter(pl.col("metric").is_in(["auroc", "accuracy"]))["p"].null_count() == 0


def test_a_strong_fusion_strategy_is_a_gain_and_one_against_itself_nothing(own, found):
    """late_fusion is fabricated stronger than any unimodal strategy; medfuse becomes a copy of the best of these."""
    row = one(
        found.table,
        task="phenotype",
        cohort="base",
        label="macro",
        metric="auroc",
        stratum="all",
        strategy="late_fusion",
    )
    assert (row["verdict"], row["p"]) == ("gain", 0.01)
    best = found.chosen.filter("chosen", role="unimodal", task="mortality", cohort="base")["strategy"][0]
    name = "mortality/predictions.parquet"
    shutil.copy(own / "runs" / best / name, own / "runs" / "medfuse" / name)
    table = gain(known(own, Grid((best, "medfuse"), ("mortality",)))).table
    same = one(table, cohort="base", metric="auroc", stratum="all")
    assert (same["difference"], same["low"], same["verdict"], same["p"]) == (0.0, None, None, 1.0)


@pytest.mark.parametrize(
    ("strategies", "tasks"),
    [(("lstm",), ("los",)), (("late_fusion",), ("mortality",)), (("ehr_presence",), ("phenotype",))],
)
def test_a_grid_without_a_pair_gives_empty_tables(made, tmp_path, strategies, tasks):
    reading = known(made, Grid(strategies, tasks))
    result = gain(reading)
    assert result.table.height == 0
    climbed = ladder(reading, result.chosen, {})
    write(result, climbed, icd(reading.people, phenotype_slugs() if "phenotype" in tasks else ()), RULE, tmp_path)
    assert set(climbed.filter(pl.col("left_out").is_not_null())["rung"]) >= {"permuted"}
    assert (tmp_path / "gain.csv").read_text().count("\n") == 1


def test_nothing_to_choose_from_nothing_estimable_and_single_subjects_are_empty_fields(own, tmp_path):
    """One death, in test; no image in test; one phenotype without positives: no NaN, and no crash."""
    splits = pl.read_parquet(own / "splits.parquet")
    test = splits.filter(fold=0, part="test")["stay_id"]
    path = own / "cohort" / "labels.parquet"
    labels = pl.read_parquet(path)
    dead = pl.col("stay_id") == test[0]
    labels.with_columns(icu_mortality=dead, shock=pl.lit(False)).write_parquet(path)
    stays = pl.read_parquet(own / "cohort" / "stays.parquet")
    images = pl.col("has_cxr") & ~pl.col("stay_id").is_in(splits.filter(part="test", fold=0)["stay_id"].implode())
    stays.with_columns(has_cxr=images).write_parquet(own / "cohort" / "stays.parquet")
    scale = dataclasses.replace(SCALE, folds=(0,))
    images_told = own / "probes" / "resnet" / "image_control.parquet"
    pl.read_parquet(images_told).clear().write_parquet(images_told)
    for task in GRID.tasks:
        for strategy in GRID.strategies:
            file = own / "runs" / strategy / task / "predictions.parquet"
            pl.read_parquet(file).filter(fold=0).write_parquet(file)
    reading = known(own, scale=scale)
    result = gain(reading)
    assert result.chosen.filter(task="mortality")["validation"].null_count() == 10
    assert result.table.filter(task="mortality").height == 0
    shock = result.table.filter(label="shock", metric="auroc")
    assert shock["verdict"].null_count() == shock.height > 0
    matched = result.table.filter(cohort="matched", stratum="all")
    assert matched["difference"].null_count() == matched.height > 0
    assert not any(result.passed.values())
    write(result, ladder(reading, result.chosen, {}), icd(reading.people, phenotype_slugs()), RULE, tmp_path)
    for file in tmp_path.glob("*.csv"):
        assert "NaN" not in file.read_text(), file
        assert "inf," not in file.read_text(), file


def test_the_same_bytes_twice_and_back(made, found, tmp_path):
    for folder in ("one", "two"):
        reading = known(made)
        result = gain(reading)
        climbed = ladder(reading, result.chosen, dict.fromkeys(result.passed, True))
        write(result, climbed, icd(reading.people, phenotype_slugs()), RULE, tmp_path / folder)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(
        f"{name}" for name in ("gain.csv", "gain.md", "chosen.csv", "ladder.csv", "ladder.md", "icd.csv", "icd.md")
    )
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    again = read_table(tmp_path / "one" / "gain.csv", dict(found.table.schema))
    assert again.drop("value").shape == found.table.drop("value").shape
    assert again["verdict"].to_list() == found.table["verdict"].to_list()
    with pytest.raises(InputError, match=r"none\.csv: not found"):
        read_table(tmp_path / "none.csv", {})


def test_prevalence_by_coding_and_image_and_small_counts_are_not_told(made):
    people = read_people(made, [get_task("phenotype")], (0,), ["icd_version"])
    table = icd(people, ["shock"])
    stays = people.unique("stay_id")
    for row in table.iter_rows(named=True):
        group = stays.filter(icd_version=row["icd_version"], has_cxr=row["has_cxr"])
        assert row["n"] == str(group.height)
        assert row["prevalence"] == pytest.approx(group["shock"].mean())
    few = icd(people.head(30), ["shock"])
    assert set(few["positives"]) == {"<10"}
    assert few["prevalence"].null_count() == few.height
    assert [suppressed(count) for count in (None, 0, 9, 10)] == [None, "0", "<10", "10"]


def test_a_card_that_is_absent_is_named(own):
    (own / "runs" / "medfuse" / "card.json").unlink()
    with pytest.raises(InputError, match=r"runs.medfuse.card\.json: not found"):
        gain(known(own, Grid(GRID.strategies, ("mortality",))))


def probe(data, task, cohort, strategy, draws=2, only=None):
    """swaps.parquet, in which images of others make noise of the predictions."""
    runs = data / "runs" / strategy / task / "predictions.parquet"
    frame = pl.read_parquet(runs).filter(part="test", train_cohort=cohort)
    if only is not None:
        frame = frame.filter(pl.col("stay_id") % only == 0)
    outputs = [name for name in frame.columns if name.startswith("p_")]
    random = np.random.default_rng(0)
    parts = []
    for draw in range(draws):
        noise = pl.DataFrame({name: random.random(frame.height) for name in outputs})
        permuted = frame.select("train_cohort", "fold", "seed", "part", "stay_id").hstack(noise)
        parts.append(permuted.with_columns(task=pl.lit(task), kind=pl.lit("cxr_permuted"), draw=pl.lit(draw)))
    full = frame.select("train_cohort", "fold", "seed", "part", "stay_id", *outputs)
    parts.append(
        full.with_columns(pl.col(outputs).cast(pl.Float64), task=pl.lit(task), kind=pl.lit("full"), draw=pl.lit(0))
    )
    path = data / "probes" / strategy / "swaps.parquet"
    path.parent.mkdir(parents=True)
    pl.concat(parts).write_parquet(path)
    return parts


def test_the_ladder_compares_each_rung_with_the_one_below(made, found):
    climbed = ladder(known(made), found.chosen, dict.fromkeys(found.passed, True))
    rows = climbed.filter(task="mortality", cohort="base", metric="auroc")
    winner = found.chosen.filter("chosen", role="fusion", task="mortality", cohort="base")["strategy"][0]
    assert rows.select("rung", "strategy", "against").rows() == [
        ("ehr", "transformer", None),
        ("presence", "ehr_presence", "ehr"),
        ("metadata", "ehr_metadata", "presence"),
        ("pixels", winner, "metadata"),
        ("permuted", None, None),
    ]
    values = [
        scores(made, "mortality", name, "base", "test", auroc)["icu_mortality"]
        for name in rows["strategy"].drop_nulls()
    ]
    assert rows["value"].drop_nulls().to_list() == pytest.approx(values)
    assert rows["difference"].drop_nulls().to_list() == pytest.approx(np.diff(values))
    known_bounds = rows.drop_nulls("difference_low")
    assert known_bounds.height == 2  # the controls' predictions are the same here
    middle = (known_bounds["difference_low"] + known_bounds["difference_high"]) / 2
    assert middle.to_list() == pytest.approx(known_bounds["difference"].to_list())  # ± standard errors
    odds = rows.select((pl.col(name) / (1 - pl.col(name))).log() for name in ("low", "value", "high")).drop_nulls()
    assert ((odds["low"] + odds["high"]) / 2).to_list() == pytest.approx(odds["value"].to_list())  # of log-odds
    assert rows["left_out"].to_list() == [None] * 4 + [f"no probe of {winner}"]
    assert climbed.filter(metric="auprc")["p"].null_count() == climbed.filter(metric="auprc").height


def test_a_rung_that_the_grid_lacks_is_left_out_and_the_next_one_compared_with_the_one_below_it(made, found):
    grid = Grid(("lstm", "ehr_metadata", "late_fusion"), ("mortality",))
    reading = known(made, grid)
    rows = ladder(reading, gain(reading).chosen, {}).filter(cohort="base", metric="auroc")
    assert rows.select("rung", "strategy", "against").rows()[:4] == [
        ("ehr", "lstm", None),
        ("presence", None, None),
        ("metadata", "ehr_metadata", "ehr"),
        ("pixels", "late_fusion", "metadata"),
    ]
    assert rows["left_out"][1] == "no strategy of the grid is this rung"


@pytest.mark.parametrize("only", [None, 2])
def test_permuted_images_are_compared_with_the_same_model_on_the_probes_stays(own, found, only):
    winner = found.chosen.filter("chosen", role="fusion", task="phenotype", cohort="matched")["strategy"][0]
    parts = probe(own, "phenotype", "matched", winner, only=only)
    climbed = ladder(known(own), found.chosen, {})
    row = one(climbed, task="phenotype", cohort="matched", label="shock", metric="auroc", rung="permuted")
    labels = pl.read_parquet(own / "cohort" / "labels.parquet").select("stay_id", "shock")
    images = pl.read_parquet(own / "cohort" / "stays.parquet").filter("has_cxr").select("stay_id")
    means = [
        np.mean(
            [
                auroc(run, "shock")
                for run in part.join(labels, on="stay_id").join(images, on="stay_id").partition_by("fold", "seed")
            ]
        )
        for part in parts
    ]
    assert row["value"] == pytest.approx(np.mean(means[:2]))
    assert row["difference"] == pytest.approx(np.mean(means[:2]) - means[2], abs=1e-6)
    assert row["difference_high"] < 0
    other = climbed.filter(task="phenotype", cohort="base", rung="permuted")
    assert other["left_out"].str.contains("no permuted images|no probe").all()


def test_the_control_is_asked_of_the_image_only_strategy_by_task_and_cohort(own, made):
    """Features that tell the findings pass; noise does not, nor does one finding alone, nor no image-only strategy."""
    grid, both = Grid(("resnet", "late_fusion"), ("mortality", "los")), ("mortality", "los")
    add_control(own, "resnet", SCALE, ("mortality",), told=2.0, cohorts=("matched",))
    found = gain(known(own, grid)).passed
    assert found == {(task, cohort): (task, cohort) == ("mortality", "matched") for task in both for cohort in COHORTS}
    assert not any(gain(known(made, grid)).passed.values())
    path = own / "probes" / "resnet" / "image_control.parquet"
    table = pl.read_parquet(path)
    table.filter(finding="edema").write_parquet(path)
    assert not any(gain(known(own, grid)).passed.values())
    (own / "probes" / "late_fusion").mkdir()
    table.write_parquet(own / "probes" / "late_fusion" / "image_control.parquet")
    assert not any(gain(known(own, Grid(("lstm", "late_fusion"), both))).passed.values())
    path.unlink()
    with pytest.raises(InputError, match=r"resnet.image_control\.parquet: not found"):
        gain(known(own, grid))


def test_no_gain_is_said_where_the_control_is_passed_alone(own):
    """A fusion strategy that answers as the best unimodal one does, but for a hair."""
    grid = Grid(("lstm", "resnet", "late_fusion"), ("mortality",))
    folder, name = own / "runs", "mortality/predictions.parquet"
    frame = pl.read_parquet(folder / "lstm" / name).sort("train_cohort", "fold", "seed", "stay_id")
    hair = pl.col("p_icu_mortality") * 0.98 + 0.02 * (pl.col("stay_id") % 97) / 97
    frame.with_columns(hair.cast(pl.Float32)).write_parquet(folder / "late_fusion" / name)
    add_control(own, "resnet", SCALE, ("mortality",), told=2.0, cohorts=("base",))
    rows = gain(known(own, grid)).table.filter(metric="auroc", stratum="all")
    assert dict(rows.select("cohort", "verdict").iter_rows()) == {"base": "no gain", "matched": "undetermined"}


def test_the_findings_are_those_of_the_probe():
    from pipeline.training.image_control import FINDINGS

    assert sorted(FINDINGS) == sorted(control.FINDINGS)
