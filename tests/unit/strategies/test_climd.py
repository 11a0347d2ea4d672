"""CLIMD: scores and weights by hand, how the curriculum begins and ends, and that the base stays what it is."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling import cards
from pipeline.modelling.examples import example_batch, example_targets, small_shapes
from pipeline.modelling.interface import Epoch, Output
from pipeline.modelling.losses import divergence
from pipeline.modelling.optimiser import AdamW
from pipeline.modelling.registry import build
from pipeline.modelling.views import keep_images
from pipeline.strategies.climd import classes, sampling

N = 40


def model_of(task="mortality", **hyper):
    torch.manual_seed(0)
    return build("climd", small_shapes(task, 32), {"lr": 1e-3, **hyper})


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_divergence_of_classes_is_that_of_their_distributions():
    a, b = torch.randn(5, 7), torch.randn(5, 7)
    p, q = softmax(a.numpy().astype(float)), softmax(b.numpy().astype(float))
    m = (p + q) / 2
    expected = 0.5 * (p * np.log(p / m) + q * np.log(q / m)).sum(axis=1)
    np.testing.assert_allclose(divergence(a, b, "multiclass").numpy(), expected, atol=1e-6)
    sure = torch.tensor([[90.0, 0.0]])
    assert float(divergence(sure, -sure, "multiclass")) == pytest.approx(math.log(2), abs=1e-6)


def test_the_class_of_a_stay_is_its_rarest_label():
    targets = torch.tensor([[1, 0, 1], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]]).float()
    assert classes(targets, "multilabel").tolist() == [2, 0, 1, 1, 3]
    order = torch.tensor([2, 0, 1])
    moved = classes(targets[:, order], "multilabel")
    assert [3 if k == 3 else int(order[k]) for k in moved] == [2, 0, 1, 1, 3]
    assert classes(torch.tensor([[1.0], [0.0]]), "binary").tolist() == [0, 1]
    assert classes(torch.tensor([[4.0], [0.0]]), "multiclass").tolist() == [4, 0]


def test_weights_are_those_of_a_naive_computation():
    g = torch.Generator().manual_seed(0)
    klass, group = torch.randint(3, (60,), generator=g), torch.rand(60, generator=g) < 0.3
    score = torch.rand(60, generator=g)
    found = sampling(klass, group, score, 0.25, 0.5, 0.1).numpy()
    expected = np.zeros(60)
    for k in range(3):
        n_k = int((klass == k).sum())
        for pictured in (True, False):
            inside = [i for i in range(60) if klass[i] == k and bool(group[i]) == pictured]
            best = sorted(inside, key=lambda i: -float(score[i]))[: max(2, math.ceil(len(inside) / 2))]
            own = {i: 1.0 if i in best else 0.1 for i in inside}
            for i in inside:
                expected[i] = n_k**0.75 * len(inside) / n_k * own[i] / sum(own.values())
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-12)


def test_classes_are_even_at_the_start_and_the_training_datas_at_the_end_and_pairs_keep_their_share():
    g = torch.Generator().manual_seed(1)
    klass = torch.cat([torch.zeros(900), torch.ones(80), torch.full((20,), 2)]).long()
    pictured = torch.rand(1000, generator=g) < 0.26
    score = torch.rand(1000, generator=g) + pictured  # who has an image scores higher
    start = sampling(klass, pictured, score, 1.0, 0.5, 0.1)
    end = sampling(klass, pictured, score, 0.0, 1.0, 0.1)
    assert torch.allclose(end, torch.full((1000,), 1e-3, dtype=torch.float64))
    drawn = np.bincount(klass[np.random.default_rng(0).choice(1000, 10_000, p=start.numpy())], minlength=3)
    assert float(((drawn - 10_000 / 3) ** 2 / (10_000 / 3)).sum()) < 13.8  # chi-square of 2 degrees at 0.001
    for k in range(3):
        members = klass == k
        share = float(start[members & pictured].sum() / start[members].sum())
        assert share == pytest.approx(float(pictured[members].double().mean()), abs=1e-9)


@pytest.mark.parametrize("complement", ["divergence", "gain"])
@pytest.mark.parametrize("task", ["phenotype", "los"])
def test_scores_are_those_of_a_naive_computation(task, complement):
    model = model_of(task, complement=complement, alpha=0.3)
    batch = example_batch(model.shapes, 6, torch.tensor([1, 1, 0, 0, 1, 0]).bool())
    targets = example_targets(model.shapes, 6)
    fused, ehr, cxr = (torch.randn(6, model.shapes.outputs) for _ in range(3))
    found = model.scores(Output(fused, unimodal={"ehr": ehr, "cxr": cxr}), batch, targets)

    def told(logits, i):
        x, y = logits[i].numpy().astype(float), targets[i].numpy()
        if task == "los":
            return softmax(x[None])[0][int(y[0])]
        p = 1 / (1 + np.exp(-x))
        return np.where(y == 1, p, 1 - p).mean()

    for i in range(6):
        sure = [told(ehr, i)] + ([told(cxr, i)] if batch.present[i, 1] else [])
        apart = 0.0
        if batch.present[i, 1] and complement == "gain":
            apart = max(0.0, told(fused, i) - max(sure))
        elif batch.present[i, 1]:
            kind = model.shapes.task.kind
            most = math.log(2) * (1 if task == "los" else model.shapes.outputs)
            apart = float(divergence(ehr[i : i + 1], cxr[i : i + 1], kind)) / most
        assert float(found[i]) == pytest.approx(0.3 * np.mean(sure) + 0.7 * apart, abs=1e-5)
    alone = model.scores(Output(fused), batch, targets)
    assert float(alone[0]) == pytest.approx(0.3 * told(fused, 0), abs=1e-5)  # a base without branches


def told_of(model, flipped=()):
    """A batch of the model's stays that have images, its labels as the base answers them, but for the flipped."""
    batch = example_batch(model.shapes, N, torch.ones(N).bool())
    model.eval()
    with torch.no_grad():
        answers = model(batch).unimodal
    both = answers["ehr"] + answers["cxr"]
    targets = (both > both.median()).float()
    for i in flipped:
        targets[i] = 1 - targets[i]
    return batch, targets


