"""Question 1 on made-up artefacts: what is compared with what, how it varies, and what is written."""

import dataclasses
import shutil

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, cohen_kappa_score

from pipeline.errors import InputError
from pipeline.estimation.variance import estimate, moderated
from pipeline.evaluation.cells import read_people
from pipeline.evaluation.paired import ALL
from pipeline.evaluation.paired import scored as draws_of
from pipeline.evaluation.reading import read_table
from pipeline.params import Grid
from pipeline.questions.when.contest import Contest, Side, fill, read_sides
from pipeline.questions.when.gain import gain
from pipeline.questions.when.source import rarer, share_tested
from pipeline.questions.when.tables import write
from pipeline.tasks import get_task, phenotype_slugs
from tests.support.when import GRID, RULE, SCALE, auroc, beside, known, one, scores

ROLES = {"ehr": ("lstm", "transformer"), "image": ("resnet",), "fusion": ("late_fusion", "medfuse")}
RARE = "pneumonia_except_that_caused_by_tuberculosis_or_sexually_transmitted_disease"


def auprc(run, label):
    return average_precision_score(run[label], run[f"p_{label}"])


def picked(found, task, cohort, label, role):
    return one(found.chosen, chosen=True, task=task, cohort=cohort, label=label, role=role)["strategy"]


def test_every_side_is_chosen_on_validation_alone_label_by_label(made, found):
    rows = found.chosen.filter(task="phenotype", cohort="matched")
    assert rows["label"].unique(maintain_order=True).to_list() == [*phenotype_slugs(), "macro"]
    each = {
        name: scores(made, "phenotype", name, "matched", "val", auroc) for names in ROLES.values() for name in names
    }
    for label in ("shock", RARE):
        for role, names in ROLES.items():
            of = rows.filter(label=label, role=role)
            assert tuple(of["strategy"]) == names
            assert of["validation"].to_list() == pytest.approx([each[name][label] for name in names])
            best = names[int(np.argmax([each[name][label] for name in names]))]
            assert of.filter("chosen")["strategy"].to_list() == [best]
    macro = rows.filter(label="macro", role="fusion")["validation"].to_list()
    assert macro == pytest.approx([np.mean(list(each[name].values())) for name in ROLES["fusion"]])
    assert rows.filter("chosen", role="ehr")["strategy"].n_unique() == 2  # not one and the same for all labels


def test_what_test_says_does_not_change_the_choice(own, found):
    """On test, the other EHR-only strategy becomes perfect: it is not chosen, and fusion compared with as little."""
    other = next(name for name in ROLES["ehr"] if name != picked(found, "mortality", "base", "icu_mortality", "ehr"))
    path = own / "runs" / other / "mortality" / "predictions.parquet"
    labels = pl.read_parquet(own / "cohort" / "labels.parquet").select("stay_id", "icu_mortality")
    frame = pl.read_parquet(path).join(labels, on="stay_id", how="left", maintain_order="left")
    better = (
        pl.when(pl.col("part") == "test").then(pl.col("icu_mortality").cast(pl.Float32)).otherwise("p_icu_mortality")
    )
    frame.with_columns(p_icu_mortality=better).drop("icu_mortality").write_parquet(path)
    mortality = Grid(GRID.strategies, ("mortality",))
    changed = gain(known(own, mortality))
    assert changed.chosen.equals(found.chosen.filter(task="mortality"))
    names = ["ehr", "difference_ehr", "difference_image", "low", "high", "p"]
    at = {"cohort": "base", "task": "mortality", "chosen": False}
    assert changed.table.filter(**at).select(names).equals(found.table.filter(**at).select(names))


