"""MIND: distances and teachers' means by hand, heads that hear their teachers, an answer free of what is missing."""

import dataclasses

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.examples import SMALL, example_batch, example_targets, select, small_shapes
from pipeline.modelling.faint import auroc
from pipeline.modelling.interface import EHR, Earlier, Shapes
from pipeline.modelling.losses import logits_of_mean, task_loss
from pipeline.modelling.optimiser import AdamW
from pipeline.modelling.registry import build
from pipeline.strategies.mind import distance
from pipeline.tasks import get_task

STAYS = 512


def model_of(task="phenotype", **hyper):
    torch.manual_seed(0)
    model = build("mind", small_shapes(task), {"lr": 1e-3, **hyper})
    model.set_prior(torch.linspace(-1, 1, model.shapes.outputs))
    return model


def teach(model, ehr=(), cxr=()):
    """Teachers of the sizes 0.5, 1, … answer so."""
    named = {"transformer": ehr, "resnet": cxr}
    model.learn_from(
        {
            f"{name} x{size:g}": Earlier(model, lambda each=each: each)
            for name, logits in named.items()
            for size, each in zip((0.5, 1.0, 2.0), logits, strict=False)
        }
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, float)))


def softmax(x):
    e = np.exp(np.asarray(x, float) - np.max(x))
    return e / e.sum()


@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.5])
def test_distances_are_those_of_a_naive_computation(temperature):
    z, t = torch.randn(4, 7), torch.randn(4, 7)
    labels = distance(z, t, "multilabel", temperature, "soft")
    classes = distance(z, t, "multiclass", temperature, "soft")
    for i in range(4):
        p, q = sigmoid(z[i] / temperature), sigmoid(t[i] / temperature)
        expected = temperature**2 * np.mean(-(q * np.log(p) + (1 - q) * np.log(1 - p)))
        assert float(labels[i]) == pytest.approx(expected, abs=1e-5)
        p, q = softmax(z[i].numpy() / temperature), softmax(t[i].numpy() / temperature)
        assert float(classes[i]) == pytest.approx(temperature**2 * np.sum(q * np.log(q / p)), abs=1e-5)
    torch.testing.assert_close(distance(z, t, "multilabel", temperature, "mse"), (z - t).square().mean(dim=1))
    torch.testing.assert_close(distance(z, z + 5, "multiclass", temperature, "mse"), torch.zeros(4), atol=1e-6, rtol=0)


def test_the_gradient_of_the_soft_distance_is_the_difference_of_probabilities():
    z, t = torch.randn(5, 1, requires_grad=True), torch.randn(5, 1)
    distance(z, t, "binary", 2.0, "soft").sum().backward()
    torch.testing.assert_close(z.grad, 2 * (torch.sigmoid(z / 2) - torch.sigmoid(t / 2)).detach())


@pytest.mark.parametrize("task", ["phenotype", "los"])
def test_teachers_are_averaged_as_probabilities(task):
    model = model_of(task)
    several = [torch.randn(STAYS, model.shapes.outputs) for _ in range(3)]
    teach(model, ehr=several)
    assert model.teaches.tolist() == [True, False]
    chance = softmax if task == "los" else sigmoid
    for i in (0, 100):
        expected = np.mean([chance(each[i].numpy()) for each in several], axis=0)
        np.testing.assert_allclose(chance(model.taught[EHR, i].numpy()), expected, atol=1e-6)
    sure = logits_of_mean([torch.full((1, 1), 300.0)] * 3, "binary")
    assert float(sure) == pytest.approx(300.0)


def test_an_answer_is_the_joint_heads_for_pairs_and_else_the_head_of_what_is_there():
    model = model_of().eval()
    batch = example_batch(model.shapes, 4, torch.tensor([1, 1, 0, 0]).bool())
    present = batch.present.clone()
    present[1, EHR] = present[3, EHR] = False
    batch = dataclasses.replace(batch, present=present)
    with torch.no_grad():
        output = model(batch)
    expected = [output.unimodal[name][i] for i, name in enumerate(("both", "cxr", "ehr", "ehr"))]
    assert torch.equal(output.logits, torch.stack(expected))
    assert torch.equal(output.unimodal["cxr"][2:], model.prior.expand(2, -1))


