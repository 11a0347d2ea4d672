"""`python -m pipeline.predict RUN --mimiciv DIR --mimic-cxr DIR --out FILE`: a trained run's answers for new stays.

RUN is what the run store files it under, or a prefix of that; `--list` prints what there is. The stays are read from
raw folders with the checks of the data stages, by the rules and the scaling of the data that the run was trained on,
which must lie in data/. docs/predict.md tells the columns.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from pathlib import Path

import numpy as np
import polars as pl

from pipeline import files
from pipeline.errors import InputError
from pipeline.options import parser
from pipeline.params import END_TO_END, Params, load
from pipeline.prediction import answers, filed, outside, stays
from pipeline.prediction.inputs import new_tensors
from pipeline.tasks import get_task
from pipeline.training.grid import RunSpec
from pipeline.training.store import data_fingerprint, embeddings_digest, weights_digest
from pipeline.work import require_data
from pipeline.work_folder import work_folder

ABOUT = ("stay_id", "subject_id", "hadm_id", "intime")
DIGITS = 9  # decimals of a CSV, and of the account beside it
log = logging.getLogger("predict")


def options() -> argparse.ArgumentParser:
    """The command's options."""
    found = parser("pipeline.predict", "A trained run's answers for the stays of raw folders.")
    found.add_argument("run", nargs="?", metavar="RUN", help="a run of the store: its name, or how that alone begins")
    found.add_argument("--list", action="store_true", dest="listed", help="print the finished runs, and end")
    found.add_argument("--mimiciv", metavar="DIR", help="the folder above hosp/ and icu/")
    found.add_argument("--mimic-cxr", metavar="DIR", help="the folder above files/")
    found.add_argument("--out", metavar="FILE", help=".parquet or .csv; FILE.json tells what it was made of")
    return found


def predict(params: Params, name: str, data: Path, out: Path) -> None:
    """Writes the answers of the run `name` for the stays of `params.data` to `out`, and an account of them beside it.

    `data`: the artefacts of training. Raises InputError, also where the run was trained on others than these.
    """
    if out.suffix not in (".parquet", ".csv"):
        raise InputError(f"--out: {out}: must end in .parquet or .csv")
    run = filed.find(work_folder(), name)
    require_data(data)
    if run.data != data_fingerprint(data):
        raise InputError(
            f"{run.name}: was trained on other data than lie in {data} (another scale, cohort or release); make "
            "its own again: dvc repro audit"
        )
    if not run.current:
        log.warning("%s: made with other code or versions: answers may differ from those it has stored", run.name)
    run = run._replace(spec=_with_encoder(_with_weights(run.spec, params.training.pretrained), run.name, data))
    rules = stays.read_rules(data)
    with files.scratch(out.with_suffix("")) as folder:
        account = stays.read_stays(params, rules, folder)
        for step in account["attrition"]:
            log.info("%d stays of %d subjects: %s", step["stays"], step["subjects"], step["step"])
        if run.spec.training.image != END_TO_END:
            stays.embed(params, run.spec.training.image, data, folder)
        tensors = new_tensors(folder, data, run.spec)
        by, values = answers.judged(run, data), np.load(folder / "series/values.npy")
        found = pl.concat(
            [
                pl.read_parquet(folder / "cohort/stays.parquet", columns=list(ABOUT)),
                answers.frame(answers.answer(run, tensors, data), by, get_task(run.spec.task)),
                outside.missing(values, tensors),
            ],
            how="horizontal",
        )
    compared = outside.compare(values, data, run.spec)
    told = outside.warnings(compared, found.height)
    for line in told:
        log.warning("%s", line)
    files.write_parquet(found, out) if out.suffix == ".parquet" else files.write_csv(found, out, DIGITS)
    account |= {"run": run.name, "spec": dataclasses.asdict(run.spec), "data": run.data, "current": run.current}
    account |= {"temperature": by.temperature, "thresholds": by.thresholds}
    account |= {"warnings": list(told), "variables": compared.to_dicts()}
    files.write_json(account, out.with_name(f"{out.name}.json"), DIGITS)
    log.info("%d stays, %d with an image: %s", found.height, (~found["image_absent"]).sum(), out)


def _with_weights(spec: RunSpec, pretrained: str) -> RunSpec:
    """The spec with a path for the digest of its pretrained weights, where params.yaml names that file."""
    if weights_digest(pretrained) != spec.training.pretrained:
        return spec
    return dataclasses.replace(spec, training=dataclasses.replace(spec.training, pretrained=pretrained))


def _with_encoder(spec: RunSpec, name: str, data: Path) -> RunSpec:
    """The spec with the encoder's name for the digest of the embeddings that it sees, which lie below `data`."""
    if spec.training.image == END_TO_END:
        return spec
    for path in sorted((data / "embeddings").glob("*/packed.npy")):
        if embeddings_digest(path.parent.name, data) == spec.training.image:
            return dataclasses.replace(spec, training=dataclasses.replace(spec.training, image=path.parent.name))
    raise InputError(f"{name}: sees embeddings that are not in {data / 'embeddings'}; make them: dvc repro embed")


def _list(data: Path) -> None:
    runs, unread = filed.every(work_folder())
    there = data_fingerprint(data) if (data / "audit.ok").is_file() else ""
    if not runs and not unread:
        print(f"no finished run in {work_folder() / 'runs'}: dvc repro makes them", file=sys.stderr)
        return
    rows = filed.table(runs, there)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # `| head` has seen enough; Python would say so once more on its way out
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if unread:
        print(f"{unread} more were filed by code that knew other knobs", file=sys.stderr)


def main() -> None:
    """Predicts, or lists."""
    logging.basicConfig(level=logging.INFO, format="predict: %(message)s", stream=sys.stderr)
    arguments = options().parse_args()
    try:
        if arguments.listed:
            return _list(Path(arguments.data))
        for option in ("run", "mimiciv", "mimic_cxr", "out"):
            if not getattr(arguments, option):
                shown = "RUN" if option == "run" else f"--{option.replace('_', '-')}"
                raise InputError(f"{shown}: missing; --help tells more")
        params = load(arguments.params, arguments.changes)
        raw = dataclasses.replace(params.data, mimiciv=arguments.mimiciv, mimic_cxr=arguments.mimic_cxr)
        predict(dataclasses.replace(params, data=raw), arguments.run, Path(arguments.data), Path(arguments.out))
    except InputError as error:
        sys.exit(f"predict: error: {error}")


if __name__ == "__main__":
    main()
