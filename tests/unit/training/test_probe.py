"""The probe: the trained models answer as they did, and as if nothing were there; EMAP against double loops."""

import dataclasses
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file
from sklearn.metrics import roc_auc_score

from pipeline import files
from pipeline.modelling.cards import read_card
from pipeline.modelling.examples import small_shapes
from pipeline.modelling.fitted import Fitted
from pipeline.modelling.interface import Output, Strategy
from pipeline.modelling.losses import probabilities
from pipeline.modelling.registry import names, strategy_class
from pipeline.params import ProbeScale, TrainingScale, load
from pipeline.tasks import get_task
from pipeline.training import probe as probing
from pipeline.training.grid import runs
from pipeline.training.image_control import read_findings
from pipeline.training.loop import logits_of, stream
from pipeline.training.probe import emap, pair_logits, permutations, probe, probed, trained
from pipeline.training.run import untrained
from pipeline.training.store import Store, data_fingerprint
from tests.support.made_up_data import fabricate, with_older_images
from tests.support.small import ENCODERS

SCALE = TrainingScale(
    cohorts=("base", "matched"), folds=(0, 1), seeds=(0,), train_missing=(0.0,), batch_size=16, max_epochs=2, patience=9
)
PROBE = ProbeScale(test_missing=(0.5, 1.0), mechanisms=("mcar",), last_hours=(12,), stays=7, permutations=3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def in_this_process():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_EXECUTOR", "inline")
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("fabricated"), n=120)


@pytest.fixture(scope="module")
def store(tmp_path_factory, data):
    return Store(tmp_path_factory.mktemp("work"), data_fingerprint(data))


@pytest.fixture(scope="module")
def specs(root):
    def make(strategy, *tasks, **scale):
        training = dataclasses.replace(load(root / "params.yaml").training, device="cpu")
        hyper = {} if issubclass(strategy_class(strategy), Fitted) else {"lr": 0.003}
        return [
            spec
            for task in tasks
            for spec in runs(
                strategy,
                task,
                hyper=hyper,
                tier="core",
                training=training,
                encoders=ENCODERS,
                scale=dataclasses.replace(SCALE, **scale),
            )
        ]

    return make


@pytest.fixture(scope="module")
def late(data, store, specs, tmp_path_factory):
    """late_fusion on two tasks, probed, and the folder of what that wrote."""
    out = tmp_path_factory.mktemp("probe")
    probe(specs("late_fusion", "mortality", "los"), store, data, out, PROBE)
    return out


def answers(spec, store, data, fold, part="test"):
    """stay_id and probabilities of a part, as the trained model answers to `fold`'s data."""
    rows = torch.from_numpy(np.flatnonzero(fold.tensors.part == part))
    logits = logits_of(trained(spec, store, fold.tensors, CPU), fold.batches, rows, spec)
    p = probabilities(logits, get_task(spec.task)).float().numpy()
    return dict(zip(fold.tensors.stay_id[rows].tolist(), p, strict=True))


@pytest.mark.parametrize("strategy", ["late_fusion", "drfuse", "mmtm", "gbm"])
def test_with_nothing_removed_the_trained_model_answers_as_stored_bit_for_bit(data, store, specs, tmp_path, strategy):
    chosen = specs(strategy, "mortality", folds=(0,), cohorts=("matched",))
    probe(chosen, store, data, tmp_path, PROBE)
    (spec,) = chosen
    fold = probing.load(spec, data, CPU)
    stored = load_file(store.folder(spec) / "predictions.safetensors")
    rows = torch.from_numpy(np.flatnonzero(fold.tensors.part != "train"))
    logits = logits_of(trained(spec, store, fold.tensors, CPU), fold.batches, rows, spec)
    assert np.array_equal(probabilities(logits, get_task("mortality")).float().numpy(), stored["p"])


