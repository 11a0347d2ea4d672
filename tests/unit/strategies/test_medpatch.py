"""MedPatch: pools, answers, losses and temperatures by hand; who learns when; what calibration and presence tell."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.examples import example_batch, example_targets, small_shapes
from pipeline.modelling.faint import auroc
from pipeline.modelling.interface import Epoch
from pipeline.modelling.registry import build
from pipeline.modelling.views import keep_records, without_images, without_record
from pipeline.strategies.medpatch import LOG_TEMPERATURES, PULL, confidence, mean_of, token_losses
from tests.support.told_twice import SHAPES, told_twice

TASKS = ["mortality", "phenotype", "los"]
JOINT = {"high", "low", "missingness", "weights"}


def model_of(task="phenotype", second=True, shapes=None, **hyper):
    torch.manual_seed(0)
    model = build("medpatch", shapes or small_shapes(task, 32), {"lr": 1e-3, "first_share": 0.4, **hyper}).eval()
    model.set_prior(torch.linspace(-1, 1, model.shapes.outputs))
    model.second.fill_(second)
    return model


def batch_of(model, with_image=(1, 0, 1, 1, 0, 1)):
    return example_batch(model.shapes, len(with_image), torch.tensor(with_image).bool())


def numbers(module, x):
    return module.weight.detach().numpy() @ x + module.bias.detach().numpy()


def sureness(z, kind):
    """Of one token's logits: a list, an entry a label, or one."""
    if kind == "multiclass":
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        return [0.5 + 0.5 * (p.max() - 1 / len(z)) / (1 - 1 / len(z))]
    return [max(p, 1 - p) for p in 1 / (1 + np.exp(-z))]


def answered(head, x):
    """LayerNorm, linear, ReLU, linear."""
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-5) * head[0].weight.detach().numpy() + head[0].bias.detach().numpy()
    return numbers(head[-1], np.maximum(numbers(head[1], x), 0))


@pytest.mark.parametrize("task", TASKS)
@torch.no_grad()
def test_the_answer_of_the_second_phase_by_hand(task):
    model = model_of(task, threshold=0.6)
    kind, prior = model.shapes.task.kind, model.prior.numpy()
    with torch.no_grad():
        model.weights.normal_()
        for name in ("ehr", "cxr"):
            model.temperatures(name).uniform_(0.3, 4)
    batch = keep_records(batch_of(model), torch.tensor([1, 1, 0, 1, 1, 1]).bool())
    with torch.no_grad():
        output, series, image = model(batch), model.series(batch), model.image(batch.images)
    place, width, split = {int(s): p for p, s in enumerate(batch.image_sample)}, model.shapes.encoders.width, set()
    for i in range(6):
        tokens = {} if i == 2 else {"ehr": series.tokens[i].numpy()}
        tokens |= {"cxr": image.tokens[place[i]].numpy()} if i in place else {}
        pooled = {True: [], False: []}
        for name in ("ehr", "cxr"):
            taus = model.temperatures(name).numpy()
            told = [
                sureness((numbers(model.tell[name], x) + prior) / taus[n], kind)
                for n, x in enumerate(tokens.get(name, []))
            ]
            for wanted, each in pooled.items():
                for k in range(taus.shape[1]):
                    chosen = [x for x, t in zip(tokens.get(name, []), told, strict=True) if (t[k] >= 0.6) == wanted]
                    each.append(np.mean(chosen, axis=0) if chosen else np.zeros(width))
                    split.add((name, wanted, bool(chosen)))
        high, low = (
            answered(model.high, np.concatenate(pooled[True])),
            answered(model.low, np.concatenate(pooled[False])),
        )
        answers = {2: numbers(model.missingness, batch.present[i].numpy().astype(float)), 3: low, 4: high}
        for r, (name, vector) in enumerate((("ehr", series.pooled[i]), ("cxr", image.pooled[place.get(i, 0)]))):
            if name in tokens:
                answers[r] = numbers(model.alone[name], vector.numpy())
                np.testing.assert_allclose(output.unimodal[name][i], answers[r] + prior, atol=1e-5)
        weights = {r: np.exp(model.weights[r].detach().numpy()) for r in answers}
        expected = sum(weights[r] * z for r, z in answers.items()) / sum(weights.values()) + prior
        np.testing.assert_allclose(output.logits[i], expected, atol=1e-5)
        np.testing.assert_allclose(output.features["high"][i], high + prior, atol=1e-5)
        np.testing.assert_allclose(output.features["low"][i], low + prior, atol=1e-5)
    assert {("ehr", True, True), ("ehr", False, True), ("cxr", True, True), ("cxr", False, True)} <= split


