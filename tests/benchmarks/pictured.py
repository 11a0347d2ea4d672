"""`python -m tests.benchmarks.pictured HOSPITAL NAME...`: what strategies make of images, and of what they show.

HOSPITAL is a folder of tests.benchmarks.known_hospitals. Its data are learned from twice, phenotypes of the matched
cohort, with its params: end to end, and with a vector in each image's place that holds the planted causes that the
image shows (cxr_NAME of data/truth/planted.parquet), as a frozen encoder's: a linear map then stands where the CNN did
(docs/encoders.md). Who finds no synergy of causes that are given finds none for another reason than the CNN.

With `--trials N` settings are chosen first, of as many, on the dev stays (stage tune).

The cells lie beside HOSPITAL, their runs in its run store, where whoever is killed finds them. Test stays are asked
(tests.benchmarks.image_use). docs/image-use.csv gets a row a strategy, way and number of trials, and keeps those of
others; `python -m pipeline.page.strategies` then has them on the cards. Rows of the way `before` are of commit
3a2ff8d's own code and defaults on the same data, asked by tests.benchmarks.image_use, in which `pictured` was
`image_row >= 0` then.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from pipeline import files
from pipeline.closure import ROOT
from pipeline.data.tensors import FILES
from pipeline.page.strategies import IMAGE_USE, WAYS
from pipeline.params import END_TO_END, content
from pipeline.training.run import prepare_torch
from pipeline.training.store import Store, data_fingerprint
from tests.benchmarks.image_use import COHORT, KINDS, TASK, Use, uses

OUT = ROOT / IMAGE_USE
CAUSES = "causes"  # training.image
HOSPITALS = (*FILES, "truth/planted.parquet", "audit.ok")  # of data/; a folder's own are embeddings, tuned, runs
COLUMNS = (
    "strategy",
    "image",
    "trials",
    "runs",
    *(f"{kind}{end}" for kind in (*KINDS, "cost") for end in ("", "_low", "_high")),
)


def changed(params: dict[str, Any], names: Sequence[str], image: str, trials: int) -> dict[str, Any]:
    """Params of the hospital, for the cells of `names` that see images so, with settings that `trials` chose."""
    scale = params["scales"][params["scale"]]
    scale["training"] |= {"cohorts": [COHORT], "train_missing": [0.0]}
    scale["tuning"]["cohorts"], params["tuning"]["trials"] = [COHORT], trials
    params["grid"] = {"strategies": list(names), "tasks": [TASK], "ensembles": []}
    params["training"]["image"] = image
    params["embedding"]["encoders"] = [] if image == END_TO_END else [image]
    return params


def embed_causes(data: Path) -> None:
    """data/embeddings/causes: a vector an image, of what it shows of each planted cause of its stay."""
    index = pl.read_parquet(data / "images/index.parquet").unique("dicom_id").sort("dicom_id")
    shown = pl.read_parquet(data / "truth/planted.parquet").select("stay_id", pl.col("^cxr_.*$"))
    told = index.select("dicom_id", "stay_id").join(shown, on="stay_id", how="left", maintain_order="left")
    folder = data / "embeddings" / CAUSES
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "packed.npy", told.drop("dicom_id", "stay_id").to_numpy().astype(np.float16)[:, None])
    told.select(pl.int_range(pl.len(), dtype=pl.Int32).alias("row"), "dicom_id").write_parquet(folder / "index.parquet")


def make(hospital: Path, names: Sequence[str], image: str, trials: int = 0, changes: Sequence[str] = ()) -> Path:
    """The folder of the cells, each made unless the run store has it; `changes` as `dvc exp run -S` has them."""
    of = [image, *([f"{trials}-trials"] if trials else []), *(re.sub(r"[^\w.]+", "-", each) for each in changes)]
    folder = hospital.with_name("-".join([hospital.name, *of]))
    data = folder / "data"
    for name in HOSPITALS:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        if not (data / name).exists():
            (data / name).symlink_to((hospital / "data" / name).resolve())
    if image == CAUSES:
        embed_causes(data)
    params = content(hospital / "params.yaml", changes)
    files.write_text(yaml.safe_dump(changed(params, names, image, trials), sort_keys=False), folder / "params.yaml")
    own = {"PYTHONPATH": str(ROOT), "FUSION_WORK": str(hospital.resolve() / "work")}
    for stage in ("tune", *(f"train {each}" for each in names)):
        command = [sys.executable, "-m", *f"stages.{stage}".split()]
        subprocess.run(command, cwd=folder, env={**os.environ, **own}, check=True)
    return folder


def bounds(use: Use) -> dict[str, str]:
    """Columns of a row: each kind's AUROC and the cost, with their bounds."""
    return {
        f"{name}{end}": "" if value is None else f"{value:.4f}"
        for name, of in {**use.kinds, "cost": use.cost or (None,) * 3}.items()
        for end, value in zip(("", "_low", "_high"), of, strict=True)
    }


def line(use: Use, image: str, trials: int) -> dict[str, str]:
    """A row of the table."""
    return {
        "strategy": use.strategy,
        "image": image,
        "trials": str(trials),
        "runs": str(use.runs),
        **bounds(use),
    }


def table(found: Sequence[dict[str, str]], written: str = "") -> str:
    """CSV, by strategy, way and trials; of `written`, such a table, the rows stay that are not in `found`."""
    every = (*csv.DictReader(written.splitlines()), *found)
    rows = {(row["strategy"], row["image"], int(row["trials"])): row for row in every}
    ordered = sorted(rows, key=lambda key: (key[0], tuple(WAYS).index(key[1]), key[2]))
    lines = [",".join(rows[key][column] for column in COLUMNS) for key in ordered]
    return "\n".join([",".join(COLUMNS), *lines]) + "\n"


def main() -> None:
    """Makes the cells, asks them, and writes the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.pictured", description=__doc__)
    parser.add_argument("hospital", type=Path)
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--image", choices=(END_TO_END, CAUSES), action="append", help="default: both")
    parser.add_argument("--trials", type=int, default=0, help="default: 0, the settings of params.yaml")
    chosen = parser.parse_args()
    prepare_torch()
    for name in chosen.names:  # a strategy's rows as soon as they are known
        for image in chosen.image or (END_TO_END, CAUSES):
            data = make(chosen.hospital, [name], image, chosen.trials) / "data"
            store = Store(chosen.hospital.resolve() / "work", data_fingerprint(data), data)
            rows = [line(each, image, chosen.trials) for each in uses(data, store, "test", name)]
            written = OUT.read_text(encoding="utf-8") if OUT.is_file() else ""
            files.write_text(table(rows, written), OUT)


if __name__ == "__main__":
    main()
