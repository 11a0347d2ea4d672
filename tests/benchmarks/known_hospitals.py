"""`python -m tests.benchmarks.known_hospitals SEED...`: verdicts against planted truth, over several hospitals.

For each seed of the synthetic hospital the stages from synthesize to known run in a folder of their own below
work/known-hospitals/VERSION (of the hospital), with the params of `changed`; a hospital takes a quarter of an hour on
two cores, and what is finished there is not run again. Then docs/known-hospitals.csv holds the rows of their known.csv,
and docs/known-hospitals.md how often a verdict was right, wrong or undetermined, by what was attainable.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import polars as pl
import yaml

from pipeline import files
from pipeline.closure import ROOT
from pipeline.estimation.verdicts import GAINS
from pipeline.evaluation.reading import read_table
from pipeline.presentation.text import markdown_table, number, percent
from pipeline.questions.known import rules
from pipeline.questions.known.known import RIGHT, SCHEMA, WRONG
from pipeline.questions.known.tables import COUNTS
from pipeline.synthetic.model import VERSION
from tests.support.inprocess import DATA_STAGES

OUT = ROOT / "docs" / "known-hospitals"
STRATEGIES = (
    "lstm",
    "transformer",
    "resnet",
    "logistic",
    "gbm",
    "late_average",
    "late_fusion",
    "gbm_late",
    "mmtm",
    "medfuse",
)
FOLDS = [0, 1, 2]  # one run tells no luck of training, and nothing is said of it
DATA = ("synthesize", "paths", *DATA_STAGES)
MARGIN = 0.01  # verdicts.margins.auroc of params.yaml
EDGES = (MARGIN, 0.03, 0.06)  # of the attainable gain in AUROC


def changed(params: dict[str, Any], seed: int) -> dict[str, Any]:
    """The scale `study` at 32 px, three folds, twenty-four epochs, phenotypes, few strategies; the hospital's seed.

    Of four hours `umse` reads a variable's latest value there: all values take four times as long.
    """
    params["scale"] = "study"
    params["strategies"]["umse"]["span"] = 4
    params["synthetic"]["seed"] = seed
    params["grid"] = {"strategies": list(STRATEGIES), "tasks": ["phenotype"], "ensembles": []}
    params["scales"]["study"]["images"]["px"] = 32
    params["scales"]["study"]["training"]["max_epochs"] = 24
    params["scales"]["study"]["training"]["folds"] = FOLDS
    return params


def commands() -> list[str]:
    """The stages in order, with their arguments."""
    cells = ["tune"] + [f"train {name}" for name in STRATEGIES] + [f"probe {name}" for name in STRATEGIES]
    return [*DATA, "audit", *cells, "gain", "known"]


def make(seed: int, folder: Path) -> None:
    """Runs the stages in `folder`, unless its known.csv is there."""
    if (folder / "reports/tables/known.csv").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    params = changed(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")), seed)
    files.write_text(yaml.safe_dump(params, sort_keys=False), folder / "params.yaml")
    for stage in commands():
        command = [sys.executable, "-m", *f"stages.{stage}".split()]
        subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


def read(folders: list[Path]) -> pl.DataFrame:
    """known.csv of every seed's folder, with the column `hospital`."""
    frames = [read_table(folder / "reports/tables/known.csv", SCHEMA) for folder in folders]
    return pl.concat(
        [frame.with_columns(hospital=pl.lit(int(at.name))) for at, frame in zip(folders, frames, strict=True)]
    ).select("hospital", *SCHEMA)


def shares(rows: pl.DataFrame) -> list[tuple[Any, ...]]:
    """A row a cohort and interval of the attainable gain: labels, shares of the verdicts, mean found."""
    found = []
    for cohort in rows["cohort"].unique(maintain_order=True):
        for low, high in zip((None, *EDGES), (*EDGES, None), strict=True):
            of = rows.filter(cohort=cohort).drop_nulls("attainable")
            of = of if low is None else of.filter(pl.col("attainable") > low)
            of = of if high is None else of.filter(pl.col("attainable") <= high)
            if not of.height:
                continue
            words = f"up to {high:g}" if low is None else f"above {low:g}" if high is None else f"{low:g} to {high:g}"
            each = [
                of.filter(verdict=GAINS).height,
                *(of.filter(judgement=j).height for j in (RIGHT, WRONG)),
                of.filter(~pl.col("judgement").is_in([RIGHT, WRONG])).height,
            ]
            found.append(
                (
                    cohort,
                    words,
                    of.height,
                    *(percent(round(n / of.height, 2)) for n in each),
                    number(cast(float, of["found"].mean())),
                )
            )
    return found


def read_rules(folders: list[Path]) -> pl.DataFrame:
    """known_rules.csv of every hospital, summed: a row a cohort and rule."""
    every = pl.concat([read_table(folder / "reports/tables/known_rules.csv", rules.SCHEMA) for folder in folders])
    return every.group_by("cohort", "rule", maintain_order=True).sum()


def rule_rows(of_rules: pl.DataFrame) -> list[tuple[Any, ...]]:
    """A row a cohort and rule: how often it was right and wrong."""
    return [
        (row["cohort"], rules.RULES[row["rule"]], *(row[name] for name in COUNTS))
        for row in of_rules.sort("cohort", maintain_order=True).iter_rows(named=True)
    ]


def markdown(rows: pl.DataFrame, of_rules: pl.DataFrame) -> str:
    """docs/known-hospitals.md."""
    header = ["Cohort", "Attainable gain", "Labels", "Says gains", "Right", "Wrong", "Says nothing", "Mean found"]
    seeds = rows["hospital"].unique().sort().to_list()
    return f"""# Verdicts over several hospitals

`python -m tests.benchmarks.known_hospitals {" ".join(map(str, seeds))}`: {len(seeds)} synthetic hospitals
(version {VERSION}) of the scale `study` (32 px, twenty-four epochs), {len(FOLDS)} folds, one seed each;
{", ".join(STRATEGIES)}.

Attainable is what an oracle of both modalities gains over the better oracle of one, in AUROC. The verdict is on the
fusion strategy that validation chose for the label, against the best on the record and the best on the image: right is
"gains" where anything is attainable ("by more than the margin" where more than {MARGIN:g} is), and "no relevant gain"
or "equivalent" where no more than that is; the other words say nothing of it. Labels of a hospital share its patients:
the shares are of labels, not of independent data sets.

{markdown_table(header, shares(rows), numbers_from=2)}
The field's usual rules of claiming a gain, on the very same predictions (docs/reading-the-report.md). Attainable are
labels of which more than {MARGIN:g} is; a gain is right where anything is:

{markdown_table(["Cohort", "Rule", *COUNTS.values()], rule_rows(of_rules), numbers_from=2)}"""


def main() -> None:
    """Makes the hospitals of the seeds, and writes what all finished ones say."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.known_hospitals", description=__doc__)
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--work", type=Path, default=ROOT / "work" / "known-hospitals" / VERSION)
    chosen = parser.parse_args()
    for seed in chosen.seeds:
        make(seed, chosen.work / str(seed))
    done = sorted(path.parents[2] for path in chosen.work.glob("*/reports/tables/known.csv"))
    rows = read(done).sort("hospital", "cohort", maintain_order=True)
    files.write_csv(rows, OUT.with_suffix(".csv"))
    files.write_text(markdown(rows, read_rules(done)), OUT.with_suffix(".md"))


if __name__ == "__main__":
    main()
