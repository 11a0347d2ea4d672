"""Strata in which the gain is looked at again: of stays, by their traits; and of phenotypes, by type and prevalence."""

from __future__ import annotations

import numpy as np
import polars as pl

from pipeline.evaluation.paired import ALL, Stratum
from pipeline.evaluation.scores import in_cohort
from pipeline.strict import read_yaml
from pipeline.tasks import PHENOTYPES_FILE, Task

ICD_VERSIONS = (9, 10)
TERCILES = ("low", "middle", "high")
SAW = "encoder_saw"  # a column of people: the image encoder was frozen, and has seen the patient before


def stay_strata(cohort: str, people: pl.DataFrame) -> dict[Stratum, pl.Expr]:
    """By (stratum, group), which stays: all; with and without an image in base; those coded in each ICD version.

    Where `people` have the column: those whose patients a frozen encoder has seen, and those whom it has not.
    """
    seen = {(SAW, "yes"): pl.col(SAW), (SAW, "no"): ~pl.col(SAW)}
    image = {("has_cxr", "yes"): pl.col("has_cxr"), ("has_cxr", "no"): ~pl.col("has_cxr")}
    return {
        ALL: pl.lit(True),
        **(image if cohort == "base" else {}),
        **{("icd_version", str(version)): pl.col("icd_version") == version for version in ICD_VERSIONS},
        **(seen if SAW in people.columns else {}),
    }


def label_groups(task: Task, people: pl.DataFrame, cohort: str) -> dict[Stratum, list[str]]:
    """By (stratum, group), which phenotypes: by type (acute, chronic, mixed), and by tercile of prevalence.

    Prevalence is that among all stays of the cohort (`people`: a row a stay and fold); of equals the first is lower.
    Empty for tasks with one label.
    """
    if task.kind != "multilabel":
        return {}
    types = {row["slug"]: row["type"] for row in read_yaml(PHENOTYPES_FILE)["phenotypes"]}
    found: dict[Stratum, list[str]] = {}
    for kind in sorted(set(types.values())):
        found["type", kind] = [label for label in task.labels if types[label] == kind]
    stays = people.unique("stay_id").filter(in_cohort(cohort))
    positives = [int(stays[label].sum()) for label in task.labels]
    order = np.argsort(positives, kind="stable")
    for name, places in zip(TERCILES, np.array_split(order, len(TERCILES)), strict=True):
        found["prevalence", name] = [task.labels[place] for place in sorted(places)]
    return found
