"""`python -m tests.benchmarks.encoders`: frozen image encoders beside the CNN that is trained with each strategy.

Below work/encoders/VERSION (of the synthetic hospital) `hospital` holds the data of a hospital of its own, an encoder
that is taught there (tests.benchmarks.findings_encoder) and the embeddings; beside it a folder for each source of the
image holds the runs of STRATEGIES on the phenotypes, matched cohort, by the real stages, from one run store. What is
finished there is not made again. Then docs/encoders-study.csv and .md tell, by what was planted, how well each does
with each source, the paired difference to training end to end, and what an epoch takes.

Sizes follow from what an hour of a busy machine gives, and were set before any score was seen.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from pipeline import files
from pipeline.closure import ROOT
from pipeline.estimation.bootstrap import Floats
from pipeline.estimation.variance import Estimate, estimate
from pipeline.evaluation.cells import read_people
from pipeline.evaluation.paired import ALL, Run, over_labels, read_cells, scored
from pipeline.evaluation.scores import Sampler, estimate_interval
from pipeline.params import END_TO_END, Params, load
from pipeline.presentation.text import markdown_table, number, plural, with_interval
from pipeline.synthetic.model import PHENOTYPES, VERSION
from pipeline.synthetic.studies import FINDINGS
from pipeline.tasks import get_task
from tests.benchmarks import findings_encoder
from tests.benchmarks.image_use import COHORT, CONFIDENCE, KINDS, TASK
from tests.support.inprocess import DATA_STAGES

OUT = ROOT / "docs" / "encoders-study"
READY = "efficientnet-lite0"
SOURCES = (END_TO_END, READY, findings_encoder.NAME)
STRATEGIES = ("transformer", "resnet", "late_fusion", "medfuse", "drfuse")
METRIC = "auroc"
DATA = ("synthesize", *(name for name in DATA_STAGES if name != "exposure"))  # which each source has of its own
OWN = ("raw", "runs", "tuned", "probes", "exposure.parquet")  # of data/: not the hospital's
ROUNDS = 5  # of measuring an epoch; the least counts
COLUMNS = ("strategy", "image", "badge", "seen_of_test", "seconds_per_epoch", "kind", "auroc", "low", "high")
AGAINST = ("difference", "difference_low", "difference_high")


@dataclasses.dataclass(frozen=True)
class Size:
    """Of the hospital and of training: of runs, and of the encoder that is made here."""

    patients: int = 8000
    image_px: int = 128
    px: int = 64
    epochs: int = 20
    encoder_epochs: int = 30
    folds: int = 3

    @property
    def numbers(self) -> list[int]:
        """The folds'."""
        return list(range(self.folds))


def changed(params: dict[str, Any], size: Size, source: str, hospital: Path) -> dict[str, Any]:
    """The scale `study` with other sizes: few folds, the matched cohort, phenotypes; the source of the image."""
    params["scale"] = "study"
    raw = hospital.resolve() / "data/raw/synthetic"
    params["data"] |= {"mimiciv": str(raw / "mimiciv"), "mimic_cxr": str(raw / "mimic-cxr-jpg")}
    params["grid"] = {"strategies": list(STRATEGIES), "tasks": [TASK], "ensembles": []}
    params["embedding"]["encoders"] = list(SOURCES[1:])
    params["training"]["image"] = source
    scale = params["scales"]["study"]
    scale["synthetic"] = {"patients": size.patients, "image_px": size.image_px}
    scale["images"]["px"] = size.px
    scale["training"] |= {"cohorts": [COHORT], "folds": size.numbers, "max_epochs": size.epochs}
    return params


def stages(folder: Path, *commands: str) -> None:
    """Runs stages in `folder`, one after the other, but for those that have ended well there; one run store for all."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FUSION_WORK": str(folder.resolve().parent / "store")}
    for command in commands:
        done = folder / "done" / command.replace(" ", "-")
        if not done.is_file():
            name, *arguments = command.split()
            subprocess.run(
                [sys.executable, "-m", f"stages.{name}", *arguments], cwd=folder, env=environment, check=True
            )
            files.write_text("", done)


def prepare(folder: Path, size: Size, source: str, hospital: Path) -> Params:
    """`folder` with its params.yaml, which are returned."""
    params = changed(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")), size, source, hospital)
    files.write_yaml(params, folder / "params.yaml")
    return load(folder / "params.yaml")


def make_hospital(folder: Path, size: Size) -> None:
    """Data, the encoder that is taught here, embeddings."""
    params = prepare(folder, size, END_TO_END, folder)
    stages(folder, *DATA)
    (folder / "encoders").mkdir(exist_ok=True)
    shutil.copy(ROOT / f"encoders/{READY}.yaml", folder / "encoders")
    if not (folder / f"encoders/{findings_encoder.NAME}.yaml").is_file():
        encoders = params.get("scales.encoders")
        findings_encoder.make(folder, size.px, encoders, params.training, size.encoder_epochs)
    stages(folder, *(f"embed {name}" for name in SOURCES[1:]))


def make_runs(folder: Path, size: Size, source: str, hospital: Path) -> None:
    """The runs with this source of the image, on the hospital's data, and who was seen by the encoder."""
    prepare(folder, size, source, hospital)
    (folder / "data").mkdir(exist_ok=True)
    links = {folder / "encoders": hospital / "encoders"}
    links |= {folder / "data" / path.name: path for path in hospital.glob("data/[!.]*") if path.name not in OWN}
    for link, target in links.items():
        if not link.is_symlink():
            link.symlink_to(target.resolve())
    stages(folder, "exposure", "tune", *(f"train {name}" for name in STRATEGIES), "probe resnet")