@pytest.mark.parametrize("cohort", ["base", "matched"])
def test_differences_are_those_of_scikit_learns_metrics_to_the_opponents_of_the_label(made, found, cohort):
    for name, metric in (("auroc", auroc), ("auprc", auprc)):
        each = {
            strategy: scores(made, "phenotype", strategy, cohort, "test", metric)
            for strategy in ("medfuse", *ROLES["ehr"], "resnet")
        }
        key = {"task": "phenotype", "cohort": cohort, "strategy": "medfuse", "chosen": False, "metric": name}
        apart = {"ehr": [], "image": [], "": []}
        for label in phenotype_slugs():
            row = one(found.table, label=label, stratum="all", **key)
            opponents = {role: picked(found, "phenotype", cohort, label, role) for role in ("ehr", "image")}
            assert {role: row[role] for role in opponents} == opponents
            assert row["single"] in opponents.values()
            for role, opponent in (*opponents.items(), ("", row["single"])):
                difference = each["medfuse"][label] - each[opponent][label]
                assert row[f"difference_{role}" if role else "difference"] == pytest.approx(difference)
                apart[role].append(difference)
            assert row["value"] == pytest.approx(each["medfuse"][label])
            if row["low"] is not None:
                assert row["low"] < row["equivalence_low"] < row["equivalence_high"] < row["high"]
        macro = one(found.table, label="macro", stratum="all", **key)
        several = "by label" if cohort == "matched" else "transformer"  # in base it is the best for all labels
        assert (macro["ehr"], macro["image"], macro["single"]) == (several, "resnet", several)
        found_apart = [macro["difference_ehr"], macro["difference_image"], macro["difference"]]
        assert found_apart == pytest.approx([np.mean(values) for values in apart.values()])


def test_the_better_single_modality_is_the_one_that_validation_prefers(found):
    for (label,), rows in found.chosen.filter(task="phenotype", cohort="base").group_by("label"):
        if label == "macro":
            continue
        best = rows.filter("chosen", pl.col("role") != "fusion").sort("validation")["strategy"][-1]
        assert (
            one(found.table, label=label, cohort="base", strategy="medfuse", metric="auroc", chosen=False)["single"]
            == best
        )


def test_an_interval_is_of_runs_and_patients_and_runs_of_many_labels_tell_of_luck_together(made):
    """From the runs themselves: per-run draws of the difference, their folds, and the test stays per training stay."""
    reading, task = known(made), get_task("mortality")
    cells, sides = read_sides(reading, task)["base"]
    entries = Contest(reading, task, "base", {name: sides[name] for name in ("ehr", "image", "single")}).compare(
        Side({"icu_mortality": "medfuse"}, cells["medfuse"].runs), "medfuse", {}
    )
    label = ("icu_mortality", "auroc")
    apart = np.subtract(*(draws_of(of.runs, task, ALL)[label] for of in (cells["medfuse"], sides["ehr"])))
    people = read_people(made, [task], SCALE.folds)
    share = people.filter(part="test").height / people.filter(part="train").height
    assert share_tested(people, "base") == share
    expected = estimate(apart, [0, 0, 1, 1], share)
    assert entries[0].differences["ehr"] == expected
    assert entries[0].case.opponents[0].estimate == expected
    assert entries[0].case.positives == people.filter(pl.col("icu_mortality"), part="test").height
    together = moderated([each for entry in entries for each in entry.differences.values()])
    fill(entries, RULE)
    row = entries[0].row
    assert (row["low_ehr"], row["high_ehr"]) == together[0].interval(0.95)
    assert (row["equivalence_low"], row["equivalence_high"]) == together[2].interval(0.9)
    assert (row["p"], row["runs"], row["note"]) == (together[2].p, 4, None)


def test_the_rarer_outcome_is_counted():
    people = pl.DataFrame(
        {
            "stay_id": range(12),
            "part": ["test"] * 10 + ["val"] * 2,
            "has_cxr": [True] * 6 + [False] * 6,
            "icu_mortality": [True] * 8 + [False] * 4,
            "los_class": [0] * 12,
        }
    )
    for cohort, found in (("base", {"icu_mortality": 2, "macro": 10}), ("matched", {"icu_mortality": 0, "macro": 6})):
        assert rarer(people, get_task("mortality"), cohort, pl.lit(True)) == found
    assert rarer(people, get_task("los"), "base", ~pl.col("has_cxr")) == {"macro": 4}


def test_variance_is_split_into_patients_seed_and_split(found):
    rows = found.variance
    family = found.table.filter(family="confirmatory")
    assert rows.height == 3 * family.height
    assert rows["against"].unique(maintain_order=True).to_list() == ["ehr", "image", "single"]
    assert rows["error"].null_count() < 10  # rare labels of the matched cohort
    parts = rows.drop_nulls("error").select(pl.sum_horizontal("patients", "seed", "split"), pl.col("error") ** 2)
    assert parts["patients"].to_list() == pytest.approx(parts["error"].to_list())
    assert (rows["seed"] > 0).mean() > 0.9  # two seeds a fold
    row = one(rows, task="mortality", cohort="base", against="single")
    assert row["difference"] == one(family, task="mortality", cohort="base")["difference"]


