"""DrFuse: its formulas, that its shared representations come to agree, and that a missing image is masked."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.examples import example_batch, example_targets, small_shapes
from pipeline.modelling.losses import divergence, mean_logits
from pipeline.modelling.registry import build
from pipeline.strategies.drfuse import ranking


def model_of(task="phenotype", **hyper):
    torch.manual_seed(0)
    return build("drfuse", small_shapes(task), {"lr": 1e-3, **hyper})


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_pooling_gives_the_logit_of_the_mean_probability():
    a, b = torch.randn(3, 4), torch.randn(3, 4)
    mean = (sigmoid(a.numpy()) + sigmoid(b.numpy())) / 2
    np.testing.assert_allclose(mean_logits(a, b, "multilabel").numpy(), np.log(mean / (1 - mean)), atol=1e-5)
    paper = torch.log((2 * (a + b).exp() + a.exp() + b.exp()) / (2 + a.exp() + b.exp()))
    np.testing.assert_allclose(mean_logits(a, b, "multilabel").numpy(), paper.numpy(), atol=1e-5)
    assert mean_logits(torch.tensor([300.0]), torch.tensor([300.0]), "multilabel").isfinite().all()


def test_divergence_is_that_of_bernoulli_variables():
    a, b = torch.randn(3, 4), torch.randn(3, 4)
    expected = np.zeros(3)
    for i in range(3):
        for j in range(4):
            p, q = sigmoid(float(a[i, j])), sigmoid(float(b[i, j]))
            for x, y in ((p, q), (1 - p, 1 - q)):
                m = (x + y) / 2
                expected[i] += 0.5 * (x * math.log(x / m) + y * math.log(y / m))
    np.testing.assert_allclose(divergence(a, b).numpy(), expected, atol=1e-5)
    assert (divergence(a, a).abs() < 1e-6).all()


def test_divergence_and_pooling_keep_their_digits_under_bf16():
    """Differences of nearly equal numbers: in bfloat16, divergences of 0.007 came out as -0.011."""
    a = torch.randn(64, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    b = (a + 0.1 * torch.randn(64, 32, generator=torch.Generator().manual_seed(1))).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found, pooled = divergence(a, b), mean_logits(a, b, "multilabel")
    p, q = (sigmoid(x.double().numpy()) for x in (a, b))
    mean = (p + q) / 2
    expected = 0.5 * sum(x * np.log(x / m) for x, m in ((p, mean), (1 - p, 1 - mean), (q, mean), (1 - q, 1 - mean)))
    np.testing.assert_allclose(found.float().numpy(), expected.sum(axis=1), atol=1e-5)
    np.testing.assert_allclose(pooled.float().numpy(), np.log(mean / (1 - mean)), atol=1e-5)


def test_the_ranking_averages_over_the_violations_of_pairs():
    weight, other = torch.tensor([[0.2, 0.6], [0.1, 0.1]]), torch.tensor([[0.5, 0.3], [0.9, 0.9]])
    loss, loss_other = torch.tensor([[0.1, 0.2], [0.1, 0.1]]), torch.tensor([[0.4, 0.9], [0.9, 0.9]])
    # Sample 0, label 0: the better token has 0.3 less attention; label 1 is in order; sample 1 is no pair.
    assert float(ranking(weight, other, loss, loss_other, torch.tensor([True, False]))) == pytest.approx(0.3)
    assert float(ranking(weight, other, loss, loss_other, torch.tensor([False, False]))) == 0


def test_attention_is_label_by_label():
    model = model_of().eval()
    tokens, there = torch.randn(2, 3, 16), torch.tensor([[True, True, True], [True, True, False]])
    found = model.attend(tokens, there)
    w, c = model.attention.weight.detach().numpy(), model.attention.bias.detach().numpy()
    head, bias = model.head.weight.detach().numpy(), model.head.bias.detach().numpy()
    for i, count in enumerate((3, 2)):
        x = tokens[i, :count].numpy()
        parts = (x @ w.T + c).reshape(count, 27, 16)
        query = parts[:, 0].mean(axis=0)
        for label in range(25):
            scores = parts[:, 2 + label] @ query / 4
            weights = np.exp(scores) / np.exp(scores).sum()
            logit = (weights @ parts[:, 1]) @ head[label] + bias[label]
            assert float(found["logits"][i, label].detach()) == pytest.approx(float(logit), abs=1e-5)


def trained_divergence(align):
    model = model_of("mortality", align=align)
    batch = example_batch(model.shapes, 16, torch.ones(16).bool())
    targets = example_targets(model.shapes, 16)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(100):
        optimiser.zero_grad()
        sum(model.losses(model(batch), batch, targets).values()).backward()
        optimiser.step()
    with torch.no_grad():
        f = model.eval()(batch).features
    return [float(divergence(f[f"{kind}_ehr"], f[f"{kind}_cxr"]).mean()) for kind in ("shared", "own")]


def test_shared_representations_come_to_agree_more_than_own_ones():
    shared, own = trained_divergence(align=1.0)
    assert shared < 0.1 * own
    assert shared < 0.5 * trained_divergence(align=0.0)[0]  # that is the divergence's doing


@pytest.mark.parametrize("seed", range(3))
def test_in_the_image_encoder_the_predictions_outweigh_the_separation(seed):
    torch.manual_seed(seed)
    model = build("drfuse", small_shapes("phenotype", 32), {"lr": 1e-3})
    batch = example_batch(model.shapes, 16, torch.ones(16).bool(), seed)
    losses = model.losses(model(batch), batch, example_targets(model.shapes, 16, seed))
    weights = list(model.image_own.parameters())

    def pull(loss):
        gradients = torch.autograd.grad(loss, weights, retain_graph=True)
        return float(torch.cat([gradient.flatten() for gradient in gradients]).norm())

    assert pull(losses["separate_cxr"]) < pull(losses["task"] + losses["predict_cxr"])  # with weights of 1: sixfold


def test_a_missing_image_is_masked_and_only_pairs_are_compared():
    model = model_of().eval()
    batch = example_batch(model.shapes, 4, torch.tensor([1, 0, 1, 0]).bool())
    output = model(batch)
    assert (output.features["attention"][[1, 3], :, 2] == 0).all()
    assert (output.features["attention"][[0, 2], :, 2] > 0).all()
    targets = example_targets(model.shapes, 4)
    losses = model.losses(output, batch, targets)
    f = output.features
    pairs = divergence(f["shared_ehr"][[0, 2]], f["shared_cxr"][[0, 2]]).mean()
    assert float(losses["align"].detach()) == pytest.approx(float(pairs.detach()), rel=1e-5)
    with torch.no_grad():
        no_image = example_batch(model.shapes, 4, torch.zeros(4).bool())
        losses = model.losses(model(no_image), no_image, targets)
    assert [float(losses[key]) for key in ("align", "separate_cxr", "predict_cxr", "rank_attention")] == [0] * 4


def test_an_absent_record_leaves_the_image_alone():
    model = model_of().eval()
    batch = example_batch(model.shapes, 2, torch.ones(2).bool())
    present = torch.tensor([[False, True], [True, True]])
    absent = dataclasses.replace(batch, present=present)
    changed = dataclasses.replace(absent, ehr=batch.ehr + 1)
    with torch.no_grad():
        assert torch.equal(model(absent).logits[0], model(changed).logits[0])
        assert not torch.equal(model(absent).logits[1], model(changed).logits[1])


def test_a_negative_weight_is_refused():
    with pytest.raises(InputError, match=r"strategies\.drfuse: align must be at least 0"):
        model_of(align=-1.0)
