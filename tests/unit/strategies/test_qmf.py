"""QMF: energies, ranking and histories by hand; the weight of an unseen image falls where its evidence fades."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from pipeline.errors import InputError
from pipeline.modelling.examples import example_batch, example_targets, select, small_shapes
from pipeline.modelling.faint import SHAPES, faint_pairs
from pipeline.modelling.interface import Epoch
from pipeline.modelling.learning import optimiser_of, take_step
from pipeline.modelling.registry import build
from pipeline.modelling.views import keep_images, without_images, without_record
from pipeline.strategies.qmf import energies, ranking

TASKS = ["mortality", "phenotype", "los"]
PRESENT = torch.tensor([1, 0, 1, 1, 0, 1]).bool()


def model_of(task="mortality", **hyper):
    torch.manual_seed(0)
    model = build("qmf", small_shapes(task), {"lr": 1e-3, **hyper})
    model.set_prior(torch.linspace(-1, 1, model.shapes.outputs))
    return model


def batch_of(model):
    return example_batch(model.shapes, 6, PRESENT)


def energy(z, kind):
    """Of one sample's logits, in plain Python: a list, an entry a label, of weights."""
    if kind == "multiclass":
        return [max(0.0, 0.1 * math.log(sum(math.exp(x) for x in z)))]
    return [0.1 * math.log(math.exp(x / 2) + math.exp(-x / 2)) for x in z]


