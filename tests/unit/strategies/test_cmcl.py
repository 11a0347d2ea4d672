"""CMCL: contrast, projectors, groups and read-out by hand; old similarities stay under every step of an optimiser."""

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.examples import example_batch, example_targets, select, small_shapes
from pipeline.modelling.interface import Epoch
from pipeline.modelling.learning import take_step
from pipeline.modelling.registry import build
from pipeline.modelling.views import without_images, without_record
from pipeline.strategies.cmcl import Alignment, Projected, contrast, projector

WIDTH, SAMPLES = 16, 200
A, B, C = 0, 1, 2
GROUPS = [range(4), range(4, 9), range(9, 12)]


def model_of(task="mortality", **hyper):
    torch.manual_seed(0)
    return build("cmcl", small_shapes(task), {"lr": 1e-3, "groups": [0, 4, 9], **hyper})


def batch_of(model, with_image=(1, 0, 1, 1, 0, 1), seed=0):
    return example_batch(model.shapes, len(with_image), torch.tensor(with_image).bool(), seed)


def at(model, done, batches, count=12):
    """The model, as it is before that epoch."""
    with torch.no_grad():
        model.eval().between_epochs(Epoch(done, count, lambda: [(batch, None) for batch in batches]))
    return model


class Pair(NamedTuple):
    """Vectors of two modalities [SAMPLES, WIDTH], each in a subspace of its modality, that share a noisy latent."""

    a: torch.Tensor
    b: torch.Tensor


def vectors(*pairs, latents=6):
    """Pairs of modalities, each with latents of its own; a modality's subspace is the same in all its pairs."""
    g = torch.Generator().manual_seed(0)
    spaces = [torch.linalg.qr(torch.randn(WIDTH, latents, generator=g)).Q for _ in range(3)]
    found = []
    for pair in pairs:
        latent = torch.randn(SAMPLES, latents, generator=g)
        noisy = (latent + 0.3 * torch.randn(SAMPLES, latents, generator=g) for _ in pair)
        found.append(Pair(*(each @ spaces[u].T / latents**0.5 for each, u in zip(noisy, pair, strict=True))))
    return found


def alignment_of(pairs, data, explained=0.9999):
    made = Alignment(3, pairs, WIDTH, explained)
    for step, pair in enumerate(data):
        for side, x in enumerate(pair):
            made.moments[step, side] = x.double().T @ x.double() / len(x)
    return made


def align(alignment, step, data, steps=50, projected=None):
    """Steps of AdamW with decay on a pair's contrast; `projected`: by gradients projected as in the official code."""
    a, b = alignment.pairs[step]
    optimiser = torch.optim.AdamW(alignment.parameters(), lr=0.01, weight_decay=0.01)
    for _ in range(steps):
        weights = alignment.weights()
        optimiser.zero_grad()
        contrast(data.a @ weights[a].T, data.b @ weights[b].T, 1.0, True).backward()
        for u, (own, partner) in (projected or {}).items():
            change = alignment.maps[u].change
            if change.grad is not None:
                change.grad -= partner @ change.grad @ own
        optimiser.step()
    alignment.finish(step)


def similarities(alignment, pair, data):
    with torch.no_grad():
        weights = alignment.weights()
        return (data.a @ weights[pair[0]].T) @ (data.b @ weights[pair[1]].T).T


def recall(similar):
    return float((similar.argmax(dim=1) == torch.arange(len(similar))).float().mean())


@pytest.mark.parametrize("both_ways", [True, False])
def test_contrast_by_hand(both_ways):
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, 3, generator=g)
    s = (a @ b.T / 0.7).double().numpy()
    ways = [
        np.mean([np.log(np.exp(each[i]).sum()) - each[i, i] for i in range(5)])
        for each in ([s, s.T] if both_ways else [s])
    ]
    assert float(contrast(a, b, 0.7, both_ways)) == pytest.approx(np.mean(ways), abs=1e-5)