@pytest.mark.parametrize("strategy", ["late_fusion", "healnet", "resnet", "moddrop"])
def test_with_several_images_a_stay_the_probe_asks_what_was_trained(data, specs, tmp_path, strategy):
    several = with_older_images(shutil.copytree(data, tmp_path / "data"))
    store = Store(tmp_path / "work", data_fingerprint(several))
    (spec,) = specs(strategy, "mortality", folds=(0,), cohorts=("matched",), max_epochs=1)
    probe([spec], store, several, tmp_path / "probe", PROBE)
    stored = load_file(store.folder(spec) / "predictions.safetensors")
    fold = probing.load(spec, several, CPU)
    rows = torch.from_numpy(np.flatnonzero(fold.tensors.part != "train"))
    model = trained(spec, store, fold.tensors, CPU)
    assert np.array_equal(
        probabilities(logits_of(model, fold.batches, rows, spec), get_task("mortality")).float().numpy(), stored["p"]
    )
    assert model.every_image == (strategy in ("late_fusion", "healnet"))
    if strategy != "resnet":
        kinds = (
            pl.read_parquet(tmp_path / "probe/swaps.parquet").filter(kind="full").select("stay_id", "p_icu_mortality")
        )
        p = dict(zip(stored["stay_id"].tolist(), stored["p"][:, 0].tolist(), strict=True))
        assert kinds.height == PROBE.stays
        for stay, found in kinds.rows():
            assert found == pytest.approx(p[stay], abs=1e-6)
        chosen = torch.from_numpy(probed(fold.tensors, 7))
        logits = pair_logits(model, spec, fold.batches, chosen)
        own = logits_of(model, fold.batches, chosen, spec)
        torch.testing.assert_close(logits.diagonal().T, own, atol=1e-5, rtol=1e-5)
    control = pl.read_parquet(tmp_path / "probe/image_control.parquet")
    assert set(control["encoder"]) == {"trained", "untrained"}


def changed(data, folder, change):
    """A copy of the data with something changed."""
    shutil.copytree(data, folder)
    change(folder)
    return folder


def no_images(folder):
    path = folder / "images/index.parquet"
    files.write_parquet(pl.read_parquet(path).head(0), path)


def hours_gone(first):
    def change(folder):
        values = np.load(folder / "series/values.npy")
        values[:, first:] = np.nan
        files.write_array(values, folder / "series/values.npy")

    return change


@pytest.mark.parametrize(
    ("modality", "share", "mechanism", "change"),
    [
        ("cxr", 1.0, "whole", no_images),
        ("ehr", 1.0, "whole", hours_gone(0)),
        ("ehr", 0.25, "last_hours", hours_gone(36)),
    ],
)
def test_what_is_removed_is_answered_as_if_it_had_never_been_there(
    late, data, store, specs, tmp_path, modality, share, mechanism, change
):
    removed = pl.read_parquet(late / "removal.parquet").filter(
        test_modality=modality, test_missing=share, test_mechanism=mechanism
    )
    without = changed(data, tmp_path / "data", change)
    for spec in specs("late_fusion", "mortality", "los"):
        fold = probing.load(spec, without, CPU)
        expected = answers(spec, store, data, fold)
        rows = removed.filter(task=spec.task, train_cohort=spec.train_cohort, fold=spec.fold)
        images = probing.load(spec, data, CPU).tensors
        asked = images.stay_id[(images.part == "test") & ((modality == "ehr") | images.pictured)]
        assert rows["stay_id"].to_list() == asked.tolist()
        found = rows.select(f"p_{name}" for name in get_task(spec.task).outputs).to_numpy()
        np.testing.assert_allclose(found, np.array([expected[stay] for stay in asked]), rtol=0, atol=1e-6)


def test_an_absent_record_is_told_from_an_empty_one(data, store, specs, tmp_path, monkeypatch):
    """`present` says that it is absent: a strategy may have its own way with that."""
    seen = []
    real = strategy_class("lstm").forward
    monkeypatch.setattr(
        strategy_class("lstm"), "forward", lambda self, batch: (seen.append(batch), real(self, batch))[1]
    )
    probe(specs("lstm", "mortality", folds=(0,), cohorts=("base",)), store, data, tmp_path, PROBE)
    absent = [batch for batch in seen if not batch.present[:, 0].any()]
    assert absent
    for batch in absent:
        assert not batch.observed.any()
        assert not batch.ehr.any()


def test_only_what_a_strategy_looks_at_is_removed_or_swapped(data, store, specs, tmp_path):
    for strategy, seen in (("lstm", {"ehr"}), ("resnet", {"cxr"}), ("ehr_presence", {"ehr", "cxr"})):
        probe(specs(strategy, "mortality", folds=(0,)), store, data, tmp_path / strategy, PROBE)
        assert set(pl.read_parquet(tmp_path / strategy / "removal.parquet")["test_modality"]) == seen
        assert pl.read_parquet(tmp_path / strategy / "swaps.parquet").height == 0
        control = pl.read_parquet(tmp_path / strategy / "image_control.parquet")
        assert (control.height > 0) == (strategy == "resnet")