@pytest.mark.parametrize("per_label", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_the_answer_is_the_weighted_sum_over_the_modalities_that_are_there(task, per_label):
    model = model_of(task, per_label=per_label).eval()
    batch, kind = batch_of(model), model.shapes.task.kind
    with torch.no_grad():
        output = model(batch)
        image = iter(model.image_head(model.image(batch.images).pooled).tolist())
        series = model.series_head(model.series(batch).pooled).tolist()
    for i in range(6):
        logits = [series[i]] + ([next(image)] if PRESENT[i] else [])
        weights = [energy(z, kind) for z in logits]
        if not per_label:
            weights = [[sum(w) / len(w)] for w in weights]
        expected = model.prior.numpy() + sum(np.array(w) * np.array(z) for w, z in zip(weights, logits, strict=True))
        np.testing.assert_allclose(output.logits[i].numpy(), expected, atol=1e-5)
        assert float(output.features["weight_ehr"][i]) == pytest.approx(np.mean(weights[0]), abs=1e-6)
        cxr = np.mean(weights[1]) if PRESENT[i] else 0.0
        assert float(output.features["weight_cxr"][i]) == pytest.approx(cxr, abs=1e-6)


def test_a_sure_no_weighs_as_much_as_a_sure_yes():
    z = torch.tensor([[6.0], [-6.0], [0.0], [200.0]])
    found = energies(z, "binary")[:, 0]
    np.testing.assert_allclose(found.numpy(), [0.300248, 0.300248, 0.1 * math.log(2), 10.0], atol=1e-5)
    z = torch.randn(5, 25)
    torch.testing.assert_close(energies(z, "multilabel", True), energies(-z, "multilabel", True))


def test_weights_of_classes_are_not_below_zero():
    assert float(energies(torch.full((1, 7), -5.0), "multiclass")) == 0
    assert float(energies(torch.zeros(1, 7), "multiclass")) == pytest.approx(0.1 * math.log(7))


def test_the_ranking_by_hand():
    torch.manual_seed(1)
    weight, history = torch.rand(7), torch.rand(7)
    known = torch.tensor([1, 1, 1, 0, 1, 1, 1]).bool()
    for sign in (1.0, -1.0):
        hinges = []
        for i in range(7):
            j = (i + 1) % 7
            gap = float(history[i] - history[j])
            if known[i] and known[j]:
                hinges.append(max(0.0, math.copysign(1, gap) * float(weight[i] - weight[j]) + sign * abs(gap)))
        assert float(ranking(weight, history, known, sign)) == pytest.approx(np.mean(hinges), abs=1e-6)


def test_the_ranking_is_zero_where_weights_lie_apart_the_other_way_round_by_the_difference_of_histories():
    both, history = torch.ones(2).bool(), torch.tensor([0.9, 0.2])
    assert float(ranking(torch.tensor([0.0, 0.7001]), history, both)) == 0
    assert float(ranking(torch.tensor([0.0, 0.6]), history, both)) == pytest.approx(0.1, abs=1e-6)
    assert float(ranking(torch.tensor([0.3, 0.5]), torch.ones(2), both)) == 0  # no difference, no order


def test_the_authors_margin_is_a_slack():
    """In the wrong order by 0.1, where 0.7 the other way round is wanted."""
    weight, history, both = torch.tensor([0.5, 0.4]), torch.tensor([0.9, 0.2]), torch.ones(2).bool()
    assert float(ranking(weight, history, both)) == pytest.approx(0.8, abs=1e-6)
    assert float(ranking(weight, history, both, -1.0)) == 0
    found = {}
    for margin in ("intended", "code"):
        model = model_of(rank=2.0, margin=margin)
        batch = example_batch(model.shapes, 2, torch.ones(2).bool())
        model.lost[1, :2], model.known[1, :2] = torch.tensor([9.0, 2.0]), True
        output = model(batch)
        output.features["weight_cxr"] = weight
        found[margin] = model.losses(output, batch, example_targets(model.shapes, 2))["rank_cxr"].item()
    assert found == {"intended": pytest.approx(2 * 1.1), "code": 0.0}  # histories are scaled to 1 and 0


@pytest.mark.parametrize("task", TASKS)
def test_histories_are_sums_of_own_losses_filed_by_stay(task):
    model = model_of(task).train()
    batch, targets = batch_of(model), example_targets(model.shapes, 6)
    order = torch.tensor([40, 7, 300, 2, 511, 9])
    batch = dataclasses.replace(batch, index=order)
    expected = np.zeros((2, 512))
    for _ in range(2):
        output = model(batch)
        model.losses(output, batch, targets)
        for modality, name in enumerate(("ehr", "cxr")):
            z = output.unimodal[name].detach().double().numpy()
            for i in range(6):
                if modality == 1 and not PRESENT[i]:
                    continue
                if task == "los":
                    loss = math.log(np.exp(z[i]).sum()) - z[i, int(targets[i, 0])]
                else:
                    loss = np.mean(np.log1p(np.exp(z[i])) - targets[i].numpy() * z[i])
                expected[modality, order[i]] += loss
    np.testing.assert_allclose(model.lost.numpy(), expected, atol=1e-5)
    assert torch.equal(model.known, torch.from_numpy(expected > 0))
    seen = expected[1][expected[1] > 0]
    history, known = model.history(1, order)
    wanted = np.where(PRESENT, (expected[1][order] - seen.min()) / (seen.max() - seen.min()), 0.0)
    np.testing.assert_allclose(history.numpy(), wanted, atol=1e-5)
    assert torch.equal(known, PRESENT)
    model.eval()
    model.losses(model(batch), batch, targets)
    np.testing.assert_allclose(model.lost.numpy(), expected, atol=1e-5)


def test_the_losses_are_the_answers_each_branchs_and_the_ranking_by_histories_before_this_step():
    model = model_of("phenotype", rank=0.5)
    batch, targets = batch_of(model), example_targets(model.shapes, 6)
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    first = model.losses(model(batch), batch, targets)
    assert (first["rank_ehr"].item(), first["rank_cxr"].item()) == (0, 0)  # nobody has a history
    history = {m: model.history(m, batch.index) for m in (0, 1)}
    output = model(batch)
    found = model.losses(output, batch, targets)
    torch.testing.assert_close(found["task"], loss(output.logits, targets))
    torch.testing.assert_close(found["ehr"], loss(output.unimodal["ehr"], targets))
    torch.testing.assert_close(found["cxr"], loss(output.unimodal["cxr"][PRESENT], targets[PRESENT]))
    for m, (name, there) in enumerate((("ehr", torch.ones(6).bool()), ("cxr", PRESENT))):
        own = ranking(output.features[f"weight_{name}"][there], history[m][0][there], history[m][1][there])
        assert float(own.detach()) > 0
        torch.testing.assert_close(found[f"rank_{name}"], 0.5 * own)


def test_detached_weights_are_not_trained_by_the_answers_loss():
    moved = {}
    for detach in (False, True):
        model = model_of(detach=detach).eval()
        batch = batch_of(model)
        output = model(batch)
        logit = (output.unimodal["ehr"] - model.prior)[1, 0]  # no image: z_f = w(z) z
        (slope,) = torch.autograd.grad(output.logits[1, 0], model.series_head.bias)
        z, w = float(logit.detach()), float(energies(logit.detach()[None, None], "binary"))
        moved[detach] = (float(slope), w + (0.0 if detach else 0.1 * z * math.tanh(z / 2) / 2))
    for found, expected in moved.values():
        assert found == pytest.approx(expected, abs=1e-6)
    assert moved[True] != moved[False]


def test_batches_without_images_or_records_stay_finite():
    model = model_of("los")
    batch, targets = batch_of(model), example_targets(model.shapes, 6)
    for _ in range(2):
        for each in (without_images(batch), without_record(batch), without_images(without_record(batch))):
            found = model.losses(model(each), each, targets)
            assert all(value.isfinite() for value in found.values())
    none = without_images(batch)
    output = model(none)
    assert (output.features["weight_cxr"] == 0).all()
    assert model.losses(output, none, targets)["rank_cxr"].item() == 0
    assert (model(without_record(batch)).features["weight_ehr"][PRESENT] == 0).all()


def test_the_history_file_shows_how_weights_go_with_own_losses():
    model = model_of()
    told = {"ehr": ([], []), "cxr": ([], [])}
    for seed in range(3):
        batch, targets = example_batch(model.shapes, 6, PRESENT, seed), example_targets(model.shapes, 6, seed)
        output = model(batch)
        model.losses(output, batch, targets)
        for name, there in (("ehr", torch.ones(6).bool()), ("cxr", PRESENT)):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                output.unimodal[name], targets, reduction="none"
            )
            told[name][0].extend(output.features[f"weight_{name}"][there].tolist())
            told[name][1].extend(loss[there, 0].tolist())
    model.between_epochs(Epoch(1, 5, list))
    expected = {f"correlation_{name}": pytest.approx(pearsonr(*each)[0], abs=1e-4) for name, each in told.items()}
    assert model.diagnostics() == expected
    model.between_epochs(Epoch(2, 5, list))  # an epoch in which nothing was seen
    assert model.diagnostics() == {"correlation_ehr": 0.0, "correlation_cxr": 0.0}