def weights(model, batch, targets, done, count=10):
    with torch.no_grad():
        model.between_epochs(Epoch(done, count, lambda: [(batch, targets)]))
    return model.weight[batch.index].clone()


def test_a_flipped_label_scores_low_and_is_drawn_less_than_its_clean_twin_until_the_curriculum_is_over():
    model = model_of(alpha=1.0)
    batch, targets = told_of(model)
    twin = int(batch.size - 1)
    for key in ("ehr", "observed", "since", "images"):
        getattr(batch, key)[twin] = getattr(batch, key)[0]
    targets[twin] = 1 - targets[0]
    with torch.no_grad():
        told = model.scores(model(batch), batch, targets)
    wrong, right = sorted((0, twin), key=lambda i: float(told[i]))  # one record and image, and both labels
    assert float(told[wrong] + told[right]) == pytest.approx(1, abs=1e-5)
    early = weights(model, batch, targets, 0)
    groups = targets[:, 0]
    for i, expected in ((wrong, 0.1), (right, 1.0)):
        rest = early[groups == groups[i]]
        assert float(early[i] / rest.max()) == pytest.approx(expected)
    assert set(weights(model, batch, targets, 7).tolist()) == {1.0}


def test_a_score_is_half_of_what_it_was():
    model = model_of()
    batch, targets = told_of(model)
    weights(model, batch, targets, 0)
    first = model.score[:N].clone()
    with torch.no_grad():
        assert torch.equal(first, model.scores(model(batch), batch, targets))
        for parameter in model.base.head_cxr.parameters():
            parameter += 1
    weights(model, batch, targets, 1)
    with torch.no_grad():
        new = model.scores(model(batch), batch, targets)
    assert float((new - first).abs().max()) > 0.01
    torch.testing.assert_close(model.score[:N], 0.5 * first + 0.5 * new)


@pytest.mark.parametrize(
    ("pace", "done", "evenness"),
    [("cosine", 2, math.cos(math.pi / 5)), ("linear", 2, 0.6), ("step", 2, 1.0), ("step", 5, 0.0), ("cosine", 0, 1.0)],
)
def test_pace(pace, done, evenness):
    model = model_of(pace=pace, share=0.5)
    assert model.evenness(model.progress(Epoch(done, 10, list))) == pytest.approx(evenness)


def test_it_draws_by_weight_and_says_where_it_stands():
    model = model_of(measure="none", pace="step")  # by inverse frequency
    batch, targets = told_of(model)
    batch = keep_images(batch, (torch.arange(N) < 3) | (torch.arange(N) % 5 == 0))
    targets.fill_(0)
    targets[:4] = 1
    weights(model, batch, targets, 3)
    rows = torch.arange(N)
    drawn = torch.cat([model.draw(rows, np.random.default_rng(seed)) for seed in range(100)])
    assert len(drawn) == 100 * N
    assert float((drawn < 4).float().mean()) == pytest.approx(0.5, abs=0.03)
    told = model.diagnostics()
    assert told["progress"] == pytest.approx(3 / 7)
    assert told["drawn_rarest"] == pytest.approx(0.5)
    pairs = batch.present[:, 1].float()
    assert float(pairs[:4].mean()) == 0.75  # and of the others one in five or so: a draw has more pairs than the data
    assert told["drawn_pairs"] == pytest.approx(float(pairs[:4].mean() + pairs[4:].mean()) / 2)
    weights(model, batch, targets, 7)
    over = {"progress": 1, "drawn_rarest": 0.1, "drawn_pairs": float(pairs.mean()), "score_rarest": 0, "score": 0}
    assert model.diagnostics() == pytest.approx(over)
    assert model_of(share=0.0).diagnostics() == {}
    drawn = model.draw(rows, np.random.default_rng(1))
    assert torch.equal(drawn, model.base.draw(rows, np.random.default_rng(1)))
    assert sorted(drawn.tolist()) == rows.tolist()