def test_without_an_image_no_image_parameter_changes_the_answer():
    model = model_of().eval()
    batch = example_batch(model.shapes, 4, torch.tensor([1, 0, 1, 0]).bool())
    with torch.no_grad():
        before = model(batch)
        for key, parameter in model.named_parameters():
            if not key.startswith(("series.", "head_ehr.")):
                parameter += torch.randn_like(parameter)
        after = model(batch).logits
    assert torch.equal(after[[1, 3]], before.unimodal["ehr"][[1, 3]])
    assert not torch.isclose(after[[0, 2]], before.logits[[0, 2]]).any()


def test_losses_are_of_the_stays_that_have_the_modality():
    model = model_of("mortality", own=0.5, distil_ehr=3.0, distil_cxr=2.0).eval()
    batch = example_batch(model.shapes, 6, torch.tensor([1, 0, 0, 1, 1, 0]).bool())
    targets, imaged = example_targets(model.shapes, 6), batch.image_sample
    answers = torch.randn(STAYS, 1), torch.randn(STAYS, 1)
    teach(model, ehr=answers[:1], cxr=answers[1:])
    output = model(batch)
    found, task = model.losses(output, batch, targets), model.shapes.task
    told = output.unimodal
    apart = {
        "ehr": distance(told["ehr"], answers[0][:6], "binary", 2.0, "soft").mean(),
        "cxr": distance(told["cxr"][imaged], answers[1][imaged], "binary", 2.0, "soft").mean(),
    }
    expected = {
        "task": task_loss(told["both"][imaged], targets[imaged], task),
        "ehr": 0.5 * task_loss(told["ehr"], targets, task),
        "cxr": 0.5 * task_loss(told["cxr"][imaged], targets[imaged], task),
        "distil_ehr": 3 * apart["ehr"],
        "distil_cxr": 2 * apart["cxr"],
    }
    assert found.keys() == expected.keys()
    for key, loss in expected.items():
        torch.testing.assert_close(found[key], loss, atol=1e-6, rtol=1e-5)


def test_a_stay_hears_what_teachers_say_of_it_wherever_it_stands_in_a_batch():
    model = model_of().eval()
    teach(model, ehr=[torch.randn(STAYS, 25)], cxr=[torch.randn(STAYS, 25)])
    batch, order = example_batch(model.shapes, 8, torch.arange(8) % 2 == 0), torch.tensor([5, 2, 0, 7, 1, 3, 6, 4])
    batch = dataclasses.replace(batch, index=batch.index * 11)
    targets, moved = example_targets(model.shapes, 8), select(batch, order)
    one, other = model.losses(model(batch), batch, targets), model.losses(model(moved), moved, targets[order])
    torch.testing.assert_close(one, other)
    elsewhere = dataclasses.replace(moved, index=batch.index)
    assert not torch.isclose(model.losses(model(moved), elsewhere, targets[order])["distil_ehr"], one["distil_ehr"])


def learned(model, batch, steps):
    """The answers of the record's head after so many steps."""
    optimiser, targets = AdamW(model.parameters(), lr=0.01), example_targets(model.shapes, batch.size)
    model.eval()  # no dropout: the goal can be reached
    for _ in range(steps):
        optimiser.zero_grad()
        torch.stack(list(model.losses(model(batch), batch, targets).values())).sum().backward()
        optimiser.step()
    with torch.no_grad():
        return model(batch).unimodal


@pytest.mark.parametrize("match", ["soft", "mse"])
def test_a_head_that_hears_its_teachers_alone_comes_to_their_answers(match):
    model = model_of("mortality", own=0.0, match=match)
    batch = example_batch(model.shapes, 8, torch.ones(8).bool())
    answers = [torch.linspace(-2, 2, STAYS)[:, None].roll(shift, 0) * 30 % 3 - 1.5 for shift in (0, 100)]
    teach(model, ehr=answers[:1], cxr=answers[1:])
    begun = learned(model, batch, 0)
    found = learned(model, batch, 150)
    for name, taught in zip(("ehr", "cxr"), answers, strict=True):
        assert float((begun[name] - taught[:8]).abs().max()) > 0.5
        torch.testing.assert_close(found[name], taught[:8], atol=0.1, rtol=0)


