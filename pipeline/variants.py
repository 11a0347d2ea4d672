"""`python -m pipeline.variants [--data data] [--params params.yaml] [--csv]`: what each variant of the cohort leaves.

A row a variant: the presets as params.yaml has them, then every choice of stays × transfers × minimum length × views ×
hours before the ICU, with the other rules of params.yaml. Counted from data/interim by the rules of the stage cohort;
the charted values are read once, whatever the number of variants.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from pipeline.errors import InputError
from pipeline.mimic.cohort import apply_rules, describe_stays, rules, stays_with_vital
from pipeline.mimic.cxr_links import link_images
from pipeline.mimic.labels import died_in_icu
from pipeline.mimic.variables import load_all
from pipeline.params import Cohort, CohortPreset, load

STAYS: tuple[typing.Any, ...] = typing.get_args(typing.get_type_hints(CohortPreset)["stays"])
SAME_UNIT = (True, False)
MIN_STAY_HOURS = (48.0, 72.0)
VIEWS = (("AP", "PA"), ("AP",))
HOURS_BEFORE = (0.0, 6.0, 24.0)  # 24: as in DDL-CXR

# Third-party notes on the paper (Yin et al. 2026, arXiv 2602.23614): its cohort code is not public.
CAREBENCH = (
    "To compare with, not a result of this project: CareBench reports 26,947 stays (base) and 7,149 (matched: with an "
    "image) on MIMIC-IV 2.2."
)
INTERIM = ("patients", "admissions", "icustays", "cxr_metadata", "chart")


def variants(cohort: Cohort) -> Iterator[tuple[str | None, Cohort]]:
    """The variants in the order of the table, each with the name of its preset (None in the grid)."""
    for name in cohort.presets:
        yield name, dataclasses.replace(cohort, preset=name)
    grid = itertools.product(STAYS, SAME_UNIT, MIN_STAY_HOURS, VIEWS, HOURS_BEFORE)
    for stays, same_unit, min_stay_hours, views, before in grid:
        preset = CohortPreset(stays=stays, same_unit=same_unit)
        yield (
            None,
            dataclasses.replace(
                cohort,
                preset="grid",
                presets={"grid": preset},
                min_stay_hours=min_stay_hours,
                cxr_views=views,
                cxr_hours_before=before,
            ),
        )


def count(every: pl.DataFrame, metadata: pl.DataFrame, cohort: Cohort) -> pl.DataFrame:
    """The table: preset, the five choices, and stays, subjects, icu_deaths, matched, matched_icu_deaths.

    `every` has the columns of `describe_stays`, `metadata` those of cxr_metadata.parquet.
    """
    stays = every.with_columns(icu_death=died_in_icu())
    images: dict[tuple[object, ...], pl.Series] = {}
    rows = []
    for name, variant in variants(cohort):
        window = (variant.cxr_views, variant.cxr_hours_before)
        if window not in images:  # which images a stay has depends on no other stay
            images[window] = link_images(metadata, stays, variant).images["stay_id"].unique()
        chosen, _ = apply_rules(stays, rules(variant))
        matched = chosen.filter(pl.col("stay_id").is_in(images[window].implode()))
        rows.append(
            {
                "preset": name,
                "stays_rule": variant.rules.stays,
                "same_unit": variant.rules.same_unit,
                "min_stay_hours": variant.min_stay_hours,
                "cxr_views": "+".join(variant.cxr_views),
                "cxr_hours_before": variant.cxr_hours_before,
                "stays": chosen.height,
                "subjects": chosen["subject_id"].n_unique(),
                "icu_deaths": int(chosen["icu_death"].sum()),
                "matched": matched.height,
                "matched_icu_deaths": int(matched["icu_death"].sum()),
            }
        )
    return pl.DataFrame(rows)


def table(data: Path, cohort: Cohort) -> pl.DataFrame:
    """`count` of the tables in `data`/interim; InputError where one is not there."""
    paths = {name: data / "interim" / f"{name}.parquet" for name in INTERIM}
    for path in paths.values():
        if not path.is_file():
            raise InputError(f"{path}: not found; make it with `dvc repro ingest`")
    patients, admissions, icustays, metadata = (pl.read_parquet(paths[name]) for name in INTERIM[:-1])
    vital = stays_with_vital(pl.scan_parquet(paths["chart"]), icustays, load_all())
    return count(describe_stays(patients, admissions, icustays, vital), metadata, cohort)


def _cell(value: bool | float | str | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}".removesuffix(".0") if isinstance(value, int | float) else value or ""


def markdown(counts: pl.DataFrame) -> str:
    """The table for people: numbers to the right."""
    numeric = [dtype.is_numeric() for dtype in counts.dtypes]
    lines = [[name.replace("_", " ") for name in counts.columns], ["---:" if right else "---" for right in numeric]]
    lines += [[_cell(value) for value in row] for row in counts.iter_rows()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Prints the table; with --csv the line beneath it goes to stderr."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.variants", description="What each variant leaves.")
    parser.add_argument("--params", default="params.yaml", help="the file to read (default params.yaml)")
    parser.add_argument("--data", default="data", help="the folder that holds interim/ (default data)")
    parser.add_argument("--csv", action="store_true", help="CSV instead of Markdown")
    arguments = parser.parse_args()
    try:
        counts = table(Path(arguments.data), load(arguments.params).cohort)
    except InputError as error:
        sys.exit(f"variants: error: {error}")
    if arguments.csv:
        print(counts.write_csv(), end="")
        print(CAREBENCH, file=sys.stderr)
    else:
        print(f"{markdown(counts)}\n\n{CAREBENCH}")


if __name__ == "__main__":
    main()
