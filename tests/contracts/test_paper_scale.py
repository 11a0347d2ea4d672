"""A real training step of every strategy at paper scale on a CPU: 224 px, ResNet-50, width 256, batch 16."""

import itertools

import pytest
import torch

from pipeline.data.inputs import HOURS, channel_variables
from pipeline.mimic.variables import load_variables
from pipeline.modelling import registry
from pipeline.modelling.examples import example_batch, example_targets
from pipeline.modelling.fitted import Fitted
from pipeline.modelling.interface import Epoch, Shapes
from pipeline.modelling.optimiser import AdamW, optimiser_groups
from pipeline.params import load
from pipeline.tasks import get_task
from pipeline.training.loop import train_step
from pipeline.training.run import prepare_torch

PARAMS = load()
SCALE = PARAMS.scales["paper"]
SIZE = SCALE.training.batch_size
# Of a batch, how many have an image: as in the base cohort, as in the matched one, and none.
IMAGES = (SIZE // 4, SIZE, 0)
TRAINED = [name for name in registry.names() if not issubclass(registry.strategy_class(name), Fitted)]


def paper_steps(name):
    """Between epochs, a training step a batch, between epochs, a prediction; returns losses and logits."""
    prepare_torch()
    torch.manual_seed(0)
    shapes = Shapes(
        get_task("phenotype"), HOURS, channel_variables(load_variables("core")), SCALE.images.px, SCALE.encoders
    )
    strategy = registry.build(name, shapes, PARAMS.strategies[name])
    hyper = PARAMS.strategies[name]
    optimiser = AdamW(optimiser_groups(strategy, PARAMS.training.weight_decay), lr=hyper["lr"])

    def batches():
        for seed, images in enumerate(IMAGES):
            yield example_batch(shapes, SIZE, torch.arange(SIZE) < images, seed), example_targets(shapes, SIZE, seed)

    def between_epochs(done):
        strategy.eval()
        with torch.no_grad():
            strategy.between_epochs(Epoch(done, SCALE.training.max_epochs, batches))

    between_epochs(0)
    strategy.train()
    generator = torch.Generator().manual_seed(0)
    losses = [train_step(strategy, optimiser, *batch, PARAMS.training, generator) for batch in batches()]
    between_epochs(1)
    with torch.inference_mode():
        logits = [strategy(batch).logits for batch, _ in batches()]
    return strategy, losses, logits


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_a_training_step_at_paper_scale(name):
    strategy, losses, logits = paper_steps(name)
    assert strategy.shapes.px == 224
    values = torch.stack([loss for step in losses for loss in step.values()])
    assert values.isfinite().all()
    assert all(one.isfinite().all() and one.shape == (SIZE, strategy.shapes.outputs) for one in logits)
    assert all(not torch.equal(one, other) for one, other in itertools.pairwise(logits))
    broken = [key for key, value in strategy.state_dict().items() if not value.isfinite().all()]
    assert broken == []