@pytest.mark.parametrize(
    ("explained", "rank"), [(0.0, 0), (0.5, 1), (0.59, 1), (0.61, 2), (0.89, 2), (0.91, 3), (1.0, 3)]
)
def test_the_fewest_directions_hold_the_share_of_the_trace(explained, rank):
    basis = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.double)).Q
    eigenvalues = torch.tensor([0.6, 0.3, 0.1, 0.0], dtype=torch.double) + 1e-13  # what rounding may leave
    found = projector(basis * eigenvalues @ basis.T, explained)
    kept = basis[:, :rank]
    torch.testing.assert_close(found, kept @ kept.T, atol=1e-6, rtol=0)


@pytest.mark.parametrize("explained", [0.0, 0.5, 1.0])
def test_of_nothing_no_direction_is_kept(explained):
    assert torch.equal(projector(torch.zeros(4, 4, dtype=torch.double), explained), torch.zeros(4, 4).double())


def test_old_similarities_stay_under_adamw_with_decay_and_plain_training_moves_them():
    pairs = [(A, B), (B, C)]
    data = vectors(*pairs)
    moved = {}
    for explained in (0.9999, 0.0):
        alignment = alignment_of(pairs, data, explained)
        align(alignment, 0, data[0])
        before, start = similarities(alignment, pairs[0], data[0]), alignment.weights()[B].detach()
        align(alignment, 1, data[1])
        assert (alignment.weights()[B] - start).norm() > 0.1 * start.norm()  # the map itself learned
        after = similarities(alignment, pairs[0], data[0])
        moved[explained] = float((after - before).abs().max() / before.abs().max())
    assert moved[0.9999] < 1e-5
    assert moved[0.0] > 0.1


def test_it_stays_when_both_maps_have_moved_one_after_the_other():
    """P' of B must hold A's vectors as A's map is after the second step, not as it was when they were aligned."""
    pairs = [(A, B), (A, C), (B, C)]
    data = vectors(*pairs)
    alignment = alignment_of(pairs, data)
    align(alignment, 0, data[0])
    before = [similarities(alignment, pairs[0], data[0])]
    align(alignment, 1, data[1])
    before.append(similarities(alignment, pairs[1], data[1]))
    start = alignment.weights()[B].detach()
    align(alignment, 2, data[2])
    assert (alignment.weights()[B] - start).norm() > 0.05 * start.norm()
    for step, then in enumerate(before):
        now = similarities(alignment, pairs[step], data[step])
        assert float((now - then).abs().max() / then.abs().max()) < 1e-5


def test_an_earlier_pair_is_found_as_before_and_forgotten_without_projection():
    """Recall of the first pair lost in the second step: nothing here, something with projected gradients, much else."""
    pairs = [(A, B), (B, C)]
    data = vectors(*pairs, latents=12)
    lost, new = {}, {}
    for way, explained in (("kept", 0.9999), ("gradients", 0.0), ("plain", 0.0)):
        alignment = alignment_of(pairs, data, explained)
        align(alignment, 0, data[0], steps=150)
        old = recall(similarities(alignment, pairs[0], data[0]))
        assert old > 0.5
        projected = None
        if way == "gradients":  # the same projectors, applied to the gradient
            mapped = data[0].a @ alignment.weights()[A].detach().T
            projected = {B: [projector(x.double().T @ x.double(), 0.9999).float() for x in (data[0].b, mapped)]}
        align(alignment, 1, data[1], steps=150, projected=projected)
        lost[way] = old - recall(similarities(alignment, pairs[0], data[0]))
        new[way] = recall(similarities(alignment, pairs[1], data[1]))
    assert abs(lost["kept"]) <= 0.01
    assert lost["plain"] > lost["gradients"] > 0.02
    assert lost["plain"] >= 0.1
    assert new["kept"] > new["plain"] - 0.05


def test_where_nothing_is_free_nothing_moves_and_where_all_is_it_is_plain_training():
    pairs = [(A, B), (B, C)]
    data = vectors(*pairs)
    alignment = alignment_of(pairs, data)
    for each in alignment.maps:
        each.settle(torch.eye(WIDTH), torch.eye(WIDTH))
    align(alignment, 0, data[0])
    assert all(torch.equal(weight, torch.eye(WIDTH)) for weight in alignment.weights())

    free = alignment_of(pairs, data, explained=0.0)
    plain = [torch.nn.Parameter(torch.zeros(WIDTH, WIDTH)) for _ in range(3)]
    base = [torch.eye(WIDTH) for _ in range(3)]
    for step, (a, b) in enumerate(pairs):
        align(free, step, data[step])
        optimiser = torch.optim.AdamW(plain, lr=0.01, weight_decay=0.01)
        for _ in range(50):
            optimiser.zero_grad()
            of_a, of_b = (x @ (base[u] + plain[u]).T for x, u in zip(data[step], (a, b), strict=True))
            contrast(of_a, of_b, 1.0, True).backward()
            optimiser.step()
        base = [(each + change).detach() for each, change in zip(base, plain, strict=True)]
        for change in plain:
            change.data.zero_()
    assert all(torch.equal(one, other) for one, other in zip(free.weights(), base, strict=True))


