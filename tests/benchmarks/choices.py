"""`python -m tests.benchmarks.choices HOSPITAL KEY=VALUE NAME...`: what a change of params makes of strategies, on dev.

HOSPITAL is a folder of tests.benchmarks.known_hospitals. Phenotypes of the matched cohort are learned in its first
fold, with its params and with the change, and the dev stays of that fold are asked (tests.benchmarks.image_use):
whoever chooses a default by this sees no test score. Cells and runs lie where tests.benchmarks.pictured has them.
docs/choices.csv gets a row a strategy without the change and one with it, and keeps the others.
"""

from __future__ import annotations

import argparse
import csv
import functools
import operator
from collections.abc import Sequence
from pathlib import Path

from pipeline import files
from pipeline.closure import ROOT
from pipeline.params import END_TO_END, content
from pipeline.training.run import prepare_torch
from pipeline.training.store import Store, data_fingerprint
from tests.benchmarks.image_use import KINDS, Use, uses
from tests.benchmarks.pictured import bounds, make

OUT = ROOT / "docs" / "choices.csv"
COLUMNS = (
    "change",
    "strategy",
    "value",
    *(f"{kind}{end}" for kind in (*KINDS, "cost") for end in ("", "_low", "_high")),
)


def line(use: Use, change: str, value: str) -> dict[str, str]:
    """A row of the table; `change`: the key of params."""
    return {"change": change, "strategy": use.strategy, "value": value, **bounds(use)}


def table(found: Sequence[dict[str, str]], written: str = "") -> str:
    """CSV, by change, strategy and value; of `written`, such a table, the rows stay that are not in `found`."""
    every = (*csv.DictReader(written.splitlines()), *found)
    rows = {tuple(row[column] for column in COLUMNS[:3]): row for row in every}
    lines = [",".join(rows[key][column] for column in COLUMNS) for key in sorted(rows)]
    return "\n".join([",".join(COLUMNS), *lines]) + "\n"


def main() -> None:
    """Makes the cells, asks them, and writes the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.choices", description=__doc__)
    parser.add_argument("hospital", type=Path)
    parser.add_argument("change", metavar="KEY=VALUE", help="as `dvc exp run -S` has it")
    parser.add_argument("names", nargs="+", metavar="NAME")
    chosen = parser.parse_args()
    prepare_torch()
    params = content(chosen.hospital / "params.yaml")
    first = f"scales.{params['scale']}.training.folds=[{params['scales'][params['scale']]['training']['folds'][0]}]"
    key, _, value = chosen.change.partition("=")
    default = str(functools.reduce(operator.getitem, key.split("."), params))
    for name in chosen.names:
        for now in (default, value):
            folder = make(chosen.hospital, [name], END_TO_END, changes=[first, f"{key}={now}"])
            store = Store(chosen.hospital.resolve() / "work", data_fingerprint(folder / "data"), folder / "data")
            rows = [line(each, key, now) for each in uses(folder / "data", store, "dev", name)]
            files.write_text(table(rows, OUT.read_text(encoding="utf-8") if OUT.is_file() else ""), OUT)


if __name__ == "__main__":
    main()
