"""gbm and logistic: the summary against a plain loop, the answers against scikit-learn's, and what they learn."""

import dataclasses
import math

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from pipeline import files
from pipeline.data.batches import Batches
from pipeline.data.inputs import HOURS, channel_variables
from pipeline.data.tensors import load_fold
from pipeline.errors import InputError
from pipeline.mimic.variables import load_variables
from pipeline.modelling.examples import example_batch, example_targets, small_shapes
from pipeline.modelling.fitted import features, summary
from pipeline.modelling.interface import Shapes
from pipeline.modelling.losses import probabilities
from pipeline.modelling.registry import build
from pipeline.modelling.views import without_record
from pipeline.params import TrainingScale, load
from pipeline.tasks import get_task
from pipeline.training.cell import train_cell
from pipeline.training.grid import runs
from pipeline.training.run import make_run
from pipeline.training.store import Store, data_fingerprint
from tests.support.made_up_data import fabricate
from tests.support.small import ENCODERS

FITTED = ["gbm", "logistic"]
SCALE = TrainingScale(
    cohorts=("base",), folds=(0,), seeds=(0,), train_missing=(0.0,), batch_size=16, max_epochs=9, patience=9
)


def naive(batch, shapes):
    """Features in the order mean, last, min, max, slope, count; one stay and variable after the other."""
    rows = []
    one_hot = [shapes.channel_variable.count(v) > 1 for v in shapes.channel_variable]
    for stay in range(batch.size):
        found = {key: [] for key in ("mean", "last", "min", "max", "slope")}
        for channel, variable in enumerate(shapes.channel_variable):
            hours = [h for h in range(48) if batch.observed[stay, h, variable]]
            x = [float(batch.ehr[stay, h, channel]) for h in hours]
            found["mean"].append(sum(x) / len(x) if x else 0)
            found["last"].append(x[-1] if x else 0)
            if not one_hot[channel]:
                found["min"].append(min(x, default=0))
                found["max"].append(max(x, default=0))
                found["slope"].append(np.polyfit(np.array(hours) / 48, x, 1)[0] if len(x) > 1 else 0)
        count = [float(batch.observed[stay, :, v].sum()) / 48 for v in range(shapes.variables)]
        rows.append([*(value for each in found.values() for value in each), *count])
    return np.array(rows)


def test_the_summary_equals_a_plain_loop():
    shapes = small_shapes("mortality")
    batch = example_batch(shapes, 6, torch.zeros(6).bool())
    observed = batch.observed.clone()
    observed[0] = False
    observed[1, :, 3] = False
    observed[2, :, 4] = torch.arange(48) == 20  # once alone: no slope
    observed[3, :, 10] = False
    batch = dataclasses.replace(batch, observed=observed)
    found = summary(batch, shapes)
    assert found.shape == (6, features(shapes))
    np.testing.assert_allclose(found, naive(batch, shapes), rtol=1e-4, atol=1e-5)
    assert not found[0].any()


def problem(task, size=150, seed=0):
    """Summaries and targets; the first label, or the class, is written into the record."""
    shapes = small_shapes(task)
    batch, targets = example_batch(shapes, size, torch.zeros(size).bool(), seed), example_targets(shapes, size, seed)
    batch = dataclasses.replace(batch, ehr=batch.ehr + 0.3 * targets[:, :1, None])
    return batch, summary(batch, shapes).numpy(), targets.numpy()


def made(name, task, **hyper):
    model = build(name, small_shapes(task), hyper)
    model.set_prior(torch.linspace(-1, 1, model.shapes.outputs))
    return model.eval()


