"""PAL: closed form and recursion agree, groups do not disturb each other, prompts alone speak for what is missing."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import InputError
from pipeline.modelling.examples import example_batch, example_targets, small_shapes
from pipeline.modelling.interface import Epoch
from pipeline.modelling.losses import probabilities, sample_losses
from pipeline.modelling.registry import build
from pipeline.modelling.views import without_images
from pipeline.strategies.pal import Statistics, discriminant, ridge

F = 32  # random features


def model_of(task="phenotype", **hyper):
    torch.manual_seed(0)
    model = build("pal", small_shapes(task), {"lr": 1e-3, "expand": F, "gamma": 0.1, **hyper})
    model.set_prior(torch.linspace(-1, 1, model.shapes.outputs))
    return model.eval()


def batches_of(model, count=3, size=40):
    """Batches with the stays numbered on, and targets."""
    found = []
    for seed in range(count):
        batch = example_batch(model.shapes, size, (torch.arange(size) % 3 > 0), seed)
        batch.index.add_(seed * size)
        found.append((batch, example_targets(model.shapes, size, seed)))
    return found


def told(model, batches):
    """Features [n, 3F], targets as they are, places [n]."""
    with torch.no_grad():
        x = torch.cat([model.features(model.pooled(batch), batch.heard) for batch, _ in batches])
    return x, torch.cat([y for _, y in batches]), torch.cat([batch.index for batch, _ in batches])


def recursive(state, x, y):
    """One block of recursive least squares: the inverse R and the weights W after x [b, F] with targets y [b, K]."""
    r, w = state
    s = torch.linalg.inv(torch.eye(len(x), dtype=x.dtype) + x @ r @ x.T)
    r = r - r @ x.T @ s @ x @ r
    return r, w + r @ x.T @ (y - x @ w)


def start(features, outputs, gamma):
    return torch.eye(features, dtype=torch.float64) / gamma, torch.zeros(features, outputs, dtype=torch.float64)


def solved(model, batches, through=None):
    with torch.no_grad():
        model.solve(model.statistics(batches), through)
    return model


def close(found, expected, relative):
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=relative * float(expected.abs().max()))


def test_the_recursion_over_shuffled_blocks_is_the_joint_ridge():
    torch.manual_seed(1)
    x, y = torch.relu(torch.randn(900, 64, dtype=torch.float64)), torch.randn(900, 5, dtype=torch.float64)
    state = start(64, 5, 0.1)
    for rows in torch.randperm(900).split([200, 1, 350, 49, 300]):
        state = recursive(state, x[rows], y[rows])
    of = Statistics.of(x[:500], y[:500]) + Statistics.of(x[500:], y[500:])
    close(ridge(of.gram, of.cross, 0.1), state[1], 1e-8)


def test_phases_of_classes_give_the_weights_of_all_classes_at_once():
    model = model_of("los")
    batches = batches_of(model)
    x, targets, _ = told(model, batches)
    assert [(group.start, group.stop) for group in model.groups] == [(0, 2), (2, 4), (4, 6), (6, 7)]
    state, y = start(F, 7, 0.1), nn.functional.one_hot(targets[:, 0].long(), 7).double()
    left = torch.zeros_like(y)
    for group in model.groups:
        rows = (targets[:, 0] >= group.start) & (targets[:, 0] < group.stop)
        state = recursive(state, x[rows, :F], y[rows])
        over = y[rows] - x[rows, :F] @ state[1]
        over[:, : group.start] = 0  # of classes of earlier phases
        left[rows] = over
    psi = x[:, F:]
    second = torch.linalg.solve(psi.T @ psi + 0.1 * torch.eye(2 * F, dtype=torch.float64), psi.T @ left)
    solved(model, batches)
    close(model.weights[:F], state[1], 1e-8)
    close(model.weights[F:], 0.6 * second, 1e-8)


@pytest.mark.parametrize("stays", ["all", "parts"])
def test_later_labels_leave_the_scores_of_earlier_ones_as_they_are(stays):
    model = model_of("phenotype", stays=stays)
    batches = batches_of(model)
    whole = {key: value.clone() for key, value in solved(model, batches).named_buffers()}
    for through in range(1, 6):
        solved(model, batches, through)
        known = 5 * through
        assert torch.equal(model.weights[:, :known], whole["weights"][:, :known])
        assert torch.equal(model.slopes[:known], whole["slopes"][:known])
        assert torch.equal(model.offsets[:known], whole["offsets"][:known])
        assert not model.weights[:, known:].any()
    x, targets, index = told(model, batches)
    rows = index % 5 == 2 if stays == "parts" else index >= 0
    state = recursive(start(F, 5, 0.1), x[rows, :F], targets[rows, 10:15].double())
    close(whole["weights"][:F, 10:15], state[1], 1e-8)


@pytest.mark.parametrize("stays", ["all", "parts"])
def test_of_a_single_label_all_phases_make_the_joint_solution(stays):
    model = model_of("mortality", stays=stays)
    batches = batches_of(model)
    x, targets, _ = told(model, batches)
    state = recursive(start(F, 1, 0.1), x[:, :F], targets.double())
    close(solved(model, batches).weights[:F], state[1], 1e-8)
    assert len(model.groups) == (5 if stays == "parts" else 1)


def test_old_classes_are_kept_where_a_head_trained_by_descent_loses_them():
    model = model_of("los")
    torch.manual_seed(2)
    targets = torch.arange(280)[:, None] % 7
    vectors = 1.5 * torch.randn(7, 2, 16)[targets[:, 0]] + torch.randn(280, 2, 16) + 3 * torch.randn(2, 16)
    model.pooled = lambda batch: vectors[batch.index]
    batch = example_batch(model.shapes, 280, torch.ones(280).bool())
    solved(model, [(batch, targets.float())])
    old = targets[:, 0] < 6  # all but those of the last phase
    x = told(model, [(batch, targets)])[0].float()
    head = nn.Linear(3 * F, 7)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.05)
    for group in model.groups:
        rows = (targets[:, 0] >= group.start) & (targets[:, 0] < group.stop)
        for _ in range(200):
            optimiser.zero_grad()
            nn.functional.cross_entropy(head(x[rows]), targets[rows, 0]).backward()
            optimiser.step()
    with torch.no_grad():
        kept, lost = model(batch).logits - model.prior, head(x)
    accuracy = [float((z.argmax(dim=1) == targets[:, 0])[old].float().mean()) for z in (kept, lost)]
    assert accuracy[0] > 0.9
    assert accuracy[1] < 0.05


def test_images_that_are_hidden_speak_through_prompts_alone():
    model = model_of()
    batches = batches_of(model, 1)
    solved(model, batches)
    batch, hidden = batches[0][0], without_images(batches[0][0])
    with_image = batch.present[:, 1]
    with torch.no_grad():
        before, before_hidden = model(batch).logits, model(hidden).logits
        assert not model.features(model.pooled(hidden), hidden.heard)[:, 2 * F :].any()
        model.prompts[1] += torch.randn(model.prompts[1].shape)
        after, after_hidden = model(batch).logits, model(hidden).logits
        model.prompts[0] += 1
        assert torch.equal(model(batch).logits, after)  # nobody lacks a record
    assert torch.equal(before[with_image], after[with_image])
    assert (before[~with_image] != after[~with_image]).any(dim=1).all()
    assert (before_hidden != after_hidden).any(dim=1).all()
    bare = model_of(prompts=0)
    assert bare.prompts is None
    assert bare(hidden).logits.isfinite().all()


def test_what_is_solved_is_no_parameter_and_is_solved_between_epochs():
    model = model_of()
    batches = batches_of(model, 2)
    names = [key for key, _ in model.named_parameters()]
    assert not {"expand", "weights", "slopes", "offsets"} & set(names)
    with torch.no_grad():
        assert torch.equal(model(batches[0][0]).logits, model.prior.expand(40, -1))
        model.between_epochs(Epoch(0, 5, lambda: batches))
        found = model.weights.clone()
    assert torch.equal(found, solved(model, batches).weights)
    assert found.any()
    assert found.dtype == torch.float64
    losses = model.losses(model(batches[0][0]), *batches[0])
    assert not losses["task"].requires_grad
    losses["backbone"].backward()
    assert not [key for key, parameter in model.named_parameters() if parameter.grad is None]


def test_the_solution_keeps_its_digits_under_bf16():
    """In float32 the recursion is off by more than its result; nothing of it may be cast down."""
    model = model_of()
    batches = batches_of(model)
    exact = solved(model, batches).weights.clone()
    pooled = {id(batch): model.pooled(batch).detach() for batch, _ in batches}
    reads = [model.read(pooled[id(batch)], batch.heard).detach() for batch, _ in batches]
    model.pooled, kept = (lambda batch: pooled[id(batch)]), iter(reads)
    model.read = lambda *_: next(kept)
    with torch.autocast("cpu", torch.bfloat16):
        found = solved(model, batches).weights
    close(found, exact, 1e-6)


def test_the_backbone_learns_from_the_first_group_of_labels_and_its_stays():
    def loss(model, targets, batch):
        torch.manual_seed(3)
        with torch.no_grad():
            return float(model.losses(model(batch), batch, targets)["backbone"])

    for hyper, later_labels, later_stays in (
        ({}, False, True),
        ({"stays": "parts"}, False, False),
        ({"stays": "parts", "backbone": "all"}, True, True),
    ):
        model = model_of(**hyper)
        batch, targets = batches_of(model, 1)[0]
        own = loss(model, targets, batch)
        other_labels, other_stays = targets.clone(), targets.clone()
        other_labels[:, 5:] = 1 - other_labels[:, 5:]
        other_stays[batch.index % 5 > 0] = 1 - other_stays[batch.index % 5 > 0]
        assert (loss(model, other_labels, batch) != own) == later_labels
        assert (loss(model, other_stays, batch) != own) == later_stays
    model = model_of("los")
    batch, targets = batches_of(model, 1)[0]
    own, other = loss(model, targets, batch), targets.clone()
    other[targets > 1] = 6
    assert loss(model, other, batch) == own
    model.hide = (0.0, 0.0)
    with torch.no_grad():
        logits = model.head(model.read(model.pooled(batch), batch.present)) + model.prior[:2]
    first = targets[:, 0] < 2
    expected = nn.functional.cross_entropy(logits[first], targets[first, 0].long())
    assert loss(model, targets, batch) == pytest.approx(float(expected), abs=1e-5)


def test_a_hidden_image_is_one_that_is_not_there():
    model = model_of()
    batch, targets = batches_of(model, 1)[0]
    model.hide = (0.0, 1.0)
    with torch.no_grad():
        found = float(model.losses(model(batch), batch, targets)["backbone"])
        hidden = without_images(batch)
        logits = model.head(model.read(model.pooled(hidden), hidden.present)) + model.prior[:5]
    assert found == pytest.approx(float(sample_losses(logits, targets[:, :5], model.shapes.task).mean()), abs=1e-5)


def test_of_parts_the_first_ones_stays_are_drawn_as_often_as_it_takes():
    rows, rng = torch.arange(3, 44), np.random.default_rng(0)
    drawn = model_of(stays="parts").draw(rows, rng)
    assert len(drawn) == 41
    counts = torch.bincount(drawn, minlength=44)
    assert torch.nonzero(counts).flatten().tolist() == [5, 10, 15, 20, 25, 30, 35, 40]
    assert set(counts[counts > 0].tolist()) == {5, 6}
    for hyper in ({}, {"stays": "parts", "backbone": "all"}):
        assert model_of(**hyper).draw(rows, rng).sort().values.tolist() == rows.tolist()


def test_the_share_of_its_own_target_is_the_mean_diagonal_of_the_hat_matrix():
    model = model_of("mortality", compensate=0.7)
    x = told(model, batches_of(model))[0]

    def hat(part):
        return part @ torch.linalg.solve(part.T @ part + 0.1 * torch.eye(part.shape[1]), part.T)

    first, second = hat(x[:, :F]), hat(x[:, F:])
    whole = first + 0.7 * second @ (torch.eye(len(x)) - first)
    of = Statistics.of(x, x[:, :1])
    share = model.leverage(of, slice(0, F), slice(F, None))
    assert float(share) == pytest.approx(float(whole.diagonal().mean()), abs=1e-8)


def test_the_discriminant_is_that_of_scores_less_their_own_targets():
    torch.manual_seed(4)
    n, share = 200, 0.2
    y = (torch.rand(n, 4) < torch.tensor([0.1, 0.5, 0.3, 0.0])).double()
    x = torch.randn(n, 6, dtype=torch.float64) + 2 * y @ torch.randn(4, 6, dtype=torch.float64)
    weights = torch.linalg.lstsq(x, y).solution
    weights[:, 2] *= -1  # a score that is lower where its label is true
    slopes, offsets = discriminant(Statistics.of(x, y), weights, torch.tensor(share).double())
    s = ((x @ weights - share * y) / (1 - share)).numpy()
    for k in range(2):
        true, false = s[y[:, k] == 1, k], s[y[:, k] == 0, k]
        within = (true.var() * len(true) + false.var() * len(false)) / n
        slope = (true.mean() - false.mean()) / within
        assert slope > 0
        assert float(slopes[k]) == pytest.approx(slope, rel=1e-6)
        assert float(offsets[k]) == pytest.approx(-slope * (true.mean() + false.mean()) / 2, rel=1e-6)
    assert slopes[2:].tolist() == offsets[2:].abs().tolist() == [0, 0]


def test_scores_that_fit_noise_make_no_sure_answers():
    """More random features than stays: the training scores are as good as the labels, and tell nothing."""
    model = model_of("mortality", expand=256, gamma=1.0)
    batches = batches_of(model)
    fresh = batches_of(model, 4)[3]
    losses = []
    for leverage in (model.leverage, lambda *_: torch.zeros((), dtype=torch.float64)):
        model.leverage = leverage
        solved(model, batches)
        with torch.no_grad():
            p = probabilities(model(fresh[0]).logits, model.shapes.task)
        losses.append(float(nn.functional.binary_cross_entropy(p, fresh[1].double())))
    assert losses[0] < 0.9
    assert losses[1] > 1.2


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"phases": 0}, "phases and expand must be at least 1, are 0 and 32"),
        ({"expand": 0}, "phases and expand must be at least 1"),
        ({"stays": "some"}, "stays must be all or parts, is 'some'"),
        ({"backbone": "none"}, "backbone must be first or all, is 'none'"),
        ({"prompts": -1}, "prompts and compensate must be at least 0"),
        ({"hide_image": 0.0}, "hide_image must lie between 0 and 1"),
        ({"hide_record": 1.0}, "hide_record must lie between 0 and 1"),
        ({"gamma": 0.0}, "gamma must be above 0, is 0"),
    ],
)
def test_impossible_knobs_are_refused(hyper, message):
    with pytest.raises(InputError, match=rf"strategies\.pal: {message}"):
        model_of(**hyper)


def test_a_single_class_cannot_teach_the_backbone():
    with pytest.raises(InputError, match=r"strategies\.pal: phases must leave the first one two of 7 classes .* is 7"):
        model_of("los", phases=7)
    assert len(model_of("los", phases=7, backbone="all").groups) == 7
    assert len(model_of("phenotype", phases=25).groups) == 25
