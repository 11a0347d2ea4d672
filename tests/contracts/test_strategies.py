"""Every strategy in the folder keeps the contract; and the contract notices who does not."""

import sys

import pytest
import torch
from torch import nn

from pipeline.errors import InputError
from pipeline.modelling import cards, encoders, learning, registry
from pipeline.modelling.cards import ENTRIES, read_card
from pipeline.modelling.checks import check_strategy
from pipeline.modelling.examples import example_batch, small_shapes
from pipeline.modelling.fitted import Fitted
from pipeline.modelling.interface import Output, Strategy
from pipeline.modelling.learning import learned
from pipeline.params import load


@pytest.mark.parametrize("name", registry.names())
def test_contract(name):
    """On length of stay, of one class; what is learned is asked of labels anyhow. The rest: the whole contract.

    Whoever changes a strategy asks that (CONTRIBUTING.md).
    """
    check_strategy(name, tasks=["los"], faint=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.names())
def test_the_whole_contract(name):
    check_strategy(name, thorough=True)


@pytest.mark.parametrize("name", registry.names())
def test_the_card_is_whole_and_says_what_the_class_declares(name):
    card, cls = read_card(name), registry.strategy_class(name)
    assert set(card.entries) == set(ENTRIES)
    assert all(card.entries.values())
    assert set(card.modalities) == cls.modalities
    assert (card.missing, card.interaction) == (cls.missing, cls.interaction)
    assert (set(card.needs), card.wraps) == (set(cls.needs), cls.wraps)


@pytest.mark.parametrize("name", registry.names())
def test_who_is_declared_complete_has_the_shared_treatment_of_absent_images_and_who_is_native_has_not(name):
    """Of fusion strategies. A learned stand-in reaches the stays that lack an image, all of them, and no others."""
    model = registry.build(name, small_shapes("mortality"), {})
    if not {"ehr", "cxr"} <= model.modalities:
        pytest.skip("looks at one modality")
    stand_ins = [value for key, value in model.named_parameters() if key.split(".")[-1] == "absent"]
    if model.missing == "native":
        assert not stand_ins
        return
    module = "pipeline.modelling.fitted" if isinstance(model, Fitted) else type(model).__module__
    assert sys.modules[module].fill_absent is encoders.fill_absent
    learned_here = model.interaction == "joint" or name in ("inforeg", "late_fusion")
    with_image = torch.tensor([1, 0, 1, 0, 0]).bool()
    batch = example_batch(model.shapes, 5, with_image)
    model.eval()
    with torch.no_grad():
        before = model(batch).logits
        for value in stand_ins:
            value += torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
        moved = ((model(batch).logits - before).abs() > 1e-6).any(dim=1)
    skips = name == "daft"  # its transform is skipped where there is no image, and nothing takes its place
    assert bool(stand_ins) == (learned_here and not skips)
    assert moved.tolist() == ((~with_image) & bool(stand_ins)).tolist()


def test_a_card_without_an_entry_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "STRATEGIES", tmp_path)
    (tmp_path / "new.py").write_text('"""new: something.\n\nPaper: none.\nIdea: none.\n"""\n')
    with pytest.raises(InputError, match=r"new\.py: its card lacks Missing image, Changed"):
        read_card("new")
    with pytest.raises(InputError, match="'other' has no file"):
        read_card("other")


def test_a_card_reads_what_the_class_declares_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "STRATEGIES", tmp_path)
    (tmp_path / "new.py").write_text(
        '"""new: something.\n\nPaper: none.\nIdea: none.\nMissing image: none.\nChanged: none.\n"""\n'
        "class New(Strategy):\n    missing: ClassVar[str] = 'native'\n"
        "    def forward(self, batch):\n        missing = 'a local name'\n        modalities = batch.present[:, 1]\n"
    )
    card = read_card("new")
    assert (card.missing, card.modalities, card.interaction) == ("native", ("cxr", "ehr"), "joint")


class Good(Strategy):
    """EHR alone: one linear layer on all hours."""

    modalities = frozenset({"ehr"})
    interaction = "additive"

    def __init__(self, shapes):
        super().__init__(shapes)
        self.head = nn.Linear(shapes.hours * shapes.channels, shapes.outputs)

    def forward(self, batch):
        return Output(self.head(batch.ehr.flatten(1)) + self.prior)


class GoodFusion(Good):
    """A linear layer on all pixels more; what is absent is zero."""

    modalities = frozenset({"ehr", "cxr"})

    def __init__(self, shapes):
        super().__init__(shapes)
        self.image_head = nn.Linear(shapes.px**2, shapes.outputs)

    def of_image(self, batch):
        logits = self.image_head((batch.images.flatten(1) - 0.5) / 0.25)
        return logits.new_zeros((batch.size, self.shapes.outputs)).index_copy(0, batch.image_sample, logits)

    def forward(self, batch):
        return Output(super().forward(batch).logits + self.of_image(batch))