@pytest.mark.parametrize("task", ["mortality", "phenotype", "los"])
def test_the_trees_answer_as_scikit_learn_does(task, monkeypatch):
    from sklearn.ensemble import HistGradientBoostingClassifier

    models = []

    class Spy(HistGradientBoostingClassifier):
        def fit(self, *arguments, **more):
            models.append(super().fit(*arguments, **more))
            return self

    monkeypatch.setattr("sklearn.ensemble.HistGradientBoostingClassifier", Spy)
    _, x, targets = problem(task)
    batch, x_val, targets_val = problem(task, 60, seed=1)
    model = made("gbm", task, max_iter=12, min_samples_leaf=5)
    model.fit(x, targets, x_val[:0], targets_val[:0])  # without validation: every round counts
    p = probabilities(model(batch).logits, model.shapes.task).numpy()
    expected = [each.predict_proba(x_val.astype(float)) for each in models]
    expected = expected[0] if task == "los" else np.stack([each[:, 1] for each in expected], axis=1)
    np.testing.assert_allclose(p, expected, atol=1e-6)

    models.clear()
    model = made("gbm", task, max_iter=40, min_samples_leaf=5, patience=5)
    model.fit(x, targets, x_val, targets_val)
    p = probabilities(model(batch).logits, model.shapes.task).numpy()
    for label, each in enumerate(models):
        best = int(np.argmax(each.validation_score_))
        staged = list(each.staged_predict_proba(x_val.astype(float)))
        if best:
            expected = staged[best - 1] if task == "los" else staged[best - 1][:, 1]
            np.testing.assert_allclose(p if task == "los" else p[:, label], expected, atol=1e-6)


@pytest.mark.parametrize("task", ["mortality", "phenotype", "los"])
def test_the_regression_answers_as_scikit_learn_does_and_validation_chooses_the_penalty(task):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    _, x, targets = problem(task)
    batch, x_val, targets_val = problem(task, 60, seed=1)
    model = made("logistic", task)
    model.fit(x, targets, x_val, targets_val)
    p = probabilities(model(batch).logits, model.shapes.task).numpy()
    x, x_val = x.astype(float), x_val.astype(float)  # the solver is as exact as its numbers
    for label in range(targets.shape[1]):
        every = [
            make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000)).fit(x, targets[:, label])
            for c in (0.0001, 0.001, 0.01, 0.1, 1.0)
        ]
        answers = [each.predict_proba(x_val) for each in every]
        chosen = min(answers, key=lambda answer: log_loss(targets_val[:, label], answer, labels=every[0].classes_))
        expected = chosen if task == "los" else chosen[:, 1]
        np.testing.assert_allclose(p if task == "los" else p[:, label], expected, atol=1e-4)


@pytest.mark.parametrize("name", FITTED)
def test_a_label_of_one_value_is_answered_with_the_prior(name):
    _, x, targets = problem("phenotype")
    targets[:, 3], targets[:, 7] = 0, 1
    batch, x_val, targets_val = problem("phenotype", 60, seed=1)
    targets_val[:, 5] = 0  # validation of one value is no obstacle
    model = made(name, "phenotype")
    model.fit(x, targets, x_val, targets_val)
    logits = model(batch).logits
    for label in (3, 7):
        assert torch.equal(logits[:, label], model.prior[label].expand(60))
    assert len(logits[:, 0].unique()) > 5


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("classes", [(2,), (1, 4), (0, 3, 6)])
def test_classes_that_training_does_not_hold_keep_the_prior(name, classes):
    _, x, targets = problem("los")
    targets = np.array(classes, float)[(targets % len(classes)).astype(int)]
    batch, x_val, targets_val = problem("los", 60, seed=1)  # holds all classes
    model = made(name, "los")
    prior = torch.full((7,), math.log(1e-4))
    prior[list(classes)] = math.log(1 / len(classes))
    model.set_prior(prior)
    model.fit(x, targets, x_val, targets_val)
    p = probabilities(model(batch).logits, model.shapes.task)
    others = [k for k in range(7) if k not in classes]
    assert (p[:, others] < 1e-3).all()
    torch.testing.assert_close(p.sum(dim=1), torch.ones(60, dtype=torch.float64))
    assert torch.isfinite(model(without_record(batch)).logits).all()