def test_stays_that_are_not_measured_are_not_run_through_the_base(monkeypatch):
    model = model_of(measure="none")
    batch, targets = told_of(model)
    monkeypatch.setattr(type(model), "forward", None)
    weights(model, batch, targets, 0)
    assert not model.score.any()


def trained(name, hyper):
    torch.manual_seed(0)
    model = build(name, small_shapes("phenotype", 32), hyper)
    model.set_prior(torch.linspace(-1, 1, model.shapes.outputs))
    batch, targets = example_batch(model.shapes, 16, torch.arange(16) % 2 == 0), example_targets(model.shapes, 16)
    optimiser = AdamW(model.parameters(), lr=1e-3)
    rng = np.random.default_rng(0)
    for done in range(2):
        model.eval()
        with torch.no_grad():
            model.between_epochs(Epoch(done, 2, lambda: [(batch, targets)]))
        model.train()
        torch.manual_seed(done)
        rows = model.draw(torch.arange(16), rng)
        losses = model.losses(model(batch), batch, targets[rows])  # the order matters to what is learned
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        model.after_backward()
        optimiser.step()
    model.eval()
    return model(batch).logits


@pytest.mark.parametrize("base", ["drfuse", "smil"])
def test_without_a_curriculum_it_is_its_base_bit_for_bit(base):
    own = trained(base, {})
    assert torch.equal(trained("climd", {"base": base, "share": 0.0}), own)
    assert not torch.equal(trained("climd", {"base": base, "share": 1.0}), own)


def test_the_base_has_the_knobs_that_it_is_given():
    assert model_of(base_hyper={"align": 0.25}).base.weights["align"] == 0.25
    assert model_of().base.weights["align"] == 1.0


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"base": "late_average"}, "base: late_average declares missing complete, climd native"),
        ({"base": "resnet"}, "base: resnet declares modalities cxr, climd cxr, ehr"),
        ({"base": "gbm_image"}, "base: gbm_image is fitted, not descended: there are no epochs to change"),
        ({"base": "climd"}, "base: climd wraps another strategy itself"),
        ({"base": "nobody"}, "base: must be the name of a strategy, is 'nobody'"),
        ({"base_hyper": {"width": 3}}, r"base_hyper: strategies.drfuse.width: unknown; it knows lr, predict_shared, "),
        ({"pace": "fast"}, "pace: must be one of cosine, linear, step, is 'fast'"),
        ({"measure": "all"}, "measure: must be one of both, none, is 'all'"),
        ({"complement": "x"}, "complement: must be one of divergence, gain, is 'x'"),
        ({"alpha": 1.5}, "alpha: must be between 0 and 1, is 1.5"),
        ({"share": -1.0}, "share: must be between 0 and 1, is -1.0"),
        ({"admitted": 2.0}, "admitted: must be between 0 and 1, is 2.0"),
        ({"rest": 0.0}, "rest: must be above 0 and at most 1, is 0.0"),
    ],
)
def test_impossible_knobs_are_refused(hyper, message):
    with pytest.raises(InputError) as refused:
        model_of(**hyper)
    assert str(refused.value).startswith(f"strategies.climd: {message}")


def test_a_base_is_read_from_the_hyper_parameters():
    assert cards.parts("climd", {"base": "smil"}) == ("climd", "smil")
    assert cards.parts("smil", {}) == ("smil",)
    with pytest.raises(InputError, match=r"strategies\.climd\.base: must be the name of a strategy, is None"):
        cards.parts("climd", {})


def test_who_lacks_an_image_is_scored_by_the_record_alone():
    model = model_of(alpha=0.5)
    batch = example_batch(model.shapes, 4, torch.zeros(4).bool())
    targets = example_targets(model.shapes, 4)
    logits = torch.randn(4, 1)
    for cxr in (torch.zeros(4, 1), torch.full((4, 1), 9.0)):
        output = Output(torch.zeros(4, 1), unimodal={"ehr": logits, "cxr": cxr})
        p = torch.sigmoid(torch.where(targets > 0.5, logits, -logits))[:, 0]
        torch.testing.assert_close(model.scores(output, batch, targets), 0.5 * p)
    gone = dataclasses.replace(batch, present=torch.zeros_like(batch.present))  # nothing at all: medians speak
    torch.testing.assert_close(model.scores(output, gone, targets), 0.5 * p)
