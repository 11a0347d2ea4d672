"""The planted truth of the synthetic hospital, and what record and radiograph show of it: read here alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.errors import InputError
from pipeline.estimation.bootstrap import Floats
from pipeline.evaluation.reading import read_columns, there
from pipeline.tasks import get_task

SEEN = {"ehr": ("ehr",), "cxr": ("cxr",), "both": ("ehr", "cxr")}  # by an oracle
STAY = "los"  # the name in the model of length of stay, which has a probability a class
P_STAY = tuple(f"p_{name}" for name in get_task(STAY).outputs)


@dataclass(frozen=True)
class Effect:
    """What is planted for a label: its kind, and its causes; `pair` interacts.

    `by_presence` and `by_view`: a trap lets that there is an image, or its being taken in bed, tell of the label.
    """

    kind: str
    causes: tuple[str, ...]
    pair: tuple[str, str] | None
    by_presence: bool = False
    by_view: bool = False


@dataclass(frozen=True)
class Truth:
    """The structural model and, a row a stay, its probabilities, what modalities show; if it tells, `portable`."""

    effects: dict[str, Effect]
    planted: pl.DataFrame


def synthetic(data: Path) -> bool:
    """Whether both sources of the manifest are the synthetic hospital, whose truth lies beside them."""
    manifest = json.loads(there(data / "manifest.json").read_text(encoding="utf-8"))
    kinds = [source.get("kind") for source in manifest.values() if isinstance(source, dict)]
    return bool(kinds) and set(kinds) == {"synthetic"}


def read_truth(data: Path, labels: Sequence[str]) -> Truth:
    """The planted truth of `labels`, or of STAY. Raises InputError where a file, a column or a label is absent."""
    path = there(data / "truth" / "model.json")
    model = json.loads(path.read_text(encoding="utf-8"))
    effects = {}
    for label in labels:
        effect = model["phenotypes"].get(label) or model.get(label)
        if effect is None:
            raise InputError(f"{path}: no {label}")
        pair = effect.get("interaction", {}).get("sign_of_product")
        causes = tuple(sorted(effect["causes"]))
        traps = model.get("traps", {})
        severity = traps.get("view_by_severity", {}).get("severity", {})
        effects[label] = Effect(
            kind=effect["kind"],
            causes=causes,
            pair=tuple(pair) if pair else None,
            by_presence=traps.get("label_by_image_presence", {}).get("phenotype") == label,
            by_view=bool(set(severity) & {*causes, *(pair or ())}),
        )
    header = pl.read_parquet_schema(data / "truth" / "planted.parquet")
    shown = [name for name in header if name.startswith(("ehr_", "cxr_"))]
    told = [name for label in labels for name in (P_STAY if label == STAY else (f"p_{label}",))]
    columns = ["stay_id", *told, *shown]
    planted = read_columns(data / "truth" / "planted.parquet", columns)
    if any(effect.by_view for effect in effects.values()):
        views = read_columns(data / "cohort" / "cxr.parquet", ["stay_id", "rank", "view"]).filter(rank=1, view="AP")
        bedside = views["stay_id"].cast(planted["stay_id"].dtype)
        planted = planted.with_columns(portable=pl.col("stay_id").is_in(bedside.implode()))
    return Truth(effects, planted)


def features(people: pl.DataFrame, effect: Effect, seen: Sequence[str]) -> Floats:
    """What the modalities `seen` (ehr, cxr) show of a label, [n, features]; no column: nothing.

    What a radiograph shows is 0, the mean, where there is none. Of a pair that interacts it is the product that counts,
    and its sign: each alone tells nothing. Where pixels tell of the causes, the weight of everything depends on whether
    there is an image, and on whose: women's tell less (the radiograph shows sex).
    """
    image = people["has_cxr"].cast(pl.Float64).to_numpy()
    shown = {
        (modality, cause): people[f"{modality}_{cause}"].to_numpy() * (image if modality == "cxr" else 1.0)
        for modality in seen
        for cause in (*effect.causes, *(effect.pair or ()))
        if f"{modality}_{cause}" in people.columns
    }
    columns = [values for (_, cause), values in shown.items() if cause in effect.causes]
    pair = [values for (_, cause), values in shown.items() if effect.pair and cause in effect.pair]
    if len(pair) == 2:
        columns += [pair[0] * pair[1], np.sign(pair[0] * pair[1])]
    told = []
    if "cxr" in seen:
        pixels = any(modality == "cxr" and (cause in effect.causes or len(pair) == 2) for modality, cause in shown)
        if pixels:
            told = [image, image * (people["gender"] == "F").cast(pl.Float64).to_numpy()]
        elif effect.by_presence:
            told = [image]
        if effect.by_view:
            told.append(people["portable"].cast(pl.Float64).to_numpy())
        columns = [*columns, *told, *(each * by for each in columns for by in told)]
    return np.stack(columns, axis=1) if columns else np.zeros((people.height, 0))