def test_length_of_stay_is_compared_by_accuracy_and_kappa(made, found):
    def classes(run):
        return run["los_class"], run.select(f"p_los_{i}" for i in range(7)).to_numpy().argmax(axis=1)

    best = picked(found, "los", "base", "macro", "ehr")
    for name, metric in (("accuracy", accuracy_score), ("kappa", cohen_kappa_score)):
        own, against = (
            scores(made, "los", strategy, "base", "test", lambda run, _, m=metric: m(*classes(run)))["los_class"]
            for strategy in ("late_fusion", best)
        )
        key = {"task": "los", "cohort": "base", "strategy": "late_fusion", "stratum": "all", "chosen": False}
        row = one(found.table, metric=name, **key)
        assert row["difference_ehr"] == pytest.approx(own - against)
        assert row["positives"] is None


def test_the_confirmatory_family_is_the_chosen_strategy_of_every_label_task_and_cohort(found):
    family = found.table.filter(family="confirmatory")
    assert family.height == 2 * (1 + 26 + 1)
    assert family.select("task", "cohort", "label").is_unique().all()
    assert set(family["metric"]) == {"auroc", "accuracy"}
    for row in family.iter_rows(named=True):
        if row["label"] != "macro":
            assert row["strategy"] == picked(found, row["task"], row["cohort"], row["label"], "fusion")
    others = found.table.filter(family="exploratory")
    assert family["verdict"].null_count() == 0
    assert others["verdict"].null_count() == others["p_gain"].null_count() == others.height
    assert set(others.filter(~pl.col("chosen"))["strategy"]) == {"late_fusion", "medfuse"}


def test_the_choice_by_label_scores_each_label_as_its_strategy_does(found):
    every = found.table.filter(task="phenotype", cohort="base", stratum="all", group="all", metric="auroc")
    numbers = ["value", "difference_ehr", "difference_image", "difference"]
    for row in every.filter("chosen", pl.col("label") != "macro").iter_rows(named=True):
        same = one(every, chosen=False, label=row["label"], strategy=row["strategy"])
        assert [row[name] for name in numbers] == pytest.approx([same[name] for name in numbers])


def test_as_many_candidates_stand_on_either_side(made, own):
    assert known(made).candidates() == {role: list(names) for role, names in ROLES.items()}
    fewer = Grid(("medfuse", "late_fusion", "resnet", "lstm"), ("mortality",))
    assert known(made, fewer).candidates() == {"ehr": ["lstm"], "image": ["resnet"], "fusion": ["late_fusion"]}
    (own / "runs" / "medfuse" / "card.json").write_text('{"modalities": ["ehr"], "missing": "native"}')
    with pytest.raises(InputError, match=r"^verdicts\.fusion: medfuse is no fusion strategy$"):
        known(own).candidates()


def test_a_strong_fusion_strategy_gains_and_one_against_itself_has_no_interval(own, found):
    """late_fusion is fabricated stronger than any unimodal strategy; medfuse becomes a copy of the best of these."""
    row = one(found.table, task="phenotype", cohort="base", label="macro", family="confirmatory")
    assert row["verdict"] == "gains"
    assert 0 < row["family_low"] < row["difference"]
    assert row["p_gain"] < 0.025
    best = picked(found, "mortality", "base", "icu_mortality", "ehr")
    name = "mortality/predictions.parquet"
    shutil.copy(own / "runs" / best / name, own / "runs" / "medfuse" / name)
    table = gain(known(own, Grid((best, "resnet", "medfuse"), ("mortality",)))).table
    same = one(table, cohort="base", metric="auroc", stratum="all", family="confirmatory")
    assert (same["difference_ehr"], same["low_ehr"]) == (0.0, None)


