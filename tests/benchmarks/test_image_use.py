"""The pieces of tests/benchmarks/image_use.py: whose image is asked about, what is pooled, which cells are told of."""

import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from pipeline.data.batches import Batches
from pipeline.data.inputs import HOURS
from pipeline.data.tensors import load_fold
from pipeline.mimic.variables import load_variables
from pipeline.modelling.interface import Output, Strategy
from pipeline.params import load
from pipeline.synthetic.model import PHENOTYPES
from pipeline.tasks import get_task
from pipeline.training.cell import write_runs
from pipeline.training.store import Store, data_fingerprint
from tests.benchmarks import image_use
from tests.benchmarks.image_use import KINDS, PERMUTATIONS, answers, main, table
from tests.support.made_up_data import fabricate
from tests.support.runs import grid

TASK = get_task("phenotype")
NEEDING = [k for k, name in enumerate(TASK.labels) if PHENOTYPES[name].kind in ("cxr_only", "synergistic")]


class Brightness(Strategy):
    """The image's brightness, for every label; with `ehr` the last heart rate instead."""

    def __init__(self, modality):
        super().__init__(type("Shapes", (), {"outputs": 25}))
        self.modalities = frozenset({modality})

    def forward(self, batch):
        told = batch.images.mean(dim=(1, 2, 3)) if "cxr" in self.modalities else batch.ehr[:, -1, 0]
        return Output(told[:, None].expand(-1, 25))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("hospital") / "data", n=600)


@pytest.fixture
def pictured(data):
    """The fold, and the rows of its dev stays that have an image."""
    fold = load_fold(data, 0, TASK, load_variables("core"), "mcar", HOURS)
    return fold, np.flatnonzero((fold.part == "dev") & fold.pictured)


@pytest.fixture
def specs():
    return [
        spec for spec in grid(load().training, "resnet", "phenotype", seeds=(0, 1)) if spec.train_cohort == "matched"
    ]


def test_the_record_is_the_stay_s_own_and_the_image_another_s(pictured, specs):
    fold, stays = pictured
    batches, other = Batches(fold, torch.device("cpu")), np.roll(stays, 1)
    own, swapped = (answers(Brightness("cxr"), specs[0], batches, stays, images) for images in (stays, other))
    assert torch.equal(swapped, own.roll(1, 0))
    assert not torch.equal(swapped, own)
    heart = [answers(Brightness("ehr"), specs[0], batches, stays, images) for images in (stays, other)]
    assert torch.equal(*heart)


def test_the_row_is_the_mean_over_seeds_and_permutations(data, pictured, specs, tmp_path, monkeypatch):
    fold, stays = pictured
    store = Store(tmp_path, data_fingerprint(data))
    monkeypatch.setattr(image_use, "trained", lambda *_: Brightness("cxr"))
    name, runs, kinds, cost = image_use.use("x", specs, store, data, "dev")
    bright = fold.pixels[fold.places.row[:, 0]].mean(axis=(1, 2), dtype=np.float64)

    def auroc(k, images):
        return roc_auc_score(fold.targets[stays, k], bright[images])

    assert (name, runs, list(kinds)) == ("x", 2, list(KINDS))
    for kind, (told, low, high) in kinds.items():
        of_kind = [k for k, label in enumerate(TASK.labels) if PHENOTYPES[label].kind == kind]
        assert told == pytest.approx(np.mean([auroc(k, stays) for k in of_kind]), abs=1e-9)
        assert low < told < high
    lost = []
    for seed in (0, 1):
        random = np.random.default_rng([0, seed])
        for _ in range(PERMUTATIONS):
            images = random.permutation(stays)
            lost += [auroc(k, stays) - auroc(k, images) for k in NEEDING]
    value, low, high = cost
    assert value == pytest.approx(np.mean(lost), abs=1e-9)
    assert low < value < high


def test_only_finished_runs_are_told_of_and_who_sees_no_image_has_no_cost(data, specs, tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_WORK", str(tmp_path))
    store = Store(tmp_path, data_fingerprint(data))
    write_runs(specs, store, data / "runs/resnet")
    assert table(data.parent, "dev").count("\n") == 2  # the header alone
    (store.folder(specs[1])).mkdir(parents=True)
    (store.folder(specs[1]) / "result.json").write_text("{}")
    monkeypatch.setattr(image_use, "trained", lambda *_: Brightness("ehr"))
    line = table(data.parent, "dev").splitlines()[2]
    assert line.startswith("| resnet | 1 | ")
    assert line.endswith(" | – |")


def test_every_folder_is_asked_by_its_own_code(tmp_path, monkeypatch, capfd):
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline/__init__.py").write_text("raise SystemExit('the folder has its own')\n")
    monkeypatch.setattr(sys, "argv", ["image_use", str(tmp_path), "--part", "val"])
    with pytest.raises(image_use.subprocess.CalledProcessError):
        main()
    told = capfd.readouterr()
    assert told.out.startswith(f"{tmp_path}, val:")
    assert "the folder has its own" in told.err
