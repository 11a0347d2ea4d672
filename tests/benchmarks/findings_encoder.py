"""A frozen encoder made here: the CNN of a scale, taught the findings of reports on patients outside of the cohort.

What it has seen is known image by image: its card names the list, and so the stage exposure can tell that it has seen
nobody of dev and test. The same data and params give the same weights; who is killed begins anew.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import yaml
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from pipeline import files
from pipeline.data.inputs import HOURS
from pipeline.embedding.card import Card
from pipeline.mimic.cxr_links import frontal_view
from pipeline.mimic.images import Jpegs
from pipeline.mimic.jpegs import jpeg_path, release_folder
from pipeline.modelling.encoders import ImageEncoder
from pipeline.modelling.interface import Shapes
from pipeline.modelling.optimiser import AdamW, optimiser_groups, schedule
from pipeline.params import Encoders, Training
from pipeline.tasks import get_task
from pipeline.training.augment import augment
from pipeline.training.loop import stream
from pipeline.training.run import prepare_torch

NAME = "findings-resnet"
BATCH, LR = 32, 1e-3  # those of the scale `study`, and of its strategies
HELD_OUT = 8  # every eighth of the patients teaches nothing, and tells what was learned
FEWEST = 10  # images with a finding, and without, that are held out: below, nothing is said of it
KEYS = ("study_id", "subject_id")


def outsiders(data: Path) -> pl.DataFrame:
    """dicom_id, subject_id, path and the findings of frontal images of subjects without a stay in the cohort.

    By dicom_id. A finding is 1 where the report affirms it, null where it is unsure, else 0 (not mentioned, or denied).
    """
    cohort = pl.read_parquet(data / "cohort/stays.parquet", columns=["subject_id"])
    findings = pl.read_parquet(data / "interim/cxr_findings.parquet").drop("subject_id")
    names = [name for name in findings.columns if name not in KEYS]
    told = [pl.when(pl.col(name).fill_null(0) >= 0).then(pl.col(name).fill_null(0)).alias(name) for name in names]
    return (
        pl.read_parquet(data / "interim/cxr_metadata.parquet")
        .filter(frontal_view().is_not_null())
        .join(cohort, on="subject_id", how="anti")
        .join(findings.select("study_id", *told), on="study_id", how="inner")
        .sort("dicom_id")
        .select("dicom_id", "subject_id", jpeg_path(), *names)
    )


def held_out(images: pl.DataFrame) -> np.ndarray[Any, Any]:
    """Which images [n] are of the patients held out."""
    return (images["subject_id"].rank("dense") % HELD_OUT == 0).to_numpy()


class Network(nn.Module):
    """What is exported: normalised images [P, 1, px, px] to the CNN's last map [P, D, h, w] and its mean [P, D]."""

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.stages = encoder.stages

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        for stage in self.stages:
            images = stage(images)
        return images, images.mean(dim=(2, 3))


def exported(reader: Reader, px: int) -> torch.export.ExportedProgram:
    """Its network, for any number of images.

    A strided 1×1 convolution is written as torch has it: as the matrix product that it is on a CPU, the number of
    images would be a constant of the program.
    """
    network = copy.deepcopy(Network(reader.encoder)).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.__class__ = nn.Conv2d
    batches = {0: torch.export.Dim("n", min=1)}
    return torch.export.export(network, (torch.zeros(2, 1, px, px),), dynamic_shapes=(batches,))