def test_models_trained_with_images_removed_are_probed_for_removal_alone(data, store, specs, tmp_path):
    chosen = specs(
        "late_fusion", "mortality", "los", folds=(0,), train_missing=(0.0, 0.5), missing_tasks=("mortality",)
    )
    assert [(spec.task, spec.train_cohort) for spec in chosen if spec.train_missing] == [("mortality", "matched")]
    probe(chosen, store, data, tmp_path, PROBE)
    removed = pl.read_parquet(tmp_path / "removal.parquet").filter(train_missing=0.5)
    assert set(removed["train_mechanism"]) == {"mcar"}
    swapped = pl.read_parquet(tmp_path / "swaps.parquet").filter(task="mortality")
    assert not swapped.select("train_cohort", "kind", "draw", "stay_id").is_duplicated().any()


def test_the_same_bytes_from_a_store_that_lacks_the_runs(late, data, specs, tmp_path):
    probe(
        specs("late_fusion", "mortality", "los"), Store(tmp_path / "w", data_fingerprint(data)), data, tmp_path, PROBE
    )
    for name in ("removal", "swaps", "image_control"):
        assert files.sha256(late / f"{name}.parquet") == files.sha256(tmp_path / f"{name}.parquet"), name


class Toy(Strategy):
    """Logits that multiply the record's mean by the image's, and tell of its hour."""

    def forward(self, batch):
        picture = batch.ehr.new_zeros(batch.size).index_copy(0, batch.image_sample, batch.images.mean(dim=(1, 2, 3)))
        hours = batch.ehr.new_zeros(batch.size).index_copy(0, batch.image_sample, batch.image_hours)
        record = batch.ehr.mean(dim=(1, 2)) + batch.observed.float().mean(dim=(1, 2))
        return Output(torch.stack([record * picture + hours, record - picture], dim=1))


def test_pairs_and_emap_against_double_loops(data, specs):
    (spec,) = specs("late_fusion", "mortality", folds=(0,), cohorts=("base",))
    fold = probing.load(spec, data, CPU)
    rows = torch.from_numpy(probed(fold.tensors, 7))
    toy = Toy(small_shapes("mortality")).eval()
    logits = pair_logits(toy, spec, fold.batches, rows)
    assert logits.shape == (7, 7, 2)
    assert not torch.allclose(logits[0], logits[1])
    for i in range(7):
        for j in range(7):
            one = fold.batches.gather(rows[[i]])
            other = fold.batches.gather(rows[[j]])
            pair = dataclasses.replace(one, **{name: getattr(other, name) for name in ("images", "image_hours")})
            torch.testing.assert_close(logits[i, j], toy(pair).logits[0])
    table = logits.double().numpy()
    found = emap(logits).numpy()
    for i in range(7):
        for k in range(2):
            record = sum(table[i, j, k] for j in range(7)) / 7
            image = sum(table[j, i, k] for j in range(7)) / 7
            every = sum(table[a, b, k] for a in range(7) for b in range(7)) / 49
            assert found[i, k] == pytest.approx(record + image - every, abs=1e-12)
    assert np.abs(found - table[np.arange(7), np.arange(7)]).max() > 1e-4  # the product is interaction


def test_an_additive_strategy_is_its_own_additive_projection(late):
    swapped = pl.read_parquet(late / "swaps.parquet")
    for task in ("mortality", "los"):
        p = [f"p_{name}" for name in get_task(task).outputs]
        full, projected = (swapped.filter(task=task, kind=kind).select(p).to_numpy() for kind in ("full", "emap"))
        assert len(full) > 0
        np.testing.assert_allclose(projected, full, rtol=0, atol=1e-4)


def test_swaps_are_of_the_pairs_that_the_permutations_name(late, data, store, specs):
    spec = specs("late_fusion", "mortality", folds=(1,), cohorts=("base",))[0]
    fold = probing.load(spec, data, CPU)
    rows = probed(fold.tensors, PROBE.stays)
    logits = pair_logits(trained(spec, store, fold.tensors, CPU), spec, fold.batches, torch.from_numpy(rows))
    p = probabilities(logits.flatten(0, 1), get_task("mortality")).float().view(len(rows), len(rows)).numpy()
    records, images = permutations(len(rows), PROBE.permutations, 1)
    swapped = pl.read_parquet(late / "swaps.parquet").filter(task="mortality", train_cohort="base", fold=1)
    own = np.arange(len(rows))
    for draw in range(PROBE.permutations):
        for kind, (of, with_) in {
            "full": (own, own),
            "cxr_permuted": (own, images[draw]),
            "ehr_permuted": (records[draw], own),
            "both_permuted": (records[draw], images[draw]),
        }.items():
            found = swapped.filter(kind=kind, draw=0 if kind == "full" else draw).sort("stay_id")
            assert found["stay_id"].to_list() == sorted(fold.tensors.stay_id[rows].tolist())
            assert np.array_equal(found["p_icu_mortality"].to_numpy(), p[of, with_]), kind


