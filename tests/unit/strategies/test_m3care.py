"""M3Care: kernels, graph and gathering by hand; the graph chooses, so that imputations differ between patients."""

import dataclasses

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.examples import example_batch, example_targets, select, small_shapes
from pipeline.modelling.interface import Epoch
from pipeline.modelling.registry import build
from pipeline.strategies.m3care import kernel


def model_of(task="mortality", **hyper):
    torch.manual_seed(0)
    return build("m3care", small_shapes(task), {"lr": 1e-3, "remember": 6, **hyper})


def training_batch(model, size=8):
    batch = example_batch(model.shapes, size, (torch.arange(size) < size - 2), seed=5)
    return dataclasses.replace(batch, index=torch.arange(100, 100 + size))


def remembering(model):
    batch = training_batch(model)
    with torch.no_grad():
        model.eval().between_epochs(Epoch(0, 5, lambda: [(batch, None)]))
    return model


def test_the_kernel_is_a_mean_of_gaussians():
    a, b = torch.randn(2, 3), torch.randn(4, 3)
    found = kernel(a, b, torch.tensor(1.7)).numpy()
    for i in range(2):
        for j in range(4):
            square = float(((a[i] - b[j]) ** 2).sum())
            expected = np.mean([np.exp(-square / (f * 1.7)) for f in (0.5, 1, 2)])
            assert found[i, j] == pytest.approx(expected, abs=1e-6)


def layer_norm(x):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5)


def test_similarity_is_a_mean_over_what_is_there():
    model = remembering(model_of())
    a = torch.randn(2, 3, 16)
    there = torch.tensor([[True, True], [True, False], [False, False]])
    with torch.no_grad():
        found = model.similarity(a, model.memory, there).numpy()
        for i in range(3):
            for j in range(6):
                terms = []
                for m in range(2):
                    if not there[i, m]:
                        continue
                    kernels = []
                    for deep in (True, False):

                        def view(x, m=m, deep=deep):
                            return layer_norm(torch.relu(model.similar[m](x)).numpy() if deep else x.numpy())

                        bank = [view(model.memory[m, k]) for k in range(6)]
                        gaps = [((bank[p] - bank[q]) ** 2).sum() for p in range(6) for q in range(6) if p != q]
                        square = ((view(a[m, i]) - bank[j]) ** 2).sum()
                        kernels.append(np.mean([np.exp(-square / (f * np.mean(gaps))) for f in (0.5, 1, 2)]))
                    share = float(torch.sigmoid(model.raw_share[m]))
                    terms.append(((1 - share) * kernels[0] + share) * kernels[1])
                assert found[i, j] == pytest.approx(np.mean(terms) if terms else 0, abs=1e-5)


def test_the_graph_keeps_the_most_similar_and_never_the_stay_itself():
    model = remembering(model_of(neighbours=2))
    similarity = torch.tensor([[0.5, 0.31, 0.2, 0.1, 0.0, 0.9], [0.1, 0.0, 0.04, 0.06, 0.0, 0.0], [0.0] * 6])
    with torch.no_grad():
        found = model.graph(similarity, torch.tensor([105, 7, 8]))  # the first stay is the last of those remembered
    np.testing.assert_allclose(found[0].numpy(), np.array([0.5, 0.31, 0, 0, 0, 0]) / 0.81, atol=1e-5)
    np.testing.assert_allclose(found[1].numpy(), np.array([0.1, 0, 0, 0.06, 0, 0]) / 0.16, atol=1e-5)
    assert not found[2].any()


def test_the_graph_is_not_empty_and_the_similar_networks_learn_from_it():
    model = remembering(model_of())
    batch = example_batch(model.shapes, 5, torch.tensor([1, 0, 0, 1, 1]).bool())
    with torch.no_grad():
        edges = model.graph(model.similarity(model.encode(batch), model.memory, batch.present), batch.index)
    assert ((edges > 0).sum(dim=1) == 5).all()
    assert torch.allclose(edges.sum(dim=1), torch.ones(5))
    model(batch).logits.square().sum().backward()
    layers = (*model.gather, *model.gather_again, *(layer for network in model.similar for layer in network[::2]))
    assert all(bool((layer.weight.grad != 0).any()) for layer in layers)


