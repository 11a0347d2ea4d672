"""A made-up set of artefacts, shaped as docs/artefacts.md says: what evaluate and report read, without any training."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.embedding.overlap import TOLD_APART
from pipeline.params import TrainingScale
from pipeline.tasks import get_task, phenotype_slugs
from pipeline.training.grid import run_keys
from pipeline.training.trials import HOURS, TRIALS, TRIALS_SCHEMA

STRENGTH = {"lstm": 0.8, "transformer": 1.0, "resnet": 0.5, "late_fusion": 1.3}
MODALITIES = {
    "lstm": ["ehr"],
    "transformer": ["ehr"],
    "gbm": ["ehr"],
    "resnet": ["cxr"],
    "ehr_presence": ["ehr", "presence"],
    "ehr_metadata": ["ehr", "metadata", "presence"],
}


def training(
    folds: Sequence[int] = (0, 1), seeds: Sequence[int] = (0,), missing: Sequence[float] = (0.0,)
) -> TrainingScale:
    return TrainingScale(("base", "matched"), tuple(folds), tuple(seeds), tuple(missing), 32, 3, 2)


def fabricate(
    root: Path,
    scale: TrainingScale,
    strategies: Sequence[str] = tuple(STRENGTH),
    tasks: Sequence[str] = ("mortality", "phenotype", "los"),
    stays: int = 600,
    folds: int = 5,
    kind: str = "synthetic",
    seed: int = 1,
) -> None:
    """Writes root/data and root/reports/{data,audit.json}."""
    random = np.random.default_rng(seed)
    data = root / "data"
    stay_id = 30_000_000 + np.arange(stays) * 7
    subject_id = 10_000_000 + random.integers(0, int(stays * 0.9), stays)
    has_cxr = random.random(stays) < 0.35
    risk = random.normal(size=stays)
    (data / "cohort").mkdir(parents=True)
    start = datetime.datetime(2150, 1, 1)
    los = np.round(2 + random.exponential(4, stays), 4)
    pl.DataFrame(
        {
            "stay_id": stay_id,
            "subject_id": subject_id,
            "hadm_id": stay_id - 10_000_000,
            "intime": [start + datetime.timedelta(hours=int(i)) for i in range(stays)],
            "los_days": los,
            "age": random.integers(18, 90, stays),
            "has_cxr": has_cxr,
            # of streams of their own, so that what is drawn after them stays the same
            "icd_version": np.random.default_rng([seed, 6]).choice([9, 10], stays, p=[0.6, 0.4]).astype(np.int16),
            # of their own stream, so that what is drawn after them stays the same
            **_traits(np.random.default_rng([seed, 5]), stays),
        }
    ).write_parquet(data / "cohort" / "stays.parquet")
    labels: dict[str, np.ndarray] = {
        "icu_mortality": random.random(stays) < 1 / (1 + np.exp(2 - risk)),
        "hospital_mortality": random.random(stays) < 0.2,
        "los_class": np.digitize(los, [3, 4, 5, 6, 7, 14]).astype(np.int8),
    }
    for i, slug in enumerate(phenotype_slugs()):
        labels[slug] = random.random(stays) < 1 / (1 + np.exp(3 - i / 12 - risk))
    pl.DataFrame({"stay_id": stay_id, **labels}).write_parquet(data / "cohort" / "labels.parquet")
    _hourly(data / "series", np.random.default_rng([seed, 8]), stay_id)
    splits = _splits(stay_id, subject_id, folds)
    splits.write_parquet(data / "splits.parquet")
    pl.DataFrame(schema=TOLD_APART).write_parquet(data / "exposure.parquet")
    for task in tasks:
        for strategy in strategies:
            _cell(data, task, strategy, scale, splits, pl.DataFrame({"stay_id": stay_id, **labels}), has_cxr)
    add_trials(data, {})
    if "resnet" in strategies:
        add_control(data, "resnet", scale, tasks, told=0.0)
    steps = [("all ICU stays", 2 * stays, stays + 40), ("adult", stays + 50, stays - 20), ("alive", "hidden", "hidden")]
    _facts(root, kind, stays, folds, [*steps, ("base", stays, len(set(subject_id)))])


def add_control(
    data: Path,
    strategy: str,
    scale: TrainingScale,
    tasks: Sequence[str],
    told: float,
    untrained: float = 0.0,
    cohorts: Sequence[str] = (),
) -> None:
    """data/probes/STRATEGY/image_control.parquet; `told`: how far apart the trained encoder scores findings and none.

    `untrained` is how far the encoder as it was built does.
    """
    random = np.random.default_rng(7)
    images = pl.read_parquet(data / "cohort" / "stays.parquet").filter("has_cxr").select("stay_id")
    test = pl.read_parquet(data / "splits.parquet").filter(part="test").join(images, on="stay_id", how="semi")
    keys = sorted({(task, key.train_cohort, key.fold, key.seed) for task in tasks for key in run_keys(scale, task)})
    rows = []
    for task, cohort, fold, seed in keys:
        if cohorts and cohort not in cohorts:
            continue
        stays = test.filter(fold=fold).select("stay_id").sort("stay_id")
        for finding in ("edema", "effusion"):
            present = random.random(stays.height) < 0.4
            about = {"task": task, "train_cohort": cohort, "fold": fold, "seed": seed, "finding": finding}
            for encoder, by in (("trained", told), ("untrained", untrained)):
                score = random.normal(size=stays.height) + by * present
                columns = {name: pl.lit(value) for name, value in (about | {"encoder": encoder}).items()}
                rows.append(stays.with_columns(**columns, present=present, score=score))
    path = data / "probes" / strategy / "image_control.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.concat(rows).write_parquet(path)


def add_ensemble(data: Path, name: str, of: str) -> None:
    """data/ensembles/NAME: an ensemble whose predictions are those of the strategy `of`."""
    folder = shutil.copytree(data / "runs" / of, data / "ensembles" / name)
    for history in folder.rglob("history.csv"):
        history.unlink()
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"name": name, "group": "ensemble"}))


def add_trials(data: Path, scores: Mapping[tuple[str, str], Sequence[float | None]]) -> None:
    """data/tuned of the stage `tune`: scores on dev by strategy and task, the highest chosen; {} is an untuned project.

    The n-th trial has n thousandths for its `lr`, trained 10 epochs, and took a quarter of an hour.
    """
    rows, hours = [], {}
    for (strategy, task), found in scores.items():
        best = max(range(len(found)), key=lambda i: -np.inf if found[i] is None else found[i])
        for i, score in enumerate(found):
            settings = {"dropout": 0.1, "hyper": {"lr": (i + 1) / 1000, "depth": 3}, "weight_decay": 0.01}
            rows.append((strategy, task, i + 1, score, i == best, 10, json.dumps(settings)))
        hours.setdefault(strategy, {})[task] = len(found) / 4
    (data / "tuned").mkdir(exist_ok=True)
    pl.DataFrame(rows, schema=TRIALS_SCHEMA, orient="row").write_csv(data / "tuned" / TRIALS)
    (data / "tuned" / HOURS).write_text(json.dumps(hours))


def _hourly(folder: Path, random: np.random.Generator, stay_id: np.ndarray) -> None:
    """hourly.parquet of every second stay, 8 hours each: a number, and a text."""
    charted = np.repeat(stay_id[::2], 8)
    columns = {"stay_id": charted, "hour": np.tile(np.arange(8, dtype=np.int8), len(stay_id[::2]))}
    columns |= {"heart_rate": random.normal(80, 10, len(charted)), "rhythm": np.repeat("SR", len(charted))}
    folder.mkdir()
    pl.DataFrame(columns).write_parquet(folder / "hourly.parquet")


def _traits(random: np.random.Generator, stays: int) -> dict[str, np.ndarray]:
    return {
        "gender": random.choice(["F", "M"], stays),
        "race_group": random.choice(["WHITE", "BLACK", "UNKNOWN", "OTHER"], stays, p=[0.6, 0.25, 0.1, 0.05]),
        "admission_group": random.choice(["EMERGENCY", "ELECTIVE"], stays, p=[0.7, 0.3]),
        "insurance": random.choice(["Medicare", "Other"], stays),
    }


def _splits(stay_id: np.ndarray, subject_id: np.ndarray, folds: int) -> pl.DataFrame:
    group = np.random.default_rng(9).integers(0, 10 * folds, subject_id.max() + 1)[subject_id]
    frames = []
    for fold in range(folds):
        part = np.where(
            group % 10 == 0, "dev", np.where(group % folds == fold, "test", np.where(group % 8 == 3, "val", "train"))
        )
        frames.append(
            pl.DataFrame({"stay_id": stay_id, "fold": fold, "subject_id": subject_id, "part": part}).cast(
                {"fold": pl.Int8}
            )
        )
    return pl.concat(frames).sort("stay_id", "fold")


def _cell(
    data: Path,
    task_name: str,
    strategy: str,
    scale: TrainingScale,
    splits: pl.DataFrame,
    labels: pl.DataFrame,
    has_cxr: np.ndarray,
) -> None:
    task = get_task(task_name)
    random = np.random.default_rng([len(strategy), len(task_name)])
    images = labels.select("stay_id").with_columns(pl.Series("image", has_cxr))
    strength = STRENGTH.get(strategy, 1.0)
    predictions, history = [], []
    for key in run_keys(scale, task_name):
        rows = splits.filter((pl.col("fold") == key.fold) & (pl.col("part") != "train")).join(labels, on="stay_id")
        rows = rows.join(images, on="stay_id").sort("part", "stay_id")
        n = rows.height
        if task.kind == "multiclass":
            logits = random.normal(size=(n, 7)) + strength * np.eye(7)[rows["los_class"].to_numpy()]
            p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        else:
            truth = rows.select(task.labels).to_numpy()
            p = 1 / (1 + np.exp(1.5 - strength * (2 * truth - 1) - random.normal(size=truth.shape)))
            if strategy == "resnet":  # knows nothing where there is no image
                p[~rows["image"].to_numpy()] = truth.mean(0)
        run = key._asdict()
        predictions.append(
            pl.DataFrame(
                {
                    **{name: [value] * n for name, value in run.items()},
                    "part": rows["part"],
                    "test_modality": ["none"] * n,
                    "test_missing": [0.0] * n,
                    "test_mechanism": ["none"] * n,
                    "stay_id": rows["stay_id"],
                    **{f"p_{name}": p[:, i].astype(np.float32) for i, name in enumerate(task.outputs)},
                }
            )
        )
        for epoch in range(1, 4):
            metric = None if task.name == "mortality" and epoch == 2 else 0.3 + 0.05 * epoch * strength
            history.append(
                {
                    **run,
                    "epoch": epoch,
                    "train_loss": 0.7 - 0.1 * epoch * strength,
                    "val_loss": 0.72 - 0.09 * epoch * strength,
                    f"val_{task.monitor}": metric,
                    f"val_{task.monitor}_ehr": metric and metric - 0.1 if strategy == "late_fusion" else None,
                    f"val_{task.monitor}_cxr": metric and metric - 0.2 if strategy == "late_fusion" else None,
                    "lr": 0.001,
                    "monitor": f"val_{task.monitor}",
                    "best": epoch == 3,
                }
            )
    folder = data / "runs" / strategy / task_name
    folder.mkdir(parents=True)
    frame = pl.concat(predictions)
    frame.sort([name for name in frame.columns if not name.startswith("p_")]).write_parquet(
        folder / "predictions.parquet"
    )
    pl.DataFrame(history, infer_schema_length=None).write_csv(folder / "history.csv")
    entries = dict.fromkeys(("Paper", "Idea", "Missing image", "Changed"), f"<b>about</b> {strategy}")
    card = {
        "name": strategy,
        "summary": "one",
        "entries": entries,
        "modalities": MODALITIES.get(strategy, ["cxr", "ehr"]),
    }
    (folder.parent / "card.json").write_text(json.dumps({**card, "missing": "complete", "interaction": "joint"}))


def _facts(root: Path, kind: str, stays: int, folds: int, steps: Sequence[tuple[str, int | str, int | str]]) -> None:
    files = {"hosp/patients.csv.gz": {"bytes": 1234, "sha256": "ab" * 32, "columns": ["subject_id"], "rows": stays}}
    manifest = {
        name: {"root": f"data/raw/synthetic/{name}", "release": f"{name} {kind} 1", "kind": kind, "files": files}
        for name in ("mimiciv", "mimic_cxr")
    }
    (root / "data" / "manifest.json").write_text(json.dumps(manifest))
    facts = root / "reports" / "data"
    facts.mkdir(parents=True)
    (facts / "ingest.json").write_text(
        json.dumps({"rows_read": {"chartevents": 120_000, "labevents": 400}, "left_out": {"<b>bold</b>|pipe": 3}})
    )
    attrition = [dict(zip(("step", "stays", "subjects"), step, strict=True)) for step in steps]
    (facts / "cohort.json").write_text(json.dumps({"attrition": attrition, "groups": {}}))
    (facts / "labels.json").write_text(
        json.dumps({"prevalence": {"shock": 0.11, "septicemia_except_in_labor": 0.2}, "unknown_codes": ["=1+1", "Z99"]})
    )
    balance = [
        {"fold": fold, "part": part, "stays": 100, "subjects": 90, "mortality": 0.1, "has_cxr": 0.3, "los_mean": 5.5}
        for fold in range(folds)
        for part in ("train", "val", "test", "dev")
    ]
    (facts / "splits.json").write_text(json.dumps({"folds": balance}))
    checks = [
        {"name": "no subject in two parts", "passed": True, "detail": f"{stays} stays"},
        {"name": "alive at 48 h", "passed": True, "detail": "<script>alert(1)</script>"},
    ]
    (root / "reports" / "audit.json").write_text(json.dumps({"checks": checks}))
    costs = [
        f"{name},{scale},32,1234567,8310329344,81236480" for name in list(STRENGTH)[1:] for scale in ("demo", "paper")
    ]
    lines = [
        "strategy,scale,px,parameters,flops_with_image,flops_without_image",
        *costs,
        "lstm,a,32,,,",
        "lstm,b,32,,,",
    ]
    (root / "reports" / "cost.csv").write_text("\n".join(lines))