def test_bfloat16_leaves_the_maps_alone():
    one, g = Projected(WIDTH), torch.Generator().manual_seed(0)
    torch.nn.init.normal_(one.change, generator=g)
    one.own.copy_(torch.randn(WIDTH, WIDTH, generator=g))
    one.partner.copy_(torch.randn(WIDTH, WIDTH, generator=g))
    by_hand = torch.eye(WIDTH) + one.change - one.partner @ one.change @ one.own
    torch.testing.assert_close(one.weight(), by_hand, atol=1e-4, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        found = one.weight()
    assert torch.equal(found, one.weight())


def test_drift_is_the_change_of_all_similarities_beside_their_size():
    pairs = [(A, B), (B, C)]
    data = vectors(*pairs)
    alignment = alignment_of(pairs, data, explained=0.0)
    align(alignment, 0, data[0])
    assert alignment.drift() == pytest.approx(0, abs=1e-6)
    then = similarities(alignment, pairs[0], data[0])
    align(alignment, 1, data[1])
    now = similarities(alignment, pairs[0], data[0])
    by_hand = float(((now - then).square().mean() / then.square().mean()).sqrt())
    assert alignment.drift() == pytest.approx(by_hand, rel=1e-4)
    assert by_hand > 0.05


def test_the_first_share_is_supervised_and_the_pairs_share_the_rest():
    model = model_of(pairs=["0-1", "0-cxr", "1-cxr"], supervised=0.5)
    assert [model.step_of(Epoch(done, 12, list)) for done in range(13)] == [0] * 6 + [1, 1, 2, 2, 3, 3, 3]
    assert [model.step_of(Epoch(done, 3, list)) for done in range(4)] == [0, 0, 1, 3]
    assert model.step_of(Epoch(1, 1, list)) == 0  # too few epochs for anything else
    assert model.alignment.pairs == ((0, 1), (0, 3), (1, 3))


def test_a_group_is_read_as_if_no_other_had_been_charted():
    model = model_of().eval()
    batch = batch_of(model)
    channel = np.array(model.shapes.channel_variable)
    with torch.no_grad():
        own = model.encode(batch)
        for g, group in enumerate(GROUPS):
            ehr, observed, since = batch.ehr.clone(), batch.observed.clone(), batch.since.clone()
            for v in set(range(12)) - set(group):
                ehr[:, :, channel == v], observed[:, :, v], since[:, :, v] = 0, False, 1
            alone = dataclasses.replace(batch, ehr=ehr, observed=observed, since=since)
            torch.testing.assert_close(own[:, g], model.series(alone).pooled, atol=1e-5, rtol=0)
        torch.testing.assert_close(own[[0, 2, 3, 5], 3], model.image(batch.images).pooled, atol=1e-5, rtol=0)
    assert (own[[1, 4], 3] == 0).all()


def test_contrast_sees_images_and_groups_of_which_something_was_charted():
    model = model_of()
    batch = batch_of(model)
    observed = batch.observed.clone()
    observed[0, :, 4:9] = False
    batch = dataclasses.replace(batch, observed=observed)
    image = [1, 0, 1, 1, 0, 1]
    assert model.told(batch).int().T.tolist() == [[1] * 6, [0, 1, 1, 1, 1, 1], [1] * 6, image]
    assert model.told(without_record(batch)).int().T.tolist() == [[0] * 6] * 3 + [image]


def test_the_read_out_by_hand_and_nothing_but_the_head_learns_from_it():
    model = model_of("phenotype").eval()
    for each in model.alignment.maps:
        torch.nn.init.normal_(each.change)
    model.set_prior(torch.linspace(-1, 1, 25))
    batch = batch_of(model)
    output = model(batch)
    own, head = output.features["own"].detach(), model.head
    mapped = [own[:, u] @ (torch.eye(16) + each.change.detach()).T for u, each in enumerate(model.alignment.maps)]
    there = batch.present[:, 1, None].float()
    logits = torch.cat([*mapped[:3], mapped[3] * there, there], dim=1) @ head.weight.T + head.bias + model.prior
    torch.testing.assert_close(output.logits, logits, atol=1e-5, rtol=0)
    model.losses(output, batch, example_targets(model.shapes, 6))["task"].backward()
    assert {key.split(".")[0] for key, each in model.named_parameters() if each.grad is not None} == {"head"}

    with torch.no_grad():
        no_record = model(without_record(batch)).logits
        assert torch.allclose(
            no_record[0], head(torch.cat([torch.zeros(48), mapped[3][0], torch.ones(1)])) + model.prior
        )
        nothing, blank = without_images(without_record(batch)), without_record(batch_of(model, [0] * 6))
        assert torch.equal(model(nothing).logits, model(blank).logits)  # the medians speak
        record = zip(model.encode(nothing)[0, :3], model.alignment.maps[:3], strict=True)
        spoken = torch.cat([*((torch.eye(16) + each.change) @ x for x, each in record), torch.zeros(17)])
        torch.testing.assert_close(model(nothing).logits[0], head(spoken) + model.prior, atol=1e-5, rtol=0)


def test_the_supervised_loss_is_the_mean_of_each_vectors_own_over_those_there():
    model = model_of().eval()
    batch = batch_of(model)
    targets = example_targets(model.shapes, 6)
    output = model(batch)
    own, y = output.features["own"].detach(), targets[:, 0]
    losses = []
    for u, head in enumerate(model.heads):
        rows = [0, 2, 3, 5] if u == 3 else range(6)
        z = [float((head(own[i, u]) + model.prior).detach()) for i in rows]
        losses.append(np.mean([np.log1p(np.exp(s)) - float(y[i]) * s for s, i in zip(z, rows, strict=True)]))
    found = model.losses(output, batch, targets)
    assert float(found["supervised"].detach()) == pytest.approx(np.mean(losses), abs=1e-5)
    assert float(found["contrast"]) == 0


def test_later_the_pairs_maps_and_the_head_are_all_that_learns():
    model = model_of(pairs=["0-1", "2-cxr"])
    batches = [batch_of(model), batch_of(model, seed=1)]
    at(at(model, 0, batches), 7, batches).train()
    batch, targets = batches[0], example_targets(model.shapes, 6)
    output = model(batch)
    found = model.losses(output, batch, targets)
    standard = (output.features["own"] - model.centre) / model.scale[:, None]
    by_hand = contrast(standard[:, 0], standard[:, 1], 1.0, True)  # maps are still the identity
    assert float(found["contrast"].detach()) == pytest.approx(float(by_hand), abs=1e-5)
    assert float(found["supervised"]) == 0
    sum(found.values()).backward()
    learning = {key for key, each in model.named_parameters() if each.grad is not None}
    assert learning == {"head.weight", "head.bias", "alignment.maps.0.change", "alignment.maps.1.change"}


def test_contrast_of_an_image_is_over_those_that_have_one():
    model = model_of(pairs=["0-cxr"])
    batch = batch_of(model)
    at(at(model, 0, [batch]), 7, [batch])
    targets = example_targets(model.shapes, 6)
    output = model(batch)
    standard = ((output.features["own"] - model.centre) / model.scale[:, None])[[0, 2, 3, 5]]
    found = model.losses(output, batch, targets)["contrast"]
    assert float(found.detach()) == pytest.approx(float(contrast(standard[:, 0], standard[:, 3], 1.0, True)), abs=1e-5)
    one = select(batch, torch.tensor([0, 1, 4]))
    assert float(model.losses(model(one), one, targets[[0, 1, 4]])["contrast"]) == 0  # nobody to be told from


def test_moments_batch_by_batch_are_those_of_all():
    batches = [batch_of(model_of(), image, seed) for seed, image in enumerate(([1, 0, 1, 1, 0, 1], [0] * 4, [1, 1]))]
    whole, parts = model_of(), model_of()
    with torch.no_grad():
        own, there = (torch.cat([each(batch) for batch in batches]) for each in (whole.eval().encode, whole.told))
    at(at(parts, 0, batches), 7, batches)
    for u in range(4):
        x = own[there[:, u], u].double()
        torch.testing.assert_close(parts.centre[u].double(), x.mean(dim=0), atol=1e-5, rtol=0)
        spread = (x - x.mean(dim=0)).square().sum(dim=1).mean().sqrt()
        assert float(parts.scale[u]) == pytest.approx(float(spread), rel=1e-5)
    standard = (own - parts.centre) / parts.scale[:, None]
    for pair, moments in zip(parts.alignment.pairs, parts.alignment.moments, strict=True):
        both = there[:, pair[0]] & there[:, pair[1]]
        assert int(both.sum()) == (12 if pair == (0, 1) else 6)
        for u, moment in zip(pair, moments, strict=True):
            x = standard[both, u].double()
            torch.testing.assert_close(moment, x.T @ x / len(x), atol=1e-5, rtol=0)


def test_a_trained_step_is_kept_by_the_next_ones():
    """The whole strategy, driven as the loop drives it: similarities of the first pair's stays after its step stay."""
    moved = {}
    for explained in (1.0, 0.0):
        model = model_of(pairs=["0-1", "0-cxr"], explained=explained, supervised=0.3)
        batches = [batch_of(model, [1] * 6, seed) for seed in range(2)]
        labelled = [(batch, example_targets(model.shapes, 6)) for batch in batches]
        optimiser = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)

        def first_pair(model=model, batches=batches):
            x = (torch.cat([model.encode(batch) for batch in batches]) - model.centre) / model.scale[:, None]
            w = model.alignment.weights()
            return (x[:, 0] @ w[0].T) @ (x[:, 1] @ w[1].T).T

        for done in range(10):
            at(model, done, batches, count=10)
            if done == 7:
                assert int(model.step) == 2
                with torch.no_grad():
                    then = first_pair()
                assert model.diagnostics()["drift"] == pytest.approx(0, abs=1e-6)
            model.train()
            for _ in range(5):
                take_step(model, optimiser, labelled)
        with torch.no_grad():
            model.eval()
            moved[explained] = float((first_pair() - then).abs().max() / then.abs().max())
        shown = model.diagnostics()
        assert shown["step"] == 2
        if explained:  # 12 samples less their mean; of the image nothing is old
            assert shown["kept"] == pytest.approx(11 / 16 / 2, abs=1e-5)
            assert shown["kept_partner"] == pytest.approx(11 / 16 / 2, abs=1e-5)
            assert shown["drift"] < 1e-5
        else:
            assert shown["kept"] == shown["kept_partner"] == 0
            assert shown["drift"] > 0.01
    assert moved[1.0] < 1e-5
    assert moved[0.0] > 0.01


