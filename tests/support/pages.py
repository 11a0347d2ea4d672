"""What the tests of the page share."""

import json

import polars as pl

from pipeline.params import Grid
from pipeline.tasks import get_task, phenotype_slugs

SMALL = {"grid": Grid(("lstm",), ("los",))}  # fewer figures, where a test does not look at them

AGGREGATES = ("ensemble", "evaluate", "gain", "known", "compare", "robustness", "reliance", "fairness")


def plant_noise(data):
    """A truth beside the artefacts: every label is noise."""
    noise = {"kind": "noise", "causes": {}}
    (data / "truth").mkdir()
    model = {"phenotypes": dict.fromkeys(phenotype_slugs(), noise), "icu_mortality": noise, "los": noise}
    (data / "truth" / "model.json").write_text(json.dumps(model))
    known = {f"p_{name}": 0.3 for name in (*phenotype_slugs(), "icu_mortality")}
    known |= {f"p_{name}": 1 / 7 for name in get_task("los").outputs}
    stays = pl.read_parquet(data / "cohort" / "stays.parquet").select("stay_id")
    stays.with_columns(pl.lit(p).alias(name) for name, p in known.items()).write_parquet(data / "truth/planted.parquet")