def test_who_is_remembered_is_a_neighbour_of_its_own():
    model = remembering(model_of(neighbours=1))
    batch = example_batch(model.shapes, 3, torch.tensor([0, 1, 1]).bool())
    with torch.no_grad():
        own = model.encode(batch)
        closest = model.similarity(own, model.memory, batch.present).argmax(dim=1)
        found = model.gathered(own, batch)
        for m in range(2):
            hidden = torch.relu(model.gather[m](model.memory[m, closest]))  # nobody is more similar to it than itself
            torch.testing.assert_close(found[m], torch.relu(model.gather_again[m](hidden)), atol=1e-5, rtol=0)


def spread(latents):
    """Standard deviation over patients, the mean over a latent's entries."""
    return float(latents.std(dim=0).mean())


def test_imputations_differ_between_patients():
    torch.manual_seed(0)
    model = build("m3care", small_shapes("mortality"), {"lr": 1e-3}).eval()
    known, asked = (example_batch(model.shapes, n, torch.full((n,), n > 99), seed=n) for n in (128, 32))
    known = dataclasses.replace(known, index=torch.arange(100, 228))
    with torch.no_grad():
        model.between_epochs(Epoch(0, 5, lambda: [(known, None)]))
        edges = model.graph(model.similarity(model.encode(asked), model.memory, asked.present), asked.index)
        real, imputed = spread(model.memory[1]), spread(model(asked).features["latent_cxr"])
    assert spread(edges @ model.memory[1]) > 0.3 * real  # five of equal weight: 1 / sqrt(5)
    assert imputed > 0.1 * real


def test_the_memory_holds_the_first_complete_stays():
    model = model_of()
    batch = training_batch(model)
    order = torch.tensor([6, 0, 1, 7, 2, 3, 4, 5])  # two without an image among them
    batches = [(select(batch, order[:4]), None), (select(batch, order[4:]), None)]
    with torch.no_grad():
        model.eval().between_epochs(Epoch(0, 5, lambda: batches))
        assert model.memory_index.tolist() == [100, 101, 102, 103, 104, 105]
        assert torch.allclose(model.memory, model.encode(batch)[:, :6], atol=1e-5)
        model.between_epochs(Epoch(1, 5, lambda: batches[:1]))
    assert model.memory_index.tolist() == [100, 101, -1, -1, -1, -1]


def test_a_remembered_neighbour_moves_the_imputation_and_no_batch_mate_does():
    model = remembering(model_of())
    batch = example_batch(model.shapes, 3, torch.tensor([0, 1, 1]).bool())
    with torch.no_grad():
        before = model(batch).features["latent_cxr"]
        alone = model(select(batch, torch.tensor([0]))).features["latent_cxr"]
        model.memory[1] += torch.randn(model.memory[1].shape)
        after = model(batch).features["latent_cxr"]
    assert torch.allclose(before[0], alone[0], atol=1e-6)
    assert (before[0] - after[0]).abs().max() > 1e-4


def test_a_missing_latent_is_the_gathered_one_and_a_present_one_is_mixed():
    model = remembering(model_of())
    batch = example_batch(model.shapes, 2, torch.tensor([0, 1]).bool())
    with torch.no_grad():
        own = model.encode(batch)
        gathered, latent = model.gathered(own, batch), model(batch).features["latent_cxr"]
        a = torch.sigmoid(model.trust_gathered[1](gathered[1, 1]))
        b = torch.sigmoid(model.trust_own[1](own[1, 1]))
    assert torch.allclose(latent[0], gathered[1, 0])
    assert torch.allclose(latent[1], (a * gathered[1, 1] + b * own[1, 1]) / (a + b), atol=1e-6)


def test_stability_is_a_mean_over_what_is_present():
    model = remembering(model_of(stability=0.5))
    batch = example_batch(model.shapes, 3, torch.tensor([1, 0, 1]).bool())
    with torch.no_grad():
        output = model(batch)
        losses = model.losses(output, batch, example_targets(model.shapes, 3))
        x = output.features["own_cxr"][[0, 2]]
        expected = 0.5 * np.mean([abs(float(model.similar[1](v).norm()) - float(v.norm())) for v in x])
    assert float(losses["stability_cxr"]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("hyper", [{"remember": 0}, {"neighbours": 0}, {"neighbours": 7}, {"stability": -1.0}])
def test_impossible_knobs_are_refused(hyper):
    with pytest.raises(InputError, match=r"strategies\.m3care: "):
        model_of(**hyper)