def test_a_token_that_becomes_sure_moves_from_one_pool_to_the_other():
    tokens = torch.tensor([[[1.0, 0.0], [3.0, 2.0], [5.0, 7.0]]])
    sure = torch.tensor([[[True], [False], [False]]])
    assert mean_of(tokens, sure).tolist() == [[[1.0, 0.0]]]
    assert mean_of(tokens, ~sure).tolist() == [[[4.0, 4.5]]]
    sure[0, 1] = True
    assert mean_of(tokens, sure).tolist() == [[[2.0, 1.0]]]
    assert mean_of(tokens, ~sure).tolist() == [[[5.0, 7.0]]]
    assert mean_of(tokens, torch.zeros(1, 3, 4).bool()).abs().sum() == 0
    model = model_of("mortality")  # the same within the model: all sure, none sure
    batch = batch_of(model)
    for temperature, full, empty in ((1e-4, "high", "low"), (1e4, "low", "high")):
        for name in ("ehr", "cxr"):
            model.temperatures(name).fill_(temperature)
        with torch.no_grad():
            features = model(batch).features
            everything, nothing = (features[name] for name in (full, empty))
            vectors = torch.cat([model.series(batch).tokens.mean(dim=1), torch.zeros(6, 16)], dim=1)
            vectors[batch.image_sample, 16:] = model.image(batch.images).pooled
            torch.testing.assert_close(everything, getattr(model, full)(vectors) + model.prior)
            torch.testing.assert_close(nothing, getattr(model, empty)(torch.zeros(6, 32)) + model.prior)


@torch.no_grad()
def test_confidences_by_hand():
    assert confidence(torch.tensor([-math.log(3), 0.0, math.log(3)]), "binary").tolist() == pytest.approx(
        [0.75, 0.5, 0.75]
    )
    z = torch.tensor([[0.0] * 7, [100.0] + [0.0] * 6, [math.log(6)] + [0.0] * 6])
    assert confidence(z, "multiclass")[:, 0].tolist() == pytest.approx([0.5, 1.0, 0.5 + 0.5 * (0.5 - 1 / 7) / (6 / 7)])


@torch.no_grad()
def test_weights_sum_to_1_for_each_label_and_an_absent_modality_has_none():
    model = model_of()
    model.weights.normal_()
    batch = batch_of(model)
    free = torch.softmax(model.weights, dim=0)
    for each, place in ((without_images(batch), 1), (without_record(batch), 0)):
        weights = model.late_weights(each)[0]  # a stay with an image
        rest = [r for r in range(5) if r != place]
        torch.testing.assert_close(weights.sum(dim=0), torch.ones(25))
        torch.testing.assert_close(weights[rest], free[rest] / (1 - free[place]))
        assert (weights[place] == 0).all()
    gone = without_images(without_record(batch))  # the record of medians speaks
    assert (model.late_weights(gone)[:, 0] > 0).all()
    assert model(gone).logits.isfinite().all()