def fading(size, seed):
    """Faint pairs whose spot is up to seven times as high, by a contrast of each image: batch, targets, contrast."""
    batch, targets = faint_pairs(size, seed)
    contrast = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    line = torch.linspace(-1, 1, SHAPES.px)
    spot = torch.exp(-((line[:, None] - 0.2).square() + (line[None] - 0.3).square()) / 0.08)
    told = (2 * targets[:, 1] - 1) * (8 * contrast - 1) * 0.05
    return dataclasses.replace(batch, images=batch.images + told[:, None, None, None] * spot), targets, contrast


def test_an_unseen_image_weighs_less_the_fainter_its_evidence_is():
    train, targets, _ = fading(512, 0)
    train = keep_images(train, torch.arange(512) % 4 > 0)
    torch.manual_seed(0)
    model = build("qmf", SHAPES, {"lr": 1e-3})
    optimiser = optimiser_of(model)
    for step in range(100):
        rows = torch.arange(512).roll(-step * 32)[:32]
        batch = select(train, rows)
        take_step(model.train(), optimiser, [(batch, targets[rows])])
    fresh, _, contrast = fading(256, 1)
    with torch.inference_mode():
        weight = model.eval()(fresh).features["weight_cxr"]
    assert spearmanr(weight, contrast).statistic > 0.2  # three standard errors of none


@pytest.mark.parametrize("hyper", [{"rank": -1.0}, {"margin": "wide"}])
def test_impossible_knobs_are_refused(hyper):
    with pytest.raises(InputError, match=rf"strategies\.qmf: {next(iter(hyper))} must be"):
        model_of(**hyper)
