"""Tuning: the list of trials, and that dev stays alone reach the choice."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from pipeline import files
from pipeline.errors import InputError
from pipeline.modelling.cards import Card
from pipeline.params import Dimension, Grid, Tuning, TuningScale, load
from pipeline.tasks import get_task
from pipeline.training import settings as settings_module
from pipeline.training import tuning as tuning_module
from pipeline.training.monitor import monitor_score
from pipeline.training.settings import Common, Settings
from pipeline.training.store import Store, data_fingerprint
from pipeline.training.tuning import choose, dev_score, dev_stays, read_tuned, trials, tune
from tests.support.runs import SCALE
from tests.support.small import ENCODERS

FIRST = Settings({"lr": 0.001, "align": 0.1, "depth": 3}, 0.1, 0.01)
OWN = {"align": Dimension(0.01, 1.0, "log"), "depth": Dimension(1, 4, "whole")}


@pytest.fixture(scope="session")
def tuning(root) -> Tuning:
    return load(root / "params.yaml").tuning


@given(st.floats(0, 1, exclude_max=True), st.sampled_from(["linear", "log", "whole"]))
def test_a_drawn_value_lies_between_the_bounds(share, spread):
    value = Dimension(1, 7, spread).at(share)
    assert 1 <= value <= 7
    assert isinstance(value, int) == (spread == "whole")


def test_whole_numbers_are_drawn_equally_often():
    drawn = [Dimension(1, 4, "whole").at(share) for share in np.arange(400) / 400]
    assert np.unique(drawn, return_counts=True)[1].tolist() == [100] * 4


@settings(deadline=None)  # scipy is imported by the first
@given(st.integers(2, 9), st.integers(0, 12), st.integers(0, 3))
def test_a_longer_list_begins_with_the_shorter_one(tuning, count, more, seed):
    short, long = (trials(FIRST, dataclasses.replace(tuning, trials=n, seed=seed), OWN) for n in (count, count + more))
    assert long[: len(short)] == short
    assert short[0] == FIRST
    assert len(short) == count


def test_shared_knobs_are_tried_alike_and_what_is_fitted_has_its_own_alone(tuning):
    eight = dataclasses.replace(tuning, trials=8)
    one, other = trials(FIRST, eight, OWN), trials(Settings({"lr": 0.1}, 0.3, 0.0), eight, {})
    shared = [[(each.hyper["lr"], each.dropout, each.weight_decay) for each in found[1:]] for found in (one, other)]
    assert shared[0] == shared[1]
    assert len(set(shared[0])) == 7
    assert len({each.hyper["align"] for each in one}) == 8
    fitted = trials(Settings({"depth": 2}, 0.1, 0.01), eight, {"depth": Dimension(1, 4, "whole")})
    assert {(each.dropout, each.weight_decay) for each in fitted} == {(0.1, 0.01)}
    assert all(set(each.hyper) == {"depth"} for each in fitted)


@pytest.fixture
def common(training):
    return Common("core", training, ENCODERS, dataclasses.replace(SCALE, max_epochs=2))


def tuned(folder, common, data, tuning, store=None, strategies=("resnet", "gbm"), count=3):
    written = {"resnet": {"lr": 0.003}, "transformer": {"lr": 0.003}, "late_fusion": {"lr": 0.003}}
    written |= {"medfuse": {"lr": 0.003, "series": "transformer"}}
    written |= {"climd": {"lr": 0.003, "base": "medfuse", "base_hyper": {}}}
    written["gbm"] = {"max_iter": 3, "max_depth": 2}
    tune(
        common,
        Grid(strategies, ("mortality",)),
        written,
        dataclasses.replace(tuning, trials=count, own={"gbm": {"max_depth": Dimension(1, 4, "whole")}}),
        TuningScale(("base",), 1),
        store or Store(folder / "work", data_fingerprint(data)),
        data,
        folder / "tuned",
    )
    return folder / "tuned"


def test_the_best_on_dev_is_chosen_and_told(common, data, tuning, tmp_path):
    out = tuned(tmp_path, common, data, tuning)
    rows = pl.read_csv(out / "trials.csv")
    assert rows["trial"].to_list() == [1, 2, 3] * 2
    for (strategy,), found in rows.group_by("strategy"):
        chosen = found.row(by_predicate=pl.col("chosen"), named=True)
        assert chosen["score"] == found["score"].max()
        told = read_tuned(out / f"{strategy}.yaml")
        assert told.trials == 3
        assert dataclasses.asdict(told.tasks["mortality"][strategy]) == json.loads(chosen["settings"])
    assert set(json.loads((out / "hours.json").read_text())) == {"resnet", "gbm"}


def test_no_test_or_validation_score_can_reach_the_choice(common, data, tuning, tmp_path):
    """Predictions and labels of everybody outside of dev are turned into nonsense: the same bytes are written."""
    store = Store(tmp_path / "work", data_fingerprint(data))
    out = tuned(tmp_path, common, data, tuning, store)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    parts = pl.read_parquet(data / "splits.parquet").filter(fold=0)
    dev = parts.filter(part="dev")["stay_id"].to_numpy()
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in data.rglob("*"):
        if path.is_file():
            (copy / path.relative_to(data)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(data)).write_bytes(path.read_bytes())
    labels = pl.read_parquet(copy / "cohort/labels.parquet")
    other = ~pl.col("stay_id").is_in(dev.tolist())
    turned = labels.with_columns(
        pl.when(other).then(~pl.col("icu_mortality")).otherwise("icu_mortality").alias("icu_mortality")
    )
    assert not turned.equals(labels)
    turned.write_parquet(copy / "cohort/labels.parquet")
    for path in (tmp_path / "work/runs").glob("*/predictions.safetensors"):
        told = load_file(path)
        told["p"][~np.isin(told["stay_id"], dev)] = np.float32(0.123)
        save_file(told, path)
    for path in (tmp_path / "work/runs").glob("*/history.json"):
        rows = json.loads(path.read_text())
        path.write_text(json.dumps([{**row, "val_auprc": 0.0, "val_loss": 9.0} for row in rows]))
    again = tuned(tmp_path / "again", common, copy, tuning, store)
    assert {path.name: path.read_bytes() for path in again.iterdir()} == before


def test_a_score_is_of_the_cohorts_dev_stays(data):
    task = get_task("phenotype")
    dev = dev_stays(data, 0, task)
    everyone = pl.read_parquet(data / "splits.parquet").filter(fold=0)
    assert dev.stay_id.tolist() == sorted(everyone.filter(part="dev")["stay_id"])
    stay_id = everyone["stay_id"].to_numpy()[::-1]
    p = np.random.default_rng(0).random((len(stay_id), 25), dtype=np.float32)
    by_hand = pl.DataFrame({"stay_id": dev.stay_id}).join(
        pl.DataFrame({"stay_id": stay_id, "p": p}), on="stay_id", how="left", maintain_order="left"
    )
    for cohort, where in (("base", np.ones_like(dev.has_cxr)), ("matched", dev.has_cxr)):
        expected = monitor_score(task, dev.targets[where], by_hand["p"].to_numpy()[where])
        assert dev_score(stay_id, p, dev, cohort, task) == expected


@pytest.fixture
def four(tmp_path):
    """Four dev stays of the first fold, of whom the first alone dies and the last has no image."""
    stays = pl.DataFrame({"stay_id": [1, 2, 3, 4], "has_cxr": [True, True, True, False]})
    (tmp_path / "cohort").mkdir()
    stays.write_parquet(tmp_path / "cohort/stays.parquet")
    stays.select("stay_id", icu_mortality=pl.col("stay_id") == 1).write_parquet(tmp_path / "cohort/labels.parquet")
    stays.select("stay_id", fold=0, part=pl.lit("dev")).write_parquet(tmp_path / "splits.parquet")
    return tmp_path


def test_a_trial_is_judged_by_the_mean_over_cohorts_and_seeds(common, four, tuning):
    """The average precision of a single positive is one over its place, in base among four, in matched among three.

    The others' scores are 0.6, 0.4 and, of the stay without an image, 0.8. The first trial would be chosen by the first
    run or the first cohort alone, or if matched were judged by everybody; the second by the first seed.
    """
    positive = {  # its score, by trial, cohort and seed; beside it the place
        (1, "base"): (0.9, 0.9),  # 1, 1
        (1, "matched"): (0.3, 0.3),  # 3, 3
        (2, "base"): (0.9, 0.3),  # 1, 4
        (2, "matched"): (0.7, 0.3),  # 1, 3
        (3, "base"): (0.7, 0.9),  # 2, 1
        (3, "matched"): (0.5, 0.7),  # 2, 1
    }
    scale = dataclasses.replace(SCALE, folds=(0, 1), seeds=(0, 1, 2), train_missing=(0.0, 0.3))
    common, three = dataclasses.replace(common, scale=scale), dataclasses.replace(tuning, trials=3)
    written = {"lr": 0.003}
    tried = trials(common.written(written), three, {})
    store, made = Store(four / "work", "made up"), []

    def make(specs, store, data):
        for spec in specs:
            trial = 1 + [each.hyper for each in tried].index(spec.hyper)
            made.append((trial, spec.train_cohort, spec.fold, spec.seed, spec.train_missing))
            own = positive[trial, spec.train_cohort][spec.seed]
            folder = store.folder(spec)
            folder.mkdir(parents=True)
            p = np.array([[0.8], [0.4], [0.6], [own]], dtype=np.float32)
            save_file({"stay_id": np.array([4, 3, 2, 1]), "p": p}, folder / "predictions.safetensors")
            (folder / "history.json").write_text(json.dumps([{}] * trial))
            (folder / "result.json").write_text(json.dumps({"seconds": 900}))

    two = TuningScale(("base", "matched"), 2)
    found = choose(common, Grid(("resnet",), ("mortality",)), {"resnet": written}, three, two, store, four, make)
    assert sorted(made) == [
        (trial, cohort, 0, seed, 0.0) for trial in (1, 2, 3) for cohort in ("base", "matched") for seed in (0, 1)
    ]
    assert [(row["trial"], row["score"], row["epochs"], row["chosen"]) for row in found.rows] == [
        (1, pytest.approx((1 + 1 + 1 / 3 + 1 / 3) / 4), 4, False),
        (2, pytest.approx((1 + 1 / 4 + 1 + 1 / 3) / 4), 8, False),
        (3, pytest.approx((1 / 2 + 1 + 1 / 2 + 1) / 4), 12, True),
    ]
    assert found.settings == {"mortality": {"resnet": tried[2]}}
    assert found.hours == {"resnet": {"mortality": 3.0}}


def test_without_trials_the_written_settings_are_taken_and_nothing_is_run(common, data, tuning, tmp_path):
    out = tuned(tmp_path, common, data, tuning, count=0)
    assert not (tmp_path / "work").exists()
    assert read_tuned(out / "resnet.yaml").tasks == {"mortality": {"resnet": Settings({"lr": 0.003}, 0.1, 0.01)}}
    assert pl.read_csv(out / "trials.csv").is_empty()


def test_those_that_others_start_from_are_tuned_first(common, data, tuning, tmp_path):
    common = dataclasses.replace(common, training=dataclasses.replace(common.training, start="unimodal"))
    out = tuned(tmp_path, common, data, tuning, strategies=("late_fusion",), count=2)
    assert {path.name for path in out.iterdir()} == {"late_fusion.yaml", "trials.csv", "hours.json"}
    rows = pl.read_csv(out / "trials.csv")
    assert set(rows["strategy"]) == {"late_fusion", "transformer", "resnet"}
    told = read_tuned(out / "late_fusion.yaml")
    for name in ("transformer", "resnet"):
        chosen = rows.row(by_predicate=(pl.col("strategy") == name) & pl.col("chosen"), named=True)
        assert dataclasses.asdict(told.tasks["mortality"][name]) == json.loads(chosen["settings"])
        assert told.code[name] == files.sha256(f"pipeline/strategies/{name}.py")


def test_what_is_wrapped_is_tuned_first_and_named_with_all_that_it_needs(common, data, tuning, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning_module, "_choose", lambda common, tried, choice, *rest: chosen(tried, choice))

    def chosen(tried, choice):
        order.append(sorted(tried))
        for of_task in choice.settings.values():
            of_task.update({name: found[-1] for name, found in tried.items()})

    order = []
    common = dataclasses.replace(common, training=dataclasses.replace(common.training, start="unimodal"))
    out = tuned(tmp_path, common, data, tuning, strategies=("climd",), count=2)
    assert order == [["resnet", "transformer"], ["medfuse"], ["climd"]]
    told = read_tuned(out / "climd.yaml")
    needs = ("medfuse", "transformer", "resnet")
    assert told.code == {name: files.sha256(f"pipeline/strategies/{name}.py") for name in needs}
    assert set(told.tasks["mortality"]) == {"climd", *needs}
    (spec,) = common.runs("climd", "mortality", told.tasks["mortality"])[:1]
    assert spec.hyper["base_hyper"] == {"series": "transformer"}
    assert sorted(spec.needs) == ["resnet", "transformer"]


def test_strategies_that_need_each_other_are_refused(common, data, tuning, tmp_path, monkeypatch):
    card = Card("x", "", {}, ("cxr",), "complete", "joint", ())
    needs = {"resnet": ("transformer",), "transformer": ("resnet",)}
    monkeypatch.setattr(settings_module, "read_card", lambda name: dataclasses.replace(card, needs=needs[name]))
    with pytest.raises(InputError, match="strategies: resnet, transformer need each other's runs"):
        tuned(tmp_path, common, data, tuning, strategies=("resnet",))


def test_a_damaged_file_of_settings_is_named(tmp_path):
    path = tmp_path / "x.yaml"
    with pytest.raises(InputError, match=r"x\.yaml: not found; run the stage tune"):
        read_tuned(path)
    path.write_text(yaml.safe_dump({"trials": 1}))
    with pytest.raises(InputError, match=r"x\.yaml: cannot be read: code: missing"):
        read_tuned(path)