@torch.no_grad()
def test_without_its_image_a_stay_differs_by_weights_zeros_and_the_pattern_of_what_is_missing_alone():
    model = model_of("mortality")
    model.temperature_cxr[:2], model.temperature_cxr[2:] = 1e-4, 1e4  # two of four cells are sure
    batch = batch_of(model, (1, 1, 1))
    whole, gone = model(batch), model(without_images(batch))
    torch.testing.assert_close(gone.unimodal["ehr"], whole.unimodal["ehr"])
    torch.testing.assert_close(gone.features["sure_ehr"], whole.features["sure_ehr"])
    model.image.norm.weight.zero_()  # tokens of zeros
    model.image.norm.bias.zero_()
    blank = model(batch)
    for pool in ("high", "low"):
        torch.testing.assert_close(gone.features[pool], blank.features[pool])
        assert (gone.features[pool] - whole.features[pool]).abs().max() > 1e-3
    here, missing = (model.missingness(torch.tensor(bits)) for bits in ([1.0, 1.0], [1.0, 0.0]))
    told = [gone.unimodal["ehr"] - model.prior, missing, gone.features["low"] - model.prior]
    told.append(gone.features["high"] - model.prior)
    torch.testing.assert_close(gone.logits, sum(told) / 4 + model.prior)
    assert (here - missing).abs() > 1e-3


@pytest.mark.parametrize("task", TASKS)
def test_the_first_phase_by_hand_it_learns_nothing_of_stays_that_are_held(task):
    model = model_of(task, second=False)
    kind, prior = model.shapes.task.kind, model.prior.numpy()
    batch, targets = batch_of(model), example_targets(model.shapes, 6)
    batch = dataclasses.replace(batch, index=torch.tensor([40, 7, 300, 2, 511, 9]))
    model.held.zero_()
    model.held[torch.tensor([300, 7])] = True
    output = model(batch)
    losses = model.losses(output, batch, targets)
    assert not losses["task"].requires_grad
    assert (losses["high"], losses["low"]) == (0, 0)
    own, of_tokens = {"ehr": [], "cxr": []}, {"ehr": [], "cxr": []}
    place = {int(s): p for p, s in enumerate(batch.image_sample)}

    def loss(z, y):
        if kind == "multiclass":
            return math.log(np.exp(z).sum()) - z[int(y[0])]
        return np.mean(np.log1p(np.exp(z)) - y * z)

    with torch.no_grad():
        tokens = {"ehr": model.series(batch).tokens.numpy(), "cxr": model.image(batch.images).tokens.numpy()}
        pooled = {"ehr": model.series(batch).pooled.numpy(), "cxr": model.image(batch.images).pooled.numpy()}
    for i in range(6):
        answers = []
        for name, p in (("ehr", i), ("cxr", place.get(i))):
            if p is None:
                continue
            answers.append(numbers(model.alone[name], pooled[name][p]) + prior)
            if i not in (1, 2):
                y = targets[i].numpy()
                own[name].append(loss(answers[-1], y))
                of_tokens[name].append(
                    np.mean([loss(numbers(model.tell[name], x) + prior, y) for x in tokens[name][p]])
                )
        np.testing.assert_allclose(output.logits[i].detach(), np.mean(answers, axis=0), atol=1e-5)
    for name in ("ehr", "cxr"):
        assert float(losses[name].detach()) == pytest.approx(np.mean(own[name]), abs=1e-5)
        assert float(losses[f"tokens_{name}"].detach()) == pytest.approx(np.mean(of_tokens[name]), abs=1e-5)
    (losses["tokens_ehr"] + losses["tokens_cxr"]).backward()
    moved = {key.split(".")[0] for key, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"tell"}


def test_losses_of_the_second_phase_are_of_all_stays():
    model = model_of(joint=0.3)
    model.held[:] = True
    batch, targets = batch_of(model), example_targets(model.shapes, 6)
    output = model(batch)
    found = model.losses(output, batch, targets)
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    torch.testing.assert_close(found["task"], loss(output.logits, targets))
    for pool in ("high", "low"):
        torch.testing.assert_close(found[pool], 0.3 * loss(output.features[pool], targets))
    assert sum(float(found[key]) for key in ("ehr", "cxr", "tokens_ehr", "tokens_cxr")) == 0


