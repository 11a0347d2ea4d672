"""A small synthetic hospital with given params of its own, taken through the data stages in this process."""

import dataclasses
from pathlib import Path

from pipeline.params import Synthetic
from tests.support.inprocess import DATA_STAGES, run, synthesize, write_params

TO_SERIES = DATA_STAGES[: DATA_STAGES.index("series") + 1]
TO_AUDIT = (*DATA_STAGES, "audit")


def prepare(folder: Path, patients: int, stages: tuple[str, ...], params: Synthetic, **cohort: object) -> Path:
    """Write the hospital and params.yaml to `folder`, run `stages` there, and return the folder.

    `cohort`: keys of the block `cohort`.
    """
    changes = {"synthetic": dataclasses.asdict(params), **{f"cohort.{key}": value for key, value in cohort.items()}}
    write_params(folder, patients, params.seed, changes)
    synthesize(folder)
    run(folder, *stages)
    return folder