def seconds(folders: dict[str, Path], rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """By strategy and source: processor seconds of an epoch of fold 0, its validation included; the least of some.

    All in this process, in turn. Strategies that look at no image are measured once.
    """
    import torch

    from pipeline.data.batches import Batches
    from pipeline.data.inputs import HOURS
    from pipeline.data.tensors import load_fold
    from pipeline.mimic.variables import load_variables
    from pipeline.training.cell import read_runs
    from pipeline.training.loop import fit
    from pipeline.training.run import prepare_torch, untrained
    from pipeline.training.store import Store, data_fingerprint

    prepare_torch()
    task, cases = get_task(TASK), []
    for source, folder in folders.items():
        data = folder / "data"
        store = Store(folder.resolve().parent / "store", data_fingerprint(data), data)
        tensors = load_fold(data, 0, task, load_variables("core"), "mcar", HOURS, image=source)
        for name in STRATEGIES:
            spec = read_runs(data / "runs" / name, store)[0]
            slow = dataclasses.replace(spec.training, checkpoint_seconds=1e9)
            cases.append((name, source, dataclasses.replace(spec, training=slow, max_epochs=1, patience=1), tensors))
    found: dict[str, dict[str, float]] = {name: {} for name in STRATEGIES}
    for _ in range(rounds):
        for name, source, spec, tensors in sorted(cases, key=lambda case: STRATEGIES.index(case[0])):
            model, device = untrained(spec, tensors), torch.device("cpu")
            if "cxr" not in model.modalities and source != END_TO_END:
                continue
            batches = Batches(tensors, device, model.modalities, model.every_image)
            with tempfile.TemporaryDirectory() as beside:
                start = time.process_time()
                fit(model, tensors, batches, spec, task, Path(beside) / "checkpoint", lambda *_: None)
                spent = time.process_time() - start
            found[name][source] = min(spent, found[name].get(source, spent))
    return found


def runs(folder: Path, params: Params, strategy: str, sampler: Sampler, people: pl.DataFrame) -> tuple[Run, ...]:
    """The test runs of a strategy, of stays with an image."""
    training = params.get("scales.training")
    whole = {COHORT: {ALL: pl.lit(True)}}
    ((_, cell),) = read_cells(folder / "data", get_task(TASK), strategy, training, people, sampler, whole)
    return cell.runs


def by_kind(of: tuple[Run, ...]) -> dict[str, Floats]:
    """Draws [R, 1 + D] of the mean AUROC over the labels of each kind."""
    draws = scored(of, get_task(TASK), ALL)
    labels = {kind: [name for name, effect in PHENOTYPES.items() if effect.kind == kind] for kind in KINDS}
    return {kind: over_labels(draws, names, METRIC) for kind, names in labels.items()}


def table(folders: dict[str, Path], epochs: dict[str, dict[str, float]]) -> pl.DataFrame:
    """A row a strategy, source and kind: COLUMNS, and AGAINST the same strategy end to end, in pairs.

    A strategy that looks at no image has one row a kind, with the source null.
    """
    params = load(folders[END_TO_END] / "params.yaml")
    people = read_people(folders[END_TO_END] / "data", [get_task(TASK)], params.get("scales.training").folds)
    settings = params.get("scales.evaluation")
    sampler = Sampler(people, settings.draws, params.evaluation.seed)
    rows = []
    for name in STRATEGIES:
        base: dict[str, Floats] = {}
        for source in epochs[name]:
            told = json.loads((folders[source] / "reports/data/exposure.json").read_text())["encoders"].get(source, {})
            each = runs(folders[source], params, name, sampler, people)
            draws, of_folds = by_kind(each), [run.fold for run in each]
            base = base or draws
            for kind, values in draws.items():
                own = estimate(values, of_folds, sampler.test_share)
                apart = (
                    estimate(values - base[kind], of_folds, sampler.test_share) if values is not base[kind] else None
                )
                rows.append(
                    {
                        "strategy": name,
                        "image": source if len(epochs[name]) > 1 else None,
                        "badge": told.get("badge"),
                        "seen_of_test": _seen(told),
                        "seconds_per_epoch": epochs[name][source],
                        "kind": kind,
                        **dict(zip(COLUMNS[6:], (own.value, *estimate_interval(METRIC, own, CONFIDENCE)), strict=True)),
                        **dict(zip(AGAINST, _difference(apart), strict=True)),
                    }
                )
    return pl.DataFrame(rows, schema={name: _type(name) for name in (*COLUMNS, *AGAINST)})


def _type(column: str) -> Any:
    return pl.String if column in ("strategy", "image", "badge", "seen_of_test", "kind") else pl.Float64


def _seen(told: dict[str, Any]) -> str | None:
    """How many of the tested subjects, over the folds, the encoder has seen; as the stage exposure tells it."""
    counts = [row["seen"] for row in told.get("parts", []) if row["part"] == "test"]
    if not counts:
        return None
    return str(sum(counts)) if all(isinstance(count, int) for count in counts) else "not told"


def _difference(found: Estimate | None) -> tuple[float | None, ...]:
    return (None, None, None) if found is None else (found.value, *found.interval(CONFIDENCE))


def controls(folders: dict[str, Path]) -> pl.DataFrame:
    """source, finding, auroc: what the image encoder of `resnet` tells of findings on test stays, the mean over folds.

    As the probe asked it: a logistic regression on the pooled features. `as built`: the CNN before training.
    """
    from sklearn.metrics import roc_auc_score

    found = []
    for source, folder in folders.items():
        rows = pl.read_parquet(folder / "data/probes/resnet/image_control.parquet")
        for (finding, encoder), each in rows.group_by("finding", "encoder", maintain_order=True):
            if encoder == "untrained" and source != END_TO_END:
                continue
            aurocs = [
                roc_auc_score(of["present"], of["score"])
                for _, of in each.group_by("fold", maintain_order=True)
                if of["present"].n_unique() == 2
            ]
            name = "as built" if encoder == "untrained" else source
            found.append((name, finding, float(np.mean(aurocs)) if aurocs else None))
    return pl.DataFrame(found, schema={"source": pl.String, "finding": pl.String, "auroc": pl.Float64}, orient="row")


TITLES = {END_TO_END: "end to end", None: "–"}


def score_rows(rows: pl.DataFrame) -> list[tuple[str, ...]]:
    """Rows of the table of scores."""
    found = []
    for (name, source), of in rows.group_by("strategy", "image", maintain_order=True):
        kinds = {row["kind"]: row for row in of.iter_rows(named=True)}
        first = of.row(0, named=True)
        cells = [with_interval(*(kinds[kind][key] for key in COLUMNS[6:])) for kind in KINDS]
        found.append((str(name), TITLES.get(source, str(source)), first["badge"] or "–", *cells))
    return found


def difference_rows(rows: pl.DataFrame) -> list[tuple[str, ...]]:
    """Rows of the table of differences and of seconds."""
    found = []
    for name in rows["strategy"].unique(maintain_order=True):
        own = rows.filter(strategy=name)
        whole = own["seconds_per_epoch"][0]
        for source in own["image"].drop_nulls().unique(maintain_order=True):
            of = own.filter(image=source)
            kinds = {row["kind"]: row for row in of.iter_rows(named=True)}
            spent = of["seconds_per_epoch"][0]
            cells = ["–" if source == END_TO_END else with_interval(*(kinds[k][key] for key in AGAINST)) for k in KINDS]
            faster = "–" if source == END_TO_END else number(whole / spent, 1)
            found.append((name, TITLES.get(source, source), *cells, number(spent, 3), faster))
    return found


def markdown(rows: pl.DataFrame, told: pl.DataFrame, facts: dict[str, Any]) -> str:
    """docs/encoders-study.md; `facts` as `facts_of` gives them."""
    size, taught = facts["size"], facts["taught"]
    shown = [taught["auroc"].get(name) for name, (cause, *_) in FINDINGS.items() if cause]
    learned = sorted(value for value in shown if value is not None)
    learned = f"between {number(learned[0])} and {number(learned[-1])}" if learned else "not estimable"
    findings = told["finding"].unique(maintain_order=True).to_list()
    control_rows = [
        (TITLES.get(source, str(source)), *(number(of.filter(finding=each)["auroc"].item()) for each in findings))
        for (source,), of in told.group_by("source", maintain_order=True)
    ]
    record = rows.filter(pl.col("image").is_null()).select("strategy", "seconds_per_epoch").unique().rows()
    alone = "".join(f"; `{name}`, the record alone: {number(spent)}" for name, spent in record)
    scores = markdown_table(["Strategy", "Image", "Badge", *KINDS.values()], score_rows(rows), 3)
    header = ["Strategy", "Image", *KINDS.values(), "s an epoch", "× as fast"]
    varies = "patients and folds" if size.folds > 1 else "patients; one run tells no luck of training"
    return f"""# Frozen encoders beside training end to end

`python -m tests.benchmarks.encoders --folds {size.folds}`: a synthetic hospital (version {VERSION}) of
{size.patients:,} patients, images of {size.image_px} px packed at {size.px}; {plural(size.folds, "fold")}, one seed;
{facts["trained"]} stays with an image are trained on, {facts["tested"]} are tested. Phenotypes, matched cohort. The
scale `study` but for these sizes and {size.epochs} epochs; learning rates are those of params.yaml, for all sources of
the image alike. Sizes follow from what an hour of a busy machine gives, and were set before any score was seen; nothing
was chosen by one.

- `{READY}`: ImageNet's weights, never shown a radiograph; sees the JPEG at 224 px.
- `{findings_encoder.NAME}`: the very CNN that strategies train end to end, at the same px, taught the
  {len(taught["auroc"])} findings of reports (CheXpert's labels) on {taught["images"]:,} frontal images of
  {taught["patients"]:,} patients who have no stay in the cohort: {taught["epochs"]} epochs, of which the last counts.
  Its card names the list of just these images (`pretrained_on: mimic_cxr: LIST.csv`). On
  {taught["held_out_images"]:,} images of other such patients the AUROC of a finding that the hospital draws by what the
  picture shows is {learned}.

Mean AUROC over the labels of a kind, 95 % interval ({varies}), test stays with an image:

{scores}
The same less end to end, in pairs (same patients, folds and seeds); and what an epoch takes, its validation included:
seconds of one core, the least of {ROUNDS}, all in turn in one process{alone}:

{markdown_table(header, difference_rows(rows), 2)}
How well the pooled features of the image encoder of `resnet` tell a finding (the report's image control: a logistic
regression, asked about test stays; mean AUROC over folds):

{markdown_table(["Image", *findings], control_rows)}
Of the tested the encoders have seen, as the stage exposure tells it: {facts["seen"]}.
"""


def facts_of(folders: dict[str, Path], hospital: Path, size: Size, rows: pl.DataFrame) -> dict[str, Any]:
    """What the page says of the hospital and of the encoder taught there."""
    people = read_people(folders[END_TO_END] / "data", [], size.numbers).filter("has_cxr")
    taught = json.loads((hospital / f"encoders/{findings_encoder.NAME}.json").read_text(encoding="utf-8"))
    trained = people.filter(part="train").group_by("fold").len()["len"]
    seen = rows.select("image", "seen_of_test", "badge").drop_nulls("badge").unique(maintain_order=True)
    few, many = (f"{count:,}" for count in (trained.min(), trained.max()))
    return {
        "size": size,
        "taught": taught,
        "trained": few if few == many else f"{few} to {many}",
        "tested": f"{people.filter(part='test').height:,}",
        "seen": "; ".join(f"`{image}` {count} ({badge})" for image, count, badge in seen.iter_rows()),
    }


def study(folder: Path, size: Size) -> tuple[pl.DataFrame, str]:
    """Makes what is not made, and returns the table and the page."""
    hospital, folders = folder / "hospital", {source: folder / f"{source}-{size.folds}" for source in SOURCES}
    make_hospital(hospital, size)
    for source in SOURCES:
        make_runs(folders[source], size, source, hospital)
    measured = folder / "seconds.json"  # of fold 0, however many there are
    if not measured.is_file():
        files.write_json(seconds(folders), measured, digits=6)
    epochs = json.loads(measured.read_text(encoding="utf-8"))
    epochs = {name: {source: epochs[name][source] for source in SOURCES if source in epochs[name]} for name in epochs}
    rows = table(folders, {name: epochs[name] for name in STRATEGIES})
    return rows, markdown(rows, controls(folders), facts_of(folders, hospital, size, rows))


def main() -> None:
    """Makes the study, and writes its table and page."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.encoders", description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "work" / "encoders" / VERSION)
    parser.add_argument("--folds", type=int, default=Size().folds, help="more of them go on from fewer")
    chosen = parser.parse_args()
    rows, page = study(chosen.folder, Size(folds=chosen.folds))
    files.write_csv(rows, OUT.with_suffix(".csv"))
    files.write_text(page, OUT.with_suffix(".md"))


if __name__ == "__main__":
    main()
