"""HyperMM: extractor, set and losses by hand; its second phase leaves the first one's weights; sets may be smaller."""

import dataclasses

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.examples import example_batch, example_targets, small_shapes
from pipeline.modelling.faint import auroc
from pipeline.modelling.interface import Epoch
from pipeline.modelling.registry import build
from pipeline.modelling.views import keep_records, without_images, without_record
from tests.support.told_twice import SHAPES, told_twice


def model_of(task="phenotype", second=False, **hyper):
    torch.manual_seed(0)
    model = build("hypermm", small_shapes(task), {"lr": 1e-3, **hyper}).eval()
    model.set_prior(torch.linspace(-1, 1, model.shapes.outputs))
    model.second.fill_(second)
    return model


def batch_of(model, with_image=(1, 0, 1, 1, 0, 1)):
    return example_batch(model.shapes, len(with_image), torch.tensor(with_image).bool())


def extracted(model, x, modality):
    """By hand, of one vector [D]."""
    first, _, last = model.extract.make
    name = model.extract.names[modality].detach().numpy()
    hidden = np.maximum(first.weight.detach().numpy() @ name + first.bias.detach().numpy(), 0)
    made = last.weight.detach().numpy() @ hidden + last.bias.detach().numpy()
    width = len(x)
    return made[: width**2].reshape(width, width) @ np.asarray(x) / width**0.5 + made[width**2 :]


def perceptron(net, x):
    hidden = np.maximum(net[0].weight.detach().numpy() @ x + net[0].bias.detach().numpy(), 0)
    return net[-1].weight.detach().numpy() @ hidden + net[-1].bias.detach().numpy()


@torch.no_grad()
def test_the_extractor_by_hand_and_that_it_goes_by_the_modalitys_name():
    model = model_of()
    x = torch.randn(3, 16)
    one, other = model.extract(x, 0), model.extract(x, 1)
    for i in range(3):
        np.testing.assert_allclose(one[i], extracted(model, x[i], 0), atol=1e-5)
        np.testing.assert_allclose(other[i], extracted(model, x[i], 1), atol=1e-5)
    assert (one - other).abs().max() > 1e-2
    model.extract.names[1] = model.extract.names[0]
    assert torch.equal(model.extract(x, 0), model.extract(x, 1))


@torch.no_grad()
def test_the_answer_is_of_the_mean_of_what_is_there():
    model = model_of(second=True)
    batch = keep_records(batch_of(model), torch.tensor([1, 1, 0, 1, 0, 1]).bool())
    logits, e, c = model(batch).logits, model.series(batch).pooled, model.image(batch.images).pooled
    image = dict(zip(batch.image_sample.tolist(), c, strict=True))
    for i in range(6):
        there = [extracted(model, image[i], 1)] if i in image else []
        there += [extracted(model, e[i], 0)] if batch.present[i, 0] or not there else []
        expected = perceptron(model.together, np.mean(there, axis=0)) + model.prior.numpy()
        np.testing.assert_allclose(logits[i], expected, atol=1e-5)


@torch.no_grad()
def test_a_modality_that_is_a_copy_of_another_changes_nothing_and_members_have_no_order():
    model = model_of(second=True)
    batch = batch_of(model, (1, 1, 1))
    e, c = model.series(batch).pooled, model.image(batch.images).pooled
    before = model(batch).logits

    def as_if(series, image, names):
        other = build("hypermm", model.shapes, {"lr": 1e-3}).eval()
        other.load_state_dict(model.state_dict())
        other.extract.names.copy_(names)
        for encoder, vectors in (("series", series), ("image", image)):
            pooled = dataclasses.make_dataclass("Features", ["pooled"])(vectors)
            getattr(other, encoder).forward = lambda given, found=pooled: found
        return other(batch).logits

    names = model.extract.names
    torch.testing.assert_close(as_if(c, e, names.flip(0)), before)
    copied = as_if(e, e, names[[0, 0]])
    torch.testing.assert_close(copied, model(without_images(batch)).logits)
    assert (copied - before).abs().max() > 1e-3