class CountsInSteps(Good):
    """A number of its own under a name that the loop reads."""

    def __init__(self, shapes):
        super().__init__(shapes)
        self.steps = 25


class DeadParameter(Good):
    def __init__(self, shapes):
        super().__init__(shapes)
        self.unused = nn.Linear(2, 2)


class WaitsForNothing(Good):
    """What is said to wait is trained."""

    def waiting(self):
        return [self.head.bias]


class WaitsWithZeros(DeadParameter):
    """A gradient of zeros would start its state in the optimiser."""

    def forward(self, batch):
        return Output(super().forward(batch).logits + 0 * self.unused(batch.ehr[:, 0, :2]).sum())

    def waiting(self):
        return self.unused.parameters()


class GradientOfRounding(Good):
    """A bias that cancels in a softmax: its gradient is not zero, but noise."""

    def __init__(self, shapes):
        super().__init__(shapes)
        self.score, self.bias = nn.Linear(shapes.channels, 1, bias=False), nn.Parameter(torch.zeros(1))

    def forward(self, batch):
        weights = torch.softmax(self.score(batch.ehr) + self.bias, dim=1)
        return Output(self.head((weights * batch.ehr).flatten(1)) + self.prior)


class LooksAtTheBatch(Good):
    def forward(self, batch):
        x = batch.ehr.flatten(1)
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


class Probabilities(Good):
    def forward(self, batch):
        return Output(torch.sigmoid(super().forward(batch).logits))


class BagOfHours(Good):
    def __init__(self, shapes):
        super().__init__(shapes)
        self.head = nn.Linear(shapes.channels, shapes.outputs)

    def forward(self, batch):
        return Output(self.head(batch.ehr.mean(dim=1)) + self.prior)


class CountsPredictions(Good):
    def __init__(self, shapes):
        super().__init__(shapes)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, batch):
        self.seen += batch.size
        return super().forward(batch)


class GrowsAParameter(Good):
    """As CareBench's AUG: what is added after the optimiser is built is in none of its groups."""

    def between_epochs(self, epoch):
        if epoch.done == 1:
            self.booster = nn.Parameter(torch.zeros(self.shapes.outputs))

    def forward(self, batch):
        return Output(super().forward(batch).logits + getattr(self, "booster", 0.0))


class GrowsABuffer(Good):
    def __init__(self, shapes):
        super().__init__(shapes)
        self.register_buffer("memory", torch.zeros(1))

    def between_epochs(self, epoch):
        self.memory = torch.cat([self.memory, self.memory])


class BoostsWithoutBound(Good):
    """As CareBench's AUG: a cross-entropy is taken off the loss."""

    def forward(self, batch):
        logits = super().forward(batch).logits
        return Output(logits, unimodal={"before": logits, "last": 0.5 * logits})

    def losses(self, output, batch, targets):
        left = targets * torch.sigmoid(output.unimodal["before"]) if self.shapes.task.kind != "multiclass" else 0.0
        residual = nn.functional.binary_cross_entropy_with_logits(output.unimodal["last"], left + 0 * output.logits)
        return {**super().losses(output, batch, targets), "boost": -0.5 * residual}


class PushesApart(Good):
    def losses(self, output, batch, targets):
        return {**super().losses(output, batch, targets), "apart": -0.01 * self.head.weight.square().sum()}


class TiedWeights(Good):
    def __init__(self, shapes):
        super().__init__(shapes)
        self.again = nn.Linear(1, 1, bias=False)
        self.again.weight = self.head.weight


class CountsEpochsAside(Good):
    """What a checkpoint does not hold decides how training goes on."""

    epochs = 0

    def between_epochs(self, epoch):
        self.epochs += 1

    def losses(self, output, batch, targets):
        return {"task": super().losses(output, batch, targets)["task"] / (1 + self.epochs)}


class Remembers(Good):
    """As CareBench's Flex-MoE: a list that every forward pass makes longer."""

    def __init__(self, shapes):
        super().__init__(shapes)
        self.kept = []

    def forward(self, batch):
        output = super().forward(batch)
        self.kept.append(output.logits.detach())
        return output


class DeafToItsImages(Good):
    """The image reaches the logits, but by weights that are not trained."""

    modalities = frozenset({"ehr", "cxr"})

    def forward(self, batch):
        logits = super().forward(batch).logits
        bright = batch.images.mean(dim=(1, 2, 3))
        return Output(logits + torch.zeros(batch.size, 1).index_copy(0, batch.image_sample, bright[:, None]))


