"""Every strategy in the folder keeps the contract; and the contract notices who does not."""

import sys
import types

import pytest
import torch
from torch import nn

from pipeline.strategies import registry
from pipeline.strategies.checks import check_strategy
from pipeline.strategies.interface import Output, Strategy


@pytest.mark.parametrize("name", registry.names())
def test_contract(name):
    check_strategy(name)


@pytest.mark.parametrize("name", registry.names())
def test_the_card_names_paper_idea_and_missing_image(name):
    card = sys.modules[registry.strategy_class(name).__module__].__doc__
    for entry in (f"{name}: ", "Paper:", "Idea:", "Missing image:", "Changed:"):
        assert entry in card


class Good(Strategy):
    modalities = frozenset({"ehr"})

    def __init__(self, shapes):
        super().__init__(shapes)
        self.head = nn.Linear(shapes.channels, shapes.outputs)

    def forward(self, batch):
        return Output(self.head(batch.ehr.mean(dim=1)))


class DeadParameter(Good):
    def __init__(self, shapes):
        super().__init__(shapes)
        self.unused = nn.Linear(2, 2)


class LooksAtTheBatch(Good):
    def forward(self, batch):
        x = batch.ehr.mean(dim=1)
        return Output(self.head(x - x.mean(dim=0)))


class IgnoresImages(Good):
    modalities = frozenset({"ehr", "cxr"})


class WrongShape(Good):
    def forward(self, batch):
        return Output(super().forward(batch).logits.squeeze())


class DividesByImages(Good):
    def forward(self, batch):
        return Output(super().forward(batch).logits + batch.images.mean())


class Noisy(Good):
    def forward(self, batch):
        return Output(super().forward(batch).logits + torch.randn(()))


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (DeadParameter, r"parameter unused\.weight gets no gradient"),
        (LooksAtTheBatch, "batch mates"),
        (IgnoresImages, "sees images: False"),
        (WrongShape, "logits are"),
        (DividesByImages, "not finite"),
        (Noisy, "two predictions of the same batch differ"),
    ],
)
def test_the_contract_names_what_is_wrong(monkeypatch, cls, message):
    module = types.ModuleType("pipeline.strategies.planted")
    cls.__module__ = module.__name__
    module.Planted = cls
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(registry, "names", lambda: ["planted"])
    with pytest.raises(AssertionError, match=message):
        check_strategy("planted")


def test_a_good_one_passes(monkeypatch):
    module = types.ModuleType("pipeline.strategies.planted")
    Good.__module__ = module.__name__
    module.Planted = Good
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(registry, "names", lambda: ["planted"])
    check_strategy("planted")