def test_maps_of_groups_without_variables_wait():
    model = model_of(groups=[0, 4, 12])
    assert [id(each) for each in model.waiting()] == [id(model.alignment.maps[2].change)]
    assert not list(model_of().waiting())


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"groups": [1, 4]}, "groups: must rise from 0, are [1, 4]"),
        ({"groups": [0, 4, 4]}, "groups: must rise from 0, are [0, 4, 4]"),
        ({"groups": []}, "groups: must rise from 0, are []"),
        ({"pairs": ["0-3"]}, "pairs: '0-3' does not name two of 0, 1, 2, cxr, as in 0-cxr"),
        ({"pairs": ["0-0"]}, "pairs: '0-0' does not name two of 0, 1, 2, cxr, as in 0-cxr"),
        ({"pairs": []}, "pairs: must hold at least one"),
        ({"explained": 1.1}, "explained: must be in [0, 1], is 1.1"),
        ({"supervised": 1.0}, "supervised: must lie between 0 and 1, is 1.0"),
        ({"temperature": 0.0}, "temperature: must be above 0, is 0.0"),
    ],
)
def test_impossible_knobs_are_refused(hyper, message):
    with pytest.raises(InputError) as caught:
        model_of(**hyper)
    assert str(caught.value) == f"strategies.cmcl: {message}"