def test_probed_are_test_stays_with_an_image_and_fewer_of_them_are_among_more(data, specs):
    tensors = probing.load(specs("late_fusion", "los")[0], data, CPU).tensors
    few, more, every = (set(probed(tensors, most).tolist()) for most in (3, 8, 1000))
    assert len(few) == 3 < len(more) == 8
    assert few < more < every == set(np.flatnonzero((tensors.part == "test") & tensors.pictured).tolist())


def test_without_a_single_image_there_is_nothing_to_swap(data, store, specs, tmp_path):
    without = changed(data, tmp_path / "data", no_images)
    chosen = specs("late_fusion", "mortality", folds=(0,), cohorts=("base",))
    probe(chosen, Store(tmp_path / "work", data_fingerprint(without)), without, tmp_path / "out", PROBE)
    assert pl.read_parquet(tmp_path / "out/swaps.parquet").height == 0
    assert pl.read_parquet(tmp_path / "out/image_control.parquet").height == 0
    assert set(pl.read_parquet(tmp_path / "out/removal.parquet")["test_modality"]) == {"ehr"}


def test_the_image_features_tell_the_planted_finding(data, store, specs, tmp_path):
    probe(specs("resnet", "phenotype", max_epochs=6), store, data, tmp_path, PROBE)
    both = pl.read_parquet(tmp_path / "image_control.parquet").filter(finding="edema")
    key = ["train_cohort", "fold", "seed", "stay_id", "present"]
    control, before = (both.filter(encoder=name) for name in ("trained", "untrained"))
    assert control.select(key).equals(before.select(key))
    assert roc_auc_score(control["present"], control["score"]) > 0.8
    assert control.equals(files.significant(control))  # scikit-learn's last bits follow from the processor
    told = dict(read_findings(data).select("stay_id", "edema").drop_nulls().iter_rows())
    tests = pl.read_parquet(data / "splits.parquet").filter(pl.col("part") == "test")
    for row in control.iter_rows(named=True):
        assert row["present"] == (told[row["stay_id"]] == 1)
    for fold in SCALE.folds:
        mine = set(control.filter(fold=fold)["stay_id"])
        assert mine == set(tests.filter(pl.col("fold") == fold)["stay_id"]) & set(told)


def test_the_untrained_encoder_is_the_one_that_training_began_with_and_no_other_runs(data, store, specs):
    """Whatever else was drawn before. With training.start: unimodal the run began with resnet's weights; not this."""
    (spec,) = specs("late_fusion", "mortality", folds=(0,), cohorts=("base",))
    tensors = probing.load(spec, data, CPU).tensors
    torch.manual_seed(stream(*spec.luck))
    begun = untrained(spec, tensors).state_dict()
    torch.manual_seed(99)
    found = probing.as_built(spec, tensors, CPU)
    assert not found.training
    assert all(torch.equal(begun[name], value) for name, value in found.state_dict().items())
    for change in ({"seed": 1}, {"fold": 1}):  # runs of one seed do not share their luck between folds
        other = probing.as_built(dataclasses.replace(spec, **change), tensors, CPU).state_dict()
        assert not all(torch.equal(begun[name], value) for name, value in other.items())


def test_too_few_reports_of_a_finding_make_no_control(data, store, specs, tmp_path):
    def nothing_found(folder):
        path = folder / "interim/cxr_findings.parquet"
        files.write_parquet(pl.read_parquet(path).with_columns(Edema=pl.lit(0.0)), path)

    probe(specs("resnet", "phenotype"), store, changed(data, tmp_path / "data", nothing_found), tmp_path, PROBE)
    assert "edema" not in pl.read_parquet(tmp_path / "image_control.parquet")["finding"].to_list()


def test_a_card_and_the_class_agree_on_what_is_removed():
    """The evaluation reads the card, the probe the class."""
    for name in names():
        assert set(read_card(name).modalities) == set(strategy_class(name).modalities)