def test_one_run_confirms_nothing(own):
    scale = dataclasses.replace(SCALE, folds=(0,), seeds=(0,))
    for strategy in GRID.strategies:
        file = own / "runs" / strategy / "mortality" / "predictions.parquet"
        pl.read_parquet(file).filter(fold=0, seed=0).write_parquet(file)
        for name in ("swaps", "image_control"):
            path = own / "probes" / strategy / f"{name}.parquet"
            pl.read_parquet(path).filter(fold=0, seed=0).write_parquet(path)
    result = gain(known(own, Grid(GRID.strategies, ("mortality",)), scale=scale))
    family = result.table.filter(family="confirmatory")
    assert set(family["verdict"]) == {"not testable"}
    assert set(family["note"]) == set(result.variance["note"]) == {"one run: luck of training not included"}
    assert set(result.use["note"]) == {"one run: luck of training not included"}
    assert family["low"].null_count() == 0  # the interval of the patients alone


@pytest.mark.parametrize(
    ("strategies", "tasks"),
    [(("lstm",), ("los",)), (("late_fusion",), ("mortality",)), (("ehr_presence",), ("phenotype",))],
)
def test_a_grid_without_opponents_gives_empty_tables(made, tmp_path, strategies, tasks):
    reading = known(made, Grid(strategies, tasks))
    result = gain(reading)
    assert result.table.height == 0
    write(result, beside(reading), RULE, tmp_path)
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
    for strategy in GRID.strategies:
        for name in ("swaps", "image_control"):
            probe = own / "probes" / strategy / f"{name}.parquet"
            pl.read_parquet(probe).clear().write_parquet(probe)
        for task in GRID.tasks:
            file = own / "runs" / strategy / task / "predictions.parquet"
            pl.read_parquet(file).filter(fold=0).write_parquet(file)
    reading = known(own, scale=scale)
    result = gain(reading)
    assert result.chosen.filter(task="mortality")["validation"].null_count() == 10
    mortality = result.table.filter(task="mortality")
    assert mortality.select("cohort", "verdict", "note").rows() == [
        (cohort, "not testable", "no strategy could be scored on validation") for cohort in ("base", "matched")
    ]
    shock = result.table.filter(label="shock", metric="auroc", family="confirmatory")
    assert set(shock["verdict"]) == {"not testable"}
    assert shock["difference"].null_count() == shock.height == 2
    matched = result.table.filter(cohort="matched", stratum="all")
    assert matched["difference"].null_count() == matched.height > 0
    assert not result.use["passed"].any()
    write(result, beside(reading), RULE, tmp_path)
    told = (tmp_path / "gain.md").read_text()
    assert "**ICU mortality (base), ICU mortality (matched): no strategy could be scored on validation.**" in told
    for file in tmp_path.glob("*.csv"):
        assert "NaN" not in file.read_text(), file
        assert "inf," not in file.read_text(), file


def test_the_same_bytes_twice_and_back(made, found, tmp_path):
    for folder in ("one", "two"):
        reading = known(made)
        more = beside(reading)
        write(found if folder == "one" else gain(reading), more, RULE, tmp_path / folder)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    both, alone = ("gain", "variance", *more), ("chosen", "image_use")
    assert names == sorted([f"{name}.{end}" for name in both for end in ("csv", "md")] + [f"{n}.csv" for n in alone])
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    again = read_table(tmp_path / "one" / "gain.csv", dict(found.table.schema))
    assert again.shape == found.table.shape
    assert again["verdict"].to_list() == found.table["verdict"].to_list()
    with pytest.raises(InputError, match=r"none\.csv: not found"):
        read_table(tmp_path / "none.csv", {})


def test_a_card_or_a_probe_that_is_absent_is_named(own):
    (own / "probes" / "medfuse" / "swaps.parquet").unlink()
    with pytest.raises(InputError, match=r"probes.medfuse.swaps\.parquet: not found"):
        gain(known(own, Grid(GRID.strategies, ("mortality",))))
    (own / "runs" / "medfuse" / "card.json").unlink()
    with pytest.raises(InputError, match=r"runs.medfuse.card\.json: not found"):
        gain(known(own, Grid(GRID.strategies, ("mortality",))))


def test_sides_are_read_for_each_cohort(made):
    of = read_sides(known(made), get_task("los"))
    assert list(of) == ["base", "matched"]
    assert all(sorted(sides) == ["ehr", "fusion", "image", "single"] for _, sides in of.values())