def test_a_fit_uses_one_thread(monkeypatch):
    from threadpoolctl import threadpool_info, threadpool_limits

    counts = set()

    def learn(self, *arguments):
        counts.update(pool["num_threads"] for pool in threadpool_info())

    model = made("gbm", "mortality")
    monkeypatch.setattr(type(model), "learn", learn)
    _, x, targets = problem("mortality", 20)
    with threadpool_limits(2):
        model.fit(x, targets, x, targets)
    assert counts == {1}


# --- runs ------------------------------------------------------------------------------------------------------------


def spec_of(root, name, task, **more):
    training = dataclasses.replace(load(root / "params.yaml").training, device="cpu")
    hyper = load(root / "params.yaml").strategies[name]
    (spec,) = runs(name, task, hyper={**hyper, **more}, tier="core", training=training, encoders=ENCODERS, scale=SCALE)
    return spec


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("fabricated"), n=400)


@pytest.mark.parametrize("name", FITTED)
def test_a_planted_signal_is_learnt_and_twice_the_same_bytes_come(root, data, tmp_path, name):
    spec = spec_of(root, name, "mortality")
    for folder in "ab":
        store = Store(tmp_path / folder, data_fingerprint(data))
        train_cell([spec], store, data, tmp_path / f"out-{folder}")
    for file in ("predictions.parquet", "history.csv"):
        assert files.sha256(tmp_path / "out-a/mortality" / file) == files.sha256(tmp_path / "out-b/mortality" / file)
    frame = pl.read_parquet(tmp_path / "out-a/mortality/predictions.parquet").filter(pl.col("part") != "val")
    frame = frame.join(pl.read_parquet(data / "cohort/labels.parquet"), on="stay_id")
    assert roc_auc_score(frame["icu_mortality"], frame["p_icu_mortality"]) > 0.85
    history = pl.read_csv(tmp_path / "out-a/mortality/history.csv")
    assert history.height == 1
    assert history["best"].to_list() == [True]


@pytest.mark.parametrize("name", FITTED)
def test_the_stored_weights_predict_again(root, data, tmp_path, name):
    spec, task = spec_of(root, name, "phenotype"), get_task("phenotype")
    store = Store(tmp_path, data_fingerprint(data))
    make_run(spec, store, data, lambda epoch, row: None)
    variables = load_variables("core")
    tensors = load_fold(data, 0, task, variables, "mcar")
    model = build(name, Shapes(task, HOURS, channel_variables(variables), 16, ENCODERS), spec.hyper)
    model.load_state_dict(load_file(store.folder(spec) / "weights.safetensors"))
    stored = load_file(store.folder(spec) / "predictions.safetensors")
    rows = torch.from_numpy(np.flatnonzero(tensors.part != "train"))
    p = probabilities(model(Batches(tensors, torch.device("cpu")).gather(rows)).logits, task).float()
    assert np.array_equal(tensors.stay_id[rows], stored["stay_id"])
    torch.testing.assert_close(p, stored["p"], rtol=0, atol=1e-7)


def test_an_lr_stands_where_it_is_needed_and_nowhere_else(root, data, tmp_path):
    store = Store(tmp_path, data_fingerprint(data))
    with pytest.raises(InputError, match=r"strategies\.gbm\.lr: unknown; it is fitted"):
        make_run(spec_of(root, "gbm", "mortality", lr=0.1), store, data, lambda epoch, row: None)
    spec = dataclasses.replace(spec_of(root, "lstm", "mortality"), hyper={})
    with pytest.raises(InputError, match=r"strategies\.lstm\.lr: missing"):
        make_run(spec, store, data, lambda epoch, row: None)


@pytest.mark.parametrize(
    ("name", "hyper", "message"),
    [
        ("gbm", {"learning_rate": 0}, "learning_rate must be above 0"),
        ("gbm", {"max_depth": 0}, "max_depth"),
        ("logistic", {"c": []}, "c must be a list of numbers above 0"),
    ],
)
def test_an_impossible_knob_is_named(name, hyper, message):
    with pytest.raises(InputError, match=rf"strategies\.{name}: .*{message}"):
        build(name, small_shapes("los"), hyper)