class Reader(nn.Module):
    """The image encoder that all strategies share, and a head, as in `resnet`."""

    def __init__(self, px: int, encoders: Encoders, findings: int) -> None:
        super().__init__()
        self.encoder = ImageEncoder(Shapes(get_task("phenotype"), HOURS, (0,), px, encoders))
        self.dropout = nn.Dropout(encoders.dropout)
        self.head = nn.Linear(encoders.width, findings)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [P, K] of images [P, 1, px, px] in [0, 1]."""
        return self.head(self.dropout(self.encoder(images).pooled))


def loss_of(logits: Tensor, told: Tensor) -> Tensor:
    """Mean cross-entropy over the findings that are told (not NaN)."""
    known = ~told.isnan()
    each = nn.functional.binary_cross_entropy_with_logits(logits, told.nan_to_num(), reduction="none")
    return (each * known).sum() / known.sum().clamp(min=1)


def learn(pixels: Tensor, told: Tensor, encoders: Encoders, training: Training, epochs: int) -> Reader:
    """A reader of `pixels` uint8 [n, px, px] after so many epochs; the last counts, and nothing is chosen.

    `told` [n, K] are 0, 1 or NaN. Augmentation, optimiser, schedule and clipping are those of the training loop.
    """
    prepare_torch()
    torch.manual_seed(stream(0))
    reader = Reader(pixels.shape[1], encoders, told.shape[1])
    optimiser = AdamW(optimiser_groups(reader, training.weight_decay), lr=LR)
    steps = -(-len(pixels) // BATCH)
    for epoch in range(epochs):
        torch.manual_seed(stream(0, epoch, 1))
        generator = torch.Generator().manual_seed(stream(0, epoch, 2))
        reader.train()
        for index, rows in enumerate(torch.randperm(len(pixels)).split(BATCH)):
            for group in optimiser.param_groups:
                group["lr"] = LR * schedule(epoch * steps + index, epochs * steps, training.warmup_share)
            images = augment(pixels[rows, None].float() / 255, training.augment, generator)
            optimiser.zero_grad(set_to_none=True)
            loss_of(reader(images), told[rows]).backward()
            optimiser.descend(training.gradient_clip)
    return reader.eval()


def tells(reader: Reader, pixels: Tensor, told: Tensor) -> list[float | None]:
    """The AUROC of each finding [K]; None where fewer than FEWEST images have it, or have it not."""
    with torch.inference_mode():
        parts = [reader(part[:, None].float() / 255) for part in pixels.split(256)]
    scores, truth = torch.cat(parts).numpy(), told.numpy()
    found = []
    for k in range(truth.shape[1]):
        known = ~np.isnan(truth[:, k])
        present = truth[known, k] == 1
        few = min(present.sum(), (~present).sum()) < FEWEST
        found.append(None if few else float(roc_auc_score(present, scores[known, k])))
    return found


def make(folder: Path, px: int, encoders: Encoders, training: Training, epochs: int) -> dict[str, Any]:
    """Teaches the encoder what lies in `folder`/data, and files it as `folder`/encoders/NAME.{pt2,csv,json,yaml}.

    The card is written last. Returns what is in the .json: how many images and patients taught, and what was learned.
    """
    data, out = folder / "data", folder / "encoders"
    images = outsiders(data)
    names = images.columns[3:]
    jpegs = Jpegs(release_folder(data / "manifest.json"), {}, follow_links=True)
    pixels = torch.from_numpy(np.stack([jpegs.packed(path, px).pixels for path in images["path"]]))
    told = torch.from_numpy(images.select(pl.col(names).cast(pl.Float32).fill_null(float("nan"))).to_numpy())
    apart = torch.from_numpy(held_out(images))
    reader = learn(pixels[~apart], told[~apart], encoders, training, epochs)
    taught = images.filter(~held_out(images))
    facts = {
        "images": taught.height,
        "patients": taught["subject_id"].n_unique(),
        "epochs": epochs,
        "held_out_images": int(apart.sum()),
        "auroc": dict(zip(names, tells(reader, pixels[apart], told[apart]), strict=True)),
    }
    out.mkdir(exist_ok=True)
    program, seen = out / f"{NAME}.pt2", out / f"{NAME}.csv"
    with files.atomic(program) as beside, beside.open("wb") as file:
        torch.export.save(exported(reader, px), file)
    files.write_csv(taught.select("dicom_id"), seen)
    files.write_json(facts, out / f"{NAME}.json", digits=9)
    files.write_text(yaml.safe_dump(card(program, seen, px), sort_keys=False), out / f"{NAME}.yaml")
    return facts


def card(program: Path, seen: Path, px: int) -> dict[str, Any]:
    """The entries of its card; 0.5 and 0.25 are what ImageEncoder.normalise takes of grey."""
    entries = {
        "loader": "export",
        "file": str(program.resolve()),
        "sha256": files.sha256(program),
        "px": px,
        "channels": 1,
        "mean": [0.5],
        "std": [0.25],
        "output": "both",
        "pretrained_on": {"mimic_cxr": str(seen.resolve())},
        "seen": ["images", "labels"],
        "source": "python -m tests.benchmarks.encoders",
    }
    assert set(entries) <= {field.name for field in dataclasses.fields(Card)}
    return entries