def test_the_second_phase_leaves_encoders_and_confidences_as_they_are():
    model = model_of(second=False)
    batch, targets = batch_of(model), example_targets(model.shapes, 6)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    moved = []
    for done in (0, 4):
        with torch.no_grad():
            model.eval().between_epochs(Epoch(done, 10, lambda: [(batch, targets)]))
        waiting = {id(p) for p in model.waiting()}
        named = {key.split(".")[0] for key, p in model.named_parameters() if id(p) in waiting}
        assert named == (JOINT if done == 0 else set())
        before = {key: value.clone() for key, value in model.named_parameters()}
        model.train()
        for _ in range(2):
            optimiser.zero_grad()
            sum(model.losses(model(batch), batch, targets).values()).backward()
            optimiser.step()
        moved.append({key.split(".")[0] for key, p in model.named_parameters() if not torch.equal(p, before[key])})
    assert moved == [{"series", "image", "alone", "tell"}, JOINT | {"alone"}]


@pytest.mark.parametrize("task", ["phenotype", "los"])
def test_temperatures_are_those_by_which_held_stays_lose_least(task):
    model = model_of(task, second=False)
    with torch.no_grad():
        for head in model.tell.values():
            head.weight.mul_(8)  # surer than they have reason to be
    told = []
    for seed, with_image in enumerate(((1, 0, 1, 1, 0, 1), (0, 0, 1, 0, 0, 0))):
        batch = example_batch(model.shapes, 6, torch.tensor(with_image).bool(), seed)
        told.append((dataclasses.replace(batch, index=6 * seed + batch.index), example_targets(model.shapes, 6, seed)))
    model.held.zero_()
    held = [0, 1, 3, 8, 9]
    model.held[held] = True
    with torch.no_grad():
        model.between_epochs(Epoch(3, 10, lambda: told))
        assert not model.second
        assert (model.temperature_ehr == 1).all()
        model.between_epochs(Epoch(4, 10, lambda: told))
        assert model.second
        for name in ("ehr", "cxr"):
            lost = 0
            for batch, targets in told:
                rows = batch.image_sample if name == "cxr" else torch.arange(6)
                tokens = model.image(batch.images).tokens if name == "cxr" else model.series(batch).tokens
                for x, row in zip(tokens, rows, strict=True):
                    if int(batch.index[row]) in held:
                        z = model.tell[name](x)[None] + model.prior
                        lost = lost + torch.cat(
                            [token_losses(z / math.exp(t), targets[row][None], model.kind) for t in LOG_TEMPERATURES]
                        )
            lost = lost + PULL * torch.tensor(LOG_TEMPERATURES).square()[:, None, None]
            best = torch.tensor(LOG_TEMPERATURES).exp()[lost.argmin(dim=0)]
            torch.testing.assert_close(model.temperatures(name), best)
            assert float(model.temperatures(name).mean()) > 1.2
        kept = model.temperature_ehr.clone()
        model.between_epochs(Epoch(5, 10, lambda: told[:1]))  # once alone
        assert torch.equal(model.temperature_ehr, kept)


def test_where_nobody_is_held_temperatures_are_1():
    model = model_of(second=False, held=0.0)
    assert not model.held.any()
    with torch.no_grad():
        model.between_epochs(Epoch(9, 10, lambda: [(batch_of(model), example_targets(model.shapes, 6))]))
    assert (torch.cat([model.temperature_ehr, model.temperature_cxr]) == 1).all()


