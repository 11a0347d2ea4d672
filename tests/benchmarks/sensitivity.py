"""`python -m tests.benchmarks.sensitivity`: what moves each strategy before it is trained, to docs/sensitivity.csv and
from there to docs/strategies.md.

At the sizes of the scale `study`, on made-up batches, the mean over SEEDS initialisations. Of the logits: their mean
absolute change where each sample is given the next one's pixels, or the next one's record. Of the gradients: the norm
of that of all losses at the first parameters of each modality, the CNN's first filters and the embedding of the record.
A strategy whose image moves logits or receives gradients orders of magnitude less than its record starts by learning
the record alone.
"""

from __future__ import annotations

import dataclasses
import itertools

import torch
from torch import nn

from pipeline import files
from pipeline.data.inputs import HOURS, channel_variables
from pipeline.mimic.variables import load_variables
from pipeline.modelling import registry
from pipeline.modelling.cards import read_card
from pipeline.modelling.encoders import ImageEncoder, LSTMEncoder, TransformerEncoder
from pipeline.modelling.examples import example_batch, example_targets
from pipeline.modelling.fitted import Fitted
from pipeline.modelling.interface import Epoch, Shapes, Strategy
from pipeline.page.strategies import DOCUMENT, SENSITIVITY, read_sensitivity, render, told
from pipeline.params import load
from pipeline.tasks import get_task
from pipeline.training.run import prepare_torch

SEEDS = (0, 1, 2)
SIZE = 32  # of a batch


def first_parameters(model: Strategy) -> dict[str, nn.Parameter]:
    """By modality, of those that it looks at: the first filters; the embedding of the record's channels or kinds."""
    first = {}
    if "cxr" in model.modalities:
        cnns = [m for m in model.modules() if isinstance(m, ImageEncoder)]
        first["cxr"] = next(p for p in cnns[0].parameters() if p.ndim == 4)
    if "ehr" in model.modalities:
        embeddings = [m.embed.weight for m in model.modules() if isinstance(m, TransformerEncoder | LSTMEncoder)]
        embeddings += [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
        first["ehr"] = embeddings[0]
    return first


def measure(model: Strategy) -> dict[str, float]:
    """logit_cxr, logit_ehr, gradient_cxr, gradient_ehr of an untrained strategy; of what it looks at alone."""
    batch = example_batch(model.shapes, SIZE, torch.ones(SIZE).bool())
    targets = example_targets(model.shapes, SIZE)
    model.eval()
    with torch.no_grad():
        model.between_epochs(Epoch(0, 1, lambda: [(batch, targets)]))
        swaps = {"cxr": ("images",), "ehr": ("ehr", "observed", "since")}
        own = model(batch).logits
        numbers = {}
        for modality, names in swaps.items():
            if modality in model.modalities:
                other = dataclasses.replace(batch, **{name: getattr(batch, name).roll(1, 0) for name in names})
                numbers[f"logit_{modality}"] = float((model(other).logits - own).abs().mean())
    model.train()
    torch.stack(list(model.losses(model(batch), batch, targets).values())).sum().backward()
    for modality, parameter in first_parameters(model).items():
        assert parameter.grad is not None
        numbers[f"gradient_{modality}"] = float(parameter.grad.norm())
    return numbers


def study_shapes() -> Shapes:
    """The shapes of the scale `study`, on phenotypes."""
    scale = load().scales["study"]
    channels = channel_variables(load_variables("core"))
    return Shapes(get_task("phenotype"), HOURS, channels, scale.images.px, scale.encoders)


def measured(name: str, shapes: Shapes) -> dict[str, float]:
    """The mean of `measure` over SEEDS."""
    each = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        each.append(measure(registry.build(name, shapes, load().strategies[name])))
    return {key: sum(numbers[key] for numbers in each) / len(each) for key in each[0]}


def main() -> None:
    """Measures all strategies that are trained by gradients."""
    prepare_torch()
    shapes, columns = (
        study_shapes(),
        [f"{of}_{by}" for of, by in itertools.product(("logit", "gradient"), ("cxr", "ehr"))],
    )
    lines = [",".join(["strategy", *columns])]
    for name in registry.names():
        if not issubclass(registry.strategy_class(name), Fitted):
            numbers = measured(name, shapes)
            lines.append(",".join([name, *(f"{numbers[key]:.2g}" if key in numbers else "" for key in columns)]))
            print(lines[-1], flush=True)
    files.write_text("\n".join(lines) + "\n", SENSITIVITY)
    cards = [read_card(name) for name in registry.names()]
    files.write_text(render(cards, told(), read_sensitivity(SENSITIVITY)), DOCUMENT)


if __name__ == "__main__":
    main()
