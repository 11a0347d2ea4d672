"""Flex-MoE: gate, experts and losses; that the bank is used, and that each kind of sample has its router."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.examples import example_batch, example_targets, small_shapes
from pipeline.modelling.experts import Experts, Router, chance_of_choice, unevenness
from pipeline.modelling.interface import Epoch
from pipeline.modelling.registry import build


def model_of(task="mortality", **hyper):
    torch.manual_seed(0)
    return build("flexmoe", small_shapes(task), {"lr": 1e-3, **hyper})


def half_complete(model, size=6):
    return example_batch(model.shapes, size, (torch.arange(size) % 2).bool())


def test_the_mixture_weighs_the_chosen_experts():
    torch.manual_seed(1)
    router, experts, tokens = Router(8, 5, 2).eval(), Experts(8, 5), torch.randn(3, 8)
    with torch.no_grad():
        logits, gates, load = router(tokens)
        mixture = experts(tokens, gates)
        for i in range(3):
            scores = [float(tokens[i] @ router.gate[:, e]) for e in range(5)]
            best = sorted(range(5), key=lambda e: -scores[e])[:2]
            total = sum(math.exp(scores[e]) for e in best)
            expected = torch.zeros(8)
            for e in best:
                hidden = torch.nn.functional.gelu(tokens[i] @ experts.first[e] + experts.first_bias[e, 0])
                answer = hidden @ experts.second[e] + experts.second_bias[e, 0]
                expected += math.exp(scores[e]) / total * answer
            np.testing.assert_allclose(mixture[i].numpy(), expected.numpy(), atol=1e-5)
            assert sorted(torch.nonzero(gates[i]).squeeze(1).tolist()) == sorted(best)
    assert torch.equal(load, (gates > 0).float())
    assert logits.shape == (3, 5)


def test_an_expert_sees_the_tokens_that_chose_it_alone():
    torch.manual_seed(1)
    router, experts, tokens = Router(8, 5, 2).eval(), Experts(8, 5), torch.randn(40, 8).abs()
    with torch.no_grad():
        router.gate[:, :2], router.gate[:, 2:] = 1.0, -1.0  # all choose the first two
        experts.first[2:] = math.nan
        gates = router(tokens).gates
        mixture = experts(tokens, gates)
    assert torch.equal(gates > 0, torch.tensor([True, True, False, False, False]).expand(40, -1))
    assert mixture.isfinite().all()


def test_no_attention_weight_is_dropped():
    """That takes the slow attention, which stores them all."""
    assert not [each for each in model_of().modules() if isinstance(each, torch.nn.MultiheadAttention)]


def test_the_load_is_the_chance_to_be_chosen_again():
    torch.manual_seed(2)
    clean, deviation = torch.randn(2, 4), torch.rand(2, 4) + 0.5
    noisy = clean + torch.randn(2, 4) * deviation
    found = chance_of_choice(clean, noisy, deviation, 2)
    for i in range(2):
        for e in range(4):
            others = sorted((float(noisy[i, j]) for j in range(4) if j != e), reverse=True)
            z = (float(clean[i, e]) - others[1]) / float(deviation[i, e])
            assert float(found[i, e]) == pytest.approx(0.5 * (1 + math.erf(z / math.sqrt(2))), abs=1e-5)


def test_unevenness_is_a_squared_coefficient_of_variation():
    x = np.array([1.0, 2.0, 6.0])
    assert float(unevenness(torch.tensor(x))) == pytest.approx(x.var(ddof=1) / x.mean() ** 2)
    assert float(unevenness(torch.zeros(4))) == 0


def test_complete_samples_go_to_the_general_router_and_others_to_the_special_one():
    model = model_of(gate=1.0, warm_up_epochs=0).eval()
    model.between_epochs(Epoch(0, 10, list))
    batch = half_complete(model)
    with torch.no_grad():
        output = model(batch)
        losses = model.losses(output, batch, example_targets(model.shapes, 6))
    gates, logits = output.features["gates"].numpy(), output.features["gate_logits"].numpy()
    importance, load = gates[1::2].sum(axis=(0, 1)), (gates[1::2] > 0).sum(axis=(0, 1))
    expected = sum(x.var(ddof=1) / x.mean() ** 2 for x in (importance, load))
    assert float(losses["general_router"]) == pytest.approx(expected, rel=1e-5)
    z = logits[::2].reshape(-1, 16)
    expected = np.mean(np.log(np.exp(z).sum(axis=1)) - z[:, 1])
    assert float(losses["special_router"]) == pytest.approx(expected, rel=1e-5)


def test_training_sends_incomplete_samples_to_their_expert():
    model = model_of(gate=1.0, warm_up_epochs=0)
    model.between_epochs(Epoch(0, 10, list))
    batch = half_complete(model)
    targets = example_targets(model.shapes, 6)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(25):
        optimiser.zero_grad()
        sum(model.losses(model(batch), batch, targets).values()).backward()
        optimiser.step()
    with torch.no_grad():
        top = model.eval()(batch).features["gate_logits"].argmax(dim=2)
    assert (top[::2] == 1).float().mean() > 0.9
    assert (top[1::2] == 1).float().mean() < 0.5


def test_the_special_router_waits_for_the_warm_up():
    model = model_of(warm_up_epochs=2)
    batch = half_complete(model)
    found = []
    for done in range(4):
        model.between_epochs(Epoch(done, 10, list))
        losses = model.losses(model(batch), batch, example_targets(model.shapes, 6))
        found.append(float(losses["special_router"].detach()) > 0)
    assert found == [False, False, True, True]


def test_the_bank_stands_in_for_missing_images_alone():
    model = model_of().eval()
    batch = half_complete(model)
    with torch.no_grad():
        before = model(batch).logits
        assert torch.equal(model.tokens(batch)[0, 16:], model.bank + model.positions[16:])
        model.bank += 1
        after = model(batch).logits
    assert torch.equal(before[1::2], after[1::2])
    assert (before[::2] != after[::2]).all()


def test_tokens_are_stretches_of_three_hours():
    model = model_of().eval()
    batch = half_complete(model)
    with torch.no_grad():
        hours, tokens = model.series(batch).tokens, model.tokens(batch)
    expected = np.stack([hours[:, 3 * i : 3 * i + 3].numpy().mean(axis=1) for i in range(16)], axis=1)
    np.testing.assert_allclose(tokens[:, :16].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("hyper", [{"chosen": 17}, {"patches": 15}, {"gate": -1.0}])
def test_impossible_knobs_are_refused(hyper):
    with pytest.raises(InputError, match=r"strategies\.flexmoe: "):
        model_of(**hyper)


def test_without_a_record_it_stays_finite():
    model = model_of().eval()
    batch = half_complete(model)
    batch = dataclasses.replace(batch, present=batch.present & torch.tensor([False, True]))
    assert model(batch).logits.isfinite().all()
