"""Raw folders -> the stays that can be answered for, as the data stages would leave them, in a folder of their own.

What is asked of them is what is known 48 hours after admission to the ICU: no rule looks at an outcome, and diagnoses
need not be there.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import polars as pl

from pipeline import files
from pipeline.data.tensors import most_images
from pipeline.embedding.card import read_card
from pipeline.embedding.embed import identity, pictures, write_embeddings
from pipeline.errors import InputError
from pipeline.mimic import cohort
from pipeline.mimic.images import Jpegs, published, write_images
from pipeline.mimic.manifest import build_manifest, summarise
from pipeline.mimic.series import write_series
from pipeline.mimic.tables import ingest
from pipeline.mimic.variables import EVENT_SOURCES, load_variables, needed_itemids
from pipeline.params import INPUT_HOURS, Cohort, Params, Series
from pipeline.strict import build

Block = TypeVar("Block")


class Rules(NamedTuple):
    """What the stays of training were made by: the blocks `cohort` and `series`; images' side in px, most of a stay."""

    cohort: Cohort
    series: Series
    px: int
    per_stay: int


def read_rules(data: Path) -> Rules:
    """Those of the artefacts below `data`. Raises InputError where a file is absent or damaged."""
    pixels = np.load(data / "images/pixels.npy", mmap_mode="r")
    index = pl.read_parquet(data / "images/index.parquet", columns=["rank"])
    return Rules(
        _block(Cohort, data, "cohort"), _block(Series, data, "series"), int(pixels.shape[1]), most_images(index)
    )


def _block(kind: type[Block], data: Path, name: str) -> Block:
    path = data / name / "rules.json"
    try:
        found: Block = build(kind, json.loads(path.read_text(encoding="utf-8")), name)
    except FileNotFoundError:
        raise InputError(f"{path}: not found; make it with `dvc repro {name}`") from None
    except (ValueError, InputError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    return found


def foreseeable(rules: Cohort) -> Cohort:
    """The rules, as far as they can be known after 48 hours.

    Of a stay that must be the admission's only one: that it is the first. The unit at discharge is not asked for, nor
    how long a stay lasts beyond these hours, nor whether the patient survives them by more.
    """
    chosen = rules.rules
    known = dataclasses.replace(
        chosen, stays="first_of_admission" if chosen.stays == "only_of_admission" else chosen.stays, same_unit=False
    )
    return dataclasses.replace(
        rules, presets={rules.preset: known}, min_stay_hours=INPUT_HOURS, alive_at_hours=INPUT_HOURS
    )


def read_stays(params: Params, rules: Rules, folder: Path) -> dict[str, Any]:
    """Writes interim/, cohort/, series/ and images/ of the raw folders of `params.data` to `folder`.

    With the checks of the stages manifest, ingest, cohort, series and images. Returns what became of the raw rows:
    raw (as reports/data/manifest.json), ingest, attrition [{step, stays, subjects}], images; exact counts.
    Raises InputError as they do, and where no stay is left.
    """
    manifest = build_manifest(params.data, outcomes=False)
    itemids = {source: needed_itemids(source) for source in EVENT_SOURCES}
    read = ingest(manifest, itemids, params.ingest, folder / "interim")
    attrition = _write_cohort(foreseeable(rules.cohort), folder)
    write_series(
        interim=folder / "interim",
        stays_file=folder / "cohort/stays.parquet",
        variables=load_variables(rules.series.tier),
        series=rules.series,
        ingest=params.ingest,
        folder=folder / "series",
    )
    images = write_images(
        cxr_file=folder / "cohort/cxr.parquet",
        metadata_file=folder / "interim/cxr_metadata.parquet",
        root=Path(params.data.mimic_cxr),
        px=rules.px,
        settings=dataclasses.replace(params.images, per_stay=rules.per_stay),
        folder=folder / "images",
    )
    return {"raw": summarise(manifest), "ingest": read, "attrition": attrition.to_dicts(), "images": images}


def embed(params: Params, encoder: str, data: Path, folder: Path) -> None:
    """Writes embeddings/ENCODER of the images below `folder`, as those below `data` were made.

    Raises InputError where they cannot be: the encoder's card, code or versions are others now.
    """
    card, made = read_card(encoder), data / "embeddings" / encoder / "facts.json"
    if json.loads(made.read_text(encoding="utf-8"))["identity"] != identity(card):
        raise card.error(f"{made.parent} was made by another card, code or versions; dvc repro embed@{encoder}")
    root = Path(params.data.mimic_cxr)
    images = pictures(folder / "images/index.parquet", folder / "cohort/cxr.parquet")
    sums = published(root, [each.path for each in images]) if params.images.checksums else None
    jpegs = Jpegs(root, sums or {}, params.images.follow_links)
    write_embeddings(images, jpegs, card, params.embedding, folder / "embeddings" / encoder, folder / "shards")


def _write_cohort(rules: Cohort, folder: Path) -> pl.DataFrame:
    """cohort/stays.parquet and cxr.parquet below `folder`; returns the attrition."""
    made = cohort.make(folder / "interim", rules)
    files.write_parquet(made.stays, folder / "cohort/stays.parquet")
    files.write_parquet(made.links.images, folder / "cohort/cxr.parquet")
    return made.attrition
