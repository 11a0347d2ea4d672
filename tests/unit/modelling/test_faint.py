"""What the contract asks about a faint image: the samples, their measure, the rate at which they are learned."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from pipeline.modelling import faint, learning
from pipeline.modelling.examples import example_batch, small_shapes
from pipeline.modelling.faint import FRESH, SHAPES, SPOT, auroc, faint_pairs, use_of_image
from pipeline.modelling.interface import Output, Strategy
from pipeline.modelling.learning import set_rate
from pipeline.modelling.views import keep_images, without_images


def spot():
    line = torch.linspace(-1, 1, SHAPES.px)
    return torch.exp(-((line[:, None] - 0.2).square() + (line[None] - 0.3).square()) / 0.08)


class Sees(Strategy):
    """An ideal eye: all labels by the spot; or by the record."""

    def __init__(self, image):
        super().__init__(SHAPES)
        self.image = image

    def forward(self, batch):
        told = (batch.images[:, 0] * spot()).sum(dim=(1, 2)) if self.image else batch.ehr[:, :, 0].mean(dim=1)
        return Output(told[:, None].expand(-1, self.shapes.outputs))


def test_auroc_is_that_of_scikit_learn_with_ties():
    g = torch.Generator().manual_seed(0)
    scores, truth = torch.randint(6, (60, 4), generator=g).float(), torch.rand(60, 4, generator=g).round()
    naive = [roc_auc_score(truth[:, k], scores[:, k]) for k in range(4)]
    assert auroc(scores, truth).tolist() == pytest.approx(naive, abs=1e-6)


def test_record_and_image_tell_their_own_labels_and_neither_the_exclusive_or():
    batch, truth = faint_pairs(2000, seed=3)
    by_record, by_image = (auroc(Sees(image)(batch).logits, truth) for image in (False, True))
    assert (by_record[0::3] > 0.999).all()
    assert (by_image[1::3] > 0.97).all()
    for found in (by_record[1::3], by_record[2::3], by_image[0::3], by_image[2::3]):
        assert ((found - 0.5).abs() < 0.04).all()


def test_the_spot_is_below_the_noise_of_a_single_pixel():
    batch, truth = faint_pairs(2000, seed=3)
    shown, hidden = (batch.images[truth[:, 1] == side, 0] for side in (1, 0))
    apart = (shown.mean(dim=0) - hidden.mean(dim=0)).max()
    assert apart == pytest.approx(2 * SPOT, rel=0.3)
    assert apart < 0.75 * batch.images.std()


def test_use_is_what_exchanged_images_cost():
    fresh, truth = faint_pairs(FRESH, seed=1)
    assert use_of_image(Sees(image=True), fresh, truth) == pytest.approx(0.48, abs=0.05)
    assert use_of_image(Sees(image=False), fresh, truth) == 0.0


def test_images_are_kept_where_asked_and_there():
    batch = example_batch(small_shapes("los"), 5, torch.tensor([1, 1, 0, 1, 0]).bool())
    kept = keep_images(batch, torch.tensor([0, 1, 1, 1, 0]).bool())
    assert kept.present[:, 1].tolist() == [False, True, False, True, False]
    assert kept.image_sample.tolist() == [1, 3]
    assert torch.equal(kept.images, batch.images[1:])
    assert torch.equal(kept.image_hours, batch.image_hours[1:])
    assert without_images(batch).images.shape[0] == 0
    assert batch.present[:, 1].sum() == 3


def test_the_rate_rises_over_a_tenth_of_the_steps_and_stays():
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    found = []
    for step in (0, 9, 19, 20, 199):
        set_rate(optimiser, 0.01, step, 200)
        found.append(optimiser.param_groups[0]["lr"])
    assert found == pytest.approx([0.0005, 0.005, 0.01, 0.01, 0.01])


@pytest.mark.parametrize(
    ("module", "learns", "top"),
    [
        (learning, lambda: learning.learned("late_fusion", {}, 0), 3e-3),
        (faint, lambda: faint.seen("resnet", {}, 0), 1e-3),
    ],
)
def test_the_checks_learn_at_training_s_own_rate_and_warm_up(monkeypatch, module, learns, top):
    rates = []
    monkeypatch.setattr(
        module, "take_step", lambda model, optimiser, batches: rates.append(optimiser.param_groups[0]["lr"])
    )
    monkeypatch.setattr(module, "STEPS", 40)
    learns()
    assert rates == pytest.approx([top * min(1, (step + 1) / 4) for step in range(40)])
