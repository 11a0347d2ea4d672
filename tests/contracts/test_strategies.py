"""Every strategy in the folder keeps the contract; and the contract notices who does not."""

import sys
import types

import pytest
import torch
from torch import nn

from pipeline.errors import InputError
from pipeline.strategies import cards, registry
from pipeline.strategies.cards import ENTRIES, read_card
from pipeline.strategies.checks import check_strategy
from pipeline.strategies.interface import Output, Strategy


@pytest.mark.parametrize("name", registry.names())
def test_contract(name):
    check_strategy(name)


@pytest.mark.parametrize("name", registry.names())
def test_the_card_is_whole_and_says_what_the_class_declares(name):
    card, cls = read_card(name), registry.strategy_class(name)
    assert set(card.entries) == set(ENTRIES)
    assert all(card.entries.values())
    assert set(card.modalities) == cls.modalities
    assert (card.missing, card.interaction) == (cls.missing, cls.interaction)


def test_a_card_without_an_entry_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "__file__", str(tmp_path / "cards.py"))
    (tmp_path / "new.py").write_text('"""new: something.\n\nPaper: none.\nIdea: none.\n"""\n')
    with pytest.raises(InputError, match=r"new\.py: its card lacks Missing image, Changed"):
        read_card("new")
    with pytest.raises(InputError, match="'other' has no file"):
        read_card("other")


def test_a_card_reads_what_the_class_declares_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "__file__", str(tmp_path / "cards.py"))
    (tmp_path / "new.py").write_text(
        '"""new: something.\n\nPaper: none.\nIdea: none.\nMissing image: none.\nChanged: none.\n"""\n'
        "class New(Strategy):\n    missing: ClassVar[str] = 'native'\n"
        "    def forward(self, batch):\n        missing = 'a local name'\n        modalities = batch.present[:, 1]\n"
    )
    card = read_card("new")
    assert (card.missing, card.modalities, card.interaction) == ("native", ("cxr", "ehr"), "joint")


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


class PeeksAtPresence(Good):
    def forward(self, batch):
        return Output(super().forward(batch).logits + batch.present[:, 1, None])


class PeeksAtTheView(Good):
    def forward(self, batch):
        view = torch.zeros(batch.size).index_copy(0, batch.image_sample, batch.image_view.float())
        return Output(super().forward(batch).logits + view[:, None])


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
        (PeeksAtPresence, "sees presence of images: True"),
        (PeeksAtTheView, "sees image_view: True"),
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