def test_constant_teachers_pull_to_their_constant():
    model = model_of("mortality", own=0.1, distil_ehr=100.0)
    batch = example_batch(model.shapes, 8, torch.ones(8).bool())
    teach(model, ehr=[torch.full((STAYS, 1), -1.25)])
    torch.testing.assert_close(learned(model, batch, 150)["ehr"], torch.full((8, 1), -1.25), atol=0.1, rtol=0)


def test_without_distillation_it_is_a_plain_model_with_heads_bit_for_bit():
    found = []
    for hyper, taught in (({"distil_ehr": 0.0, "distil_cxr": 0.0}, True), ({"teachers": "none"}, False), ({}, True)):
        model = model_of("mortality", **hyper)
        batch = example_batch(model.shapes, 8, torch.arange(8) % 2 == 0)
        if taught:
            teach(model, ehr=[torch.ones(STAYS, 1)], cxr=[torch.ones(STAYS, 1)])
        found.append(learned(model, batch, 3)["ehr"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


TOY = Shapes(get_task("mortality"), 12, channel_variable=(0, 1, 2, 2), px=8, encoders=SMALL, stays=4000)


def trained(model, batch, targets, count, steps, seed):
    """The model after so many steps on the first `count` stays."""
    torch.manual_seed(seed)
    optimiser = AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    model.train()
    for _ in range(steps):
        rows = torch.randint(count, (50,))
        part = select(batch, rows)
        losses = model.losses(model(part), part, targets[rows])
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_student_of_few_pairs_gains_by_teachers_of_many_records(seed):
    """300 pairs and 3,000 records, whose label is noisy: AUROC of the record's head on fresh stays, 0.78 and 0.81."""
    few, many = 300, 3000
    batch = example_batch(TOY, TOY.stays, torch.arange(TOY.stays) < few, seed)
    said = 12**0.5 * batch.ehr[:, :, :2].mean(dim=1) @ torch.tensor([1.5, 1.0])
    chance = torch.rand(TOY.stays, generator=torch.Generator().manual_seed(seed + 100))
    targets, found = (chance < torch.sigmoid(said)).float()[:, None], {}
    for taught in (False, True):
        torch.manual_seed(seed)
        student = build("mind", TOY, {})
        if taught:
            torch.manual_seed(seed + 1)
            teacher = trained(build("transformer", TOY, {}), batch, targets, many, 600, seed + 1)
            with torch.no_grad():
                teach(student, ehr=[teacher(batch).logits])
        trained(student, batch, targets, few, 300, seed + 2)
        fresh = torch.arange(many, TOY.stays)
        with torch.no_grad():
            found[taught] = float(auroc(student(select(batch, fresh)).unimodal["ehr"], targets[fresh]))
    assert found[True] > found[False] + 0.01


def test_a_student_of_half_the_size_has_encoders_of_half_the_width():
    whole, half = model_of(), model_of(size=0.5)
    assert half.series.embed.out_features * 2 == whole.series.embed.out_features
    assert half.image.stage_widths == [width // 2 for width in whole.image.stage_widths]
    counts = [sum(p.numel() for p in model.parameters()) for model in (half, whole)]
    assert counts[0] < 0.5 * counts[1]
    assert not {"taught", "teaches"} & set(whole.state_dict())


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"match": "kl"}, "match: must be soft or mse, is 'kl'"),
        ({"temperature": 0.0}, "temperature: must be above 0, is 0.0"),
        ({"own": -1.0}, "own: must be at least 0, is -1.0"),
        ({"distil_ehr": -1.0}, "distil_ehr: must be at least 0, is -1.0"),
        ({"distil_cxr": -1.0}, "distil_cxr: must be at least 0, is -1.0"),
        ({"sizes": []}, "sizes: must be a list of different numbers, is []"),
        ({"size": 0}, "size: must be above 0, is 0"),
        ({"teachers": "all"}, "teachers: must be one of none, same, base, is 'all'"),
    ],
)
def test_impossible_knobs_are_refused(hyper, message):
    with pytest.raises(InputError) as refused:
        model_of(**hyper)
    assert str(refused.value) == f"strategies.mind: {message}"