@torch.no_grad()
def test_the_first_phase_answers_with_the_mean_of_each_alone():
    model = model_of()
    batch = batch_of(model)
    output = model(batch)
    ehr, cxr = output.unimodal["ehr"], output.unimodal["cxr"]
    torch.testing.assert_close(output.logits[[0, 2, 3, 5]], ((ehr + cxr) / 2)[[0, 2, 3, 5]])
    torch.testing.assert_close(output.logits[[1, 4]], ehr[[1, 4]])
    torch.testing.assert_close(model(without_record(batch)).logits[[0, 2, 3, 5]], cxr[[0, 2, 3, 5]])
    assert torch.equal(cxr[[1, 4]], model.prior.expand(2, -1))
    x = extracted(model, model.series(batch).pooled[1], 0)
    expected = model.alone.weight.numpy() @ x + model.alone.bias.numpy() + model.prior.numpy()
    np.testing.assert_allclose(ehr[1], expected, atol=1e-5)


def test_losses_of_the_first_phase_are_of_what_is_there():
    model = model_of()
    batch = keep_records(batch_of(model), torch.tensor([1, 1, 0, 1, 1, 1]).bool())
    targets = example_targets(model.shapes, 6)
    output = model(batch)
    losses = model.losses(output, batch, targets)
    assert not losses["task"].requires_grad
    vectors = {"ehr": model.series(batch).pooled.detach(), "cxr": model.image(batch.images).pooled.detach()}
    for name, modality, rows, places in (
        ("ehr", 0, [0, 1, 3, 4, 5], [0, 1, 3, 4, 5]),
        ("cxr", 1, [0, 2, 3, 5], range(4)),
    ):
        z, y = output.unimodal[name][rows].detach().numpy(), targets[rows].numpy()
        assert float(losses[name].detach()) == pytest.approx((np.log1p(np.exp(z)) - y * z).mean(), abs=1e-5)
        apart = []
        for place in places:
            x = vectors[name][place].numpy()
            rebuilt = model.rebuild.weight.detach().numpy() @ extracted(model, x, modality)
            apart.append((rebuilt + model.rebuild.bias.detach().numpy() - x) ** 2)
        assert float(losses[f"rebuild_{name}"].detach()) == pytest.approx(np.mean(apart), abs=1e-5)
    (losses["rebuild_ehr"] + losses["rebuild_cxr"]).backward()
    moved = {key.split(".")[0] for key, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"extract", "rebuild"}


@pytest.mark.parametrize("freeze", [True, False])
def test_the_second_phase_leaves_the_first_ones_weights_as_they_are_if_it_is_to(freeze):
    model = model_of(freeze=freeze)
    batch, targets = batch_of(model), example_targets(model.shapes, 6)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    moved = []
    for done in (0, 7):
        with torch.no_grad():
            model.eval().between_epochs(Epoch(done, 10, list))
        waiting = {id(p) for p in model.waiting()}
        assert waiting == ({id(p) for p in model.together.parameters()} if done == 0 else set())
        before = {key: value.clone() for key, value in model.state_dict().items()}
        model.train()
        for _ in range(2):
            optimiser.zero_grad()
            sum(model.losses(model(batch), batch, targets).values()).backward()
            optimiser.step()
        now = model.state_dict()
        moved.append({key.split(".")[0] for key in now if not torch.equal(now[key], before[key])})
    first = {"series", "image", "extract"}
    assert moved == [first | {"rebuild", "alone"}, {"together"} | (set() if freeze else first)]


def test_extractors_learned_from_each_modality_alone_tell_more_when_images_are_gone():
    """Trained on complete sets; against the same network that has learned from the sets alone."""
    train, targets = told_twice(96, 0)
    fresh, truth = told_twice(400, 1)
    gone = {}
    for phases in (True, False):
        torch.manual_seed(0)
        model = build("hypermm", SHAPES, {"lr": 1e-3, "freeze": phases})
        model.second.fill_(not phases)
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
        for done in range(10):
            if phases:
                model.between_epochs(Epoch(done, 10, list))
            model.train()
            for _ in range(10):
                optimiser.zero_grad()
                sum(model.losses(model(train), train, targets).values()).backward()
                optimiser.step()
        model.eval()
        with torch.no_grad():
            assert auroc(model(fresh).logits, truth) > 0.98
            gone[phases] = float(auroc(model(without_images(fresh)).logits, truth))
    assert gone[True] > 0.85
    assert gone[True] > gone[False] + 0.1, gone


@pytest.mark.parametrize("hyper", [{"embedding": 0}, {"hidden": 0}, {"first_share": 1.0}])
def test_impossible_knobs_are_refused(hyper):
    with pytest.raises(InputError, match=rf"strategies\.hypermm: {next(iter(hyper))}: "):
        model_of(**hyper)