def test_the_history_file_shows_shares_of_sure_tokens_and_temperatures():
    model = model_of().train()
    shares = {"ehr": [], "cxr": []}
    for seed in range(3):
        batch = keep_records(example_batch(model.shapes, 6, torch.arange(6) % 2 > 0, seed), torch.arange(6) > 0)
        output = model(batch)
        model.losses(output, batch, example_targets(model.shapes, 6, seed))
        shares["ehr"].extend(output.features["sure_ehr"][1:].tolist())
        shares["cxr"].extend(output.features["sure_cxr"].tolist())
    model.temperature_cxr.fill_(1.5)
    model.between_epochs(Epoch(6, 10, list))
    found = model.diagnostics()
    assert found == {
        "sure_ehr": pytest.approx(np.mean(shares["ehr"]), abs=1e-5),
        "sure_cxr": pytest.approx(np.mean(shares["cxr"]), abs=1e-5),
        "temperature_ehr": 1.0,
        "temperature_cxr": 1.5,
    }
    assert 0 < found["sure_ehr"] < 1
    model.between_epochs(Epoch(7, 10, list))
    assert model.diagnostics()["sure_ehr"] == 0


def trained(model, told, epochs, steps=10):
    batch, targets = told
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for done in range(epochs):
        with torch.no_grad():
            model.eval().between_epochs(Epoch(done, 10, lambda: [told]))
        model.train()
        for _ in range(steps):
            optimiser.zero_grad()
            sum(model.losses(model(batch), batch, targets).values()).backward()
            optimiser.step()
    return model.eval()


def test_temperatures_make_confidences_of_fresh_stays_honest():
    """Labels that the record tells in part: what has learned them by heart is too sure of fresh ones."""
    shapes = dataclasses.replace(SHAPES, stays=1024)
    train, targets = told_twice(160, 0)
    fresh, truth = told_twice(400, 1)
    lies = torch.rand(560, generator=torch.Generator().manual_seed(0)) < 0.2
    targets, truth = (
        y - 2 * y * lie[:, None] + lie[:, None].float() for y, lie in ((targets, lies[:160]), (truth, lies[160:]))
    )
    model = trained(model_of("mortality", second=False, shapes=shapes, held=0.3), (train, targets), 4, 30)
    with torch.no_grad():
        model.between_epochs(Epoch(4, 10, lambda: [(train, targets)]))
        logits = {"ehr": model.series(fresh).tokens, "cxr": model.image(fresh.images).tokens}
        for name, tokens in logits.items():
            z = model.tell[name](tokens) + model.prior
            before, after = (float(token_losses(z / t, truth, "binary").mean()) for t in (1, model.temperatures(name)))
            assert float(model.temperatures(name).mean()) > 1.2, name
            assert after < before - 0.03, (name, before, after)


def test_what_presence_tells_is_learned_by_the_module_of_missingness():
    """Of records and images that say nothing, and by nothing else than the loss of all answers together."""
    with_image = torch.arange(96) % 2 > 0
    train, fresh = (example_batch(SHAPES, 96, with_image, seed) for seed in (0, 1))
    targets = with_image[:, None].float()
    model = model_of("mortality", shapes=SHAPES)
    assert float(auroc(model(fresh).logits.detach(), targets)) < 0.9
    optimiser = torch.optim.Adam(model.missingness.parameters(), lr=0.1)
    for _ in range(40):
        optimiser.zero_grad()
        model.losses(model(train), train, targets)["task"].backward()
        optimiser.step()
    here, gone = (float(model.missingness(torch.tensor(bits)).detach()) for bits in ([1.0, 1.0], [1.0, 0.0]))
    assert here > gone + 3
    assert float(auroc(model(fresh).logits.detach(), targets)) > 0.99


@pytest.mark.parametrize(
    "hyper", [{"threshold": 0.4}, {"first_share": 1.0}, {"joint": -1.0}, {"held": 1.0}, {"hidden": -1}]
)
def test_impossible_knobs_are_refused(hyper):
    with pytest.raises(InputError, match=rf"strategies\.medpatch: {next(iter(hyper))}: "):
        model_of(**hyper)