class DeafToItsRecord(GoodFusion):
    def __init__(self, shapes):
        super().__init__(shapes)
        del self.head

    def forward(self, batch):
        return Output(self.of_image(batch) + batch.ehr[:, :24].mean(dim=(1, 2))[:, None] + self.prior)


class SumCalledJoint(GoodFusion):
    interaction = "joint"


class ProductCalledAdditive(GoodFusion):
    def forward(self, batch):
        image = self.of_image(batch)
        both = (Good.forward(self, batch).logits - self.prior) * image
        return Output(super().forward(batch).logits + 0.01 * both)


class NetworkCalledAdditive(GoodFusion):
    def __init__(self, shapes):
        super().__init__(shapes)
        self.first = nn.Linear(2 * shapes.outputs, 32)
        self.last = nn.Linear(32, shapes.outputs)

    def forward(self, batch):
        record = Good.forward(self, batch).logits - self.prior
        joint = torch.cat([record, self.of_image(batch)], dim=1)
        return Output(self.last(torch.tanh(self.first(joint))) + self.prior)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (CountsInSteps, "steps is 25"),
        (DeadParameter, r"parameter unused\.weight gets no gradient"),
        (WaitsForNothing, r"parameter head\.bias is said to wait, and has a gradient"),
        (WaitsWithZeros, r"parameter unused\.weight is said to wait, and has a gradient"),
        (GradientOfRounding, "parameter bias gets no gradient"),
        (LooksAtTheBatch, "a prediction depends on its batch mates"),
        (IgnoresImages, "sees images: False"),
        (PeeksAtPresence, "sees presence of images: True"),
        (PeeksAtTheView, "sees image_view: True"),
        (WrongShape, "logits are"),
        (DividesByImages, "logits of a batch of 1 are not finite"),
        (Noisy, "two predictions of the same batch differ"),
        (Probabilities, "may be probabilities"),
        (BagOfHours, "the order of the hours does not matter"),
        (CountsPredictions, r"predicting changes \['seen'\]"),
        (GrowsAParameter, "parameter booster is 0 times in the optimiser"),
        (GrowsABuffer, r"\['memory'\] grew"),
        (BoostsWithoutBound, "loss boost falls to -.*: not bounded below"),
        (PushesApart, "loss apart falls to -.*: not bounded below"),
        (TiedWeights, "safetensors cannot hold its state"),
        (CountsEpochsAside, "it has a state outside of buffers"),
        (Remembers, "more tensors"),
        (DeafToItsImages, "a signal in cxr alone is not learned"),
        (DeafToItsRecord, "a signal in ehr alone is not learned"),
        (SumCalledJoint, "the exclusive or of EHR and image is not learned, though it is declared joint"),
        (NetworkCalledAdditive, "declared additive, its modalities interact"),
        (ProductCalledAdditive, "declared additive, its modalities interact"),
    ],
)
def test_the_contract_names_what_is_wrong(planted, cls, message):
    planted(cls)
    with pytest.raises(AssertionError, match=f"^planted: .*{message}") as caught:
        check_strategy("planted", tasks=["phenotype"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cls", "right"),
    [(Good, {"ehr"}), (GoodFusion, {"ehr", "cxr"}), (NetworkCalledAdditive, {"ehr", "cxr", "xor"})],
)
def test_what_is_learned_is_what_can_be(planted, monkeypatch, cls, right):
    planted(cls)
    monkeypatch.setattr(cls, "interaction", "joint")  # nobody is let off early
    monkeypatch.setattr(learning, "STEPS", 200)
    assert learned("planted", {"lr": 1e-3}, seed=0).right == right


@pytest.mark.parametrize("cls", [Good, GoodFusion])
def test_a_good_one_passes(planted, cls):
    planted(cls)
    check_strategy("planted")


@pytest.mark.parametrize("seed", [7, 10])
def test_a_strategy_that_ten_times_trainings_rate_left_deaf_learns_from_every_start(seed):
    assert learned("umse", {}, seed).right == {"ehr", "cxr", "xor"}


def test_the_learning_rate_rises_to_trainings_own(root, monkeypatch):
    rates, take_step = [], learning.take_step

    def noted(model, optimiser, batches):
        rates.append([group["lr"] for group in optimiser.param_groups])
        return take_step(model, optimiser, batches)

    monkeypatch.setattr(learning, "take_step", noted)
    learned("resnet", {}, seed=0)
    assert rates[:80] == [[pytest.approx(3e-3 * (step + 1) / 80)] * 2 for step in range(80)]
    assert rates[80:] == [[3e-3] * 2] * 20
    own = {block["lr"] for block in load(root / "params.yaml").strategies.values() if "lr" in block}
    assert max(own) <= 3e-3 <= 3 * max(own)
