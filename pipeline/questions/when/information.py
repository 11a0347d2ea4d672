"""When could fusion help, without a strategy: what record and image tell of a label, each alone, either, both, in bits.

The partial information decomposition (pipeline.estimation.information) of the scores that validation chose on the
record alone and on the image alone, label by label, on test stays: unique to one, redundant, synergistic. What both
tell together is what the pair of these scores tells, or the score of the chosen fusion strategy where that tells more
(the least that tells both): a label that only an interaction knows leaves no trace in the single scores. Scores are cut
into quarters of the stays, without a look at labels.

Kinds are named by theory, with no threshold. A modality informs where its information's lower bound is above 0. Where
none does, the label is synergistic if both together inform, else nothing is shown; where one does, it is that one's.
Where both do, sources that are independent share nothing beyond what their synergy outweighs (their mutual information
given the label is at least that without it), so that redundancy above synergy means one source seen twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from pipeline.estimation.bootstrap import Floats
from pipeline.estimation.information import Counts, counted, entropy, information, union, unique
from pipeline.estimation.metrics import mass_bins
from pipeline.estimation.variance import Estimate, estimate, moderated
from pipeline.evaluation.paired import ALL, Run
from pipeline.questions.when.contest import Side, read_sides
from pipeline.questions.when.source import ONE_RUN, ROLES, Source, number, rarer, share_tested, strata_told
from pipeline.tasks import get_task

QUARTERS = 4
EHR_ONLY, IMAGE_ONLY, COMPLEMENTARY = "ehr_only", "cxr_only", "complementary"
SYNERGISTIC, REDUNDANT, NOISE = "synergistic", "redundant", "noise"
TITLES = {
    EHR_ONLY: "EHR only",
    IMAGE_ONLY: "image only",
    COMPLEMENTARY: "complementary",
    SYNERGISTIC: "synergistic",
    REDUNDANT: "redundant",
    NOISE: "nothing shown",
}
QUANTITIES = ("ehr", "image", "both", "unique_ehr", "unique_image", "redundant", "synergistic")
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("task", "cohort", "label", "ehr_strategy", "image_strategy", "fusion_strategy"), pl.String),
    "entropy": pl.Float64,
    **{f"{name}{end}": pl.Float64 for name in QUANTITIES for end in ("", "_low", "_high")},
    "kind": pl.String,
    "runs": pl.Int64,
    "note": pl.String,
    "n": pl.String,
    "positives": pl.String,
}


def decompose(ehr: Run, image: Run, fusion: Run, label: int) -> dict[str, Floats]:
    """By quantity and `entropy`, [1 + D] bits, of one label in one run of three sides."""
    keep = ehr.inside[ALL]
    labels, rows = ehr.truth[keep, label].astype(bool), ehr.at[keep]
    of_ehr, of_image, of_fusion = (mass_bins(run.scores[keep, label], QUARTERS) for run in (ehr, image, fusion))
    pair = counted(of_ehr * QUARTERS + of_image, QUARTERS**2, labels, rows, ehr.draws)
    record, pixels = (_margin(pair, axis) for axis in (1, 0))
    both = union(counted(of_fusion, QUARTERS, labels, rows, ehr.draws), pair)
    own = unique(record, pixels)
    alone, other = information(record), information(pixels)
    return {
        "entropy": entropy(pair),
        "ehr": alone,
        "image": other,
        "both": both,
        "unique_ehr": own,
        "unique_image": other - alone + own,
        "redundant": alone - own,
        "synergistic": both - other - own,
    }


def _margin(pair: Counts, axis: int) -> Counts:
    """Counts by the bin of one of a pair of scores; `axis` is the other one's."""
    stays, positives = (each.reshape(QUARTERS, QUARTERS, -1).sum(axis=axis) for each in pair)
    return Counts(stays, positives)


def named(found: Mapping[str, Estimate], confidence: float) -> str:
    """The kind of a label from the estimates of its quantities, two-sided `confidence`."""

    def informs(name: str) -> bool:
        low = found[name].interval(confidence, unbiased=True)[0]
        return low is not None and low > 0

    if informs("ehr") and informs("image"):
        shared, joint = (found[name].value - found[name].bias for name in ("redundant", "synergistic"))
        return REDUNDANT if shared > joint else COMPLEMENTARY
    if informs("ehr"):
        return EHR_ONLY
    if informs("image"):
        return IMAGE_ONLY
    return SYNERGISTIC if informs("both") else NOISE


def information_table(known: Source) -> pl.DataFrame:
    """information.csv: a row a binary label, by task and cohort in which validation chose all three sides.

    Information is the estimate less its bias, that of counts of few stays, as the draws show it; it may lie below 0.
    The kind is null of a label with fewer than `least_positives` of the rarer outcome.
    """
    rows = []
    for task in (get_task(name) for name in known.grid.tasks):
        if task.kind == "multiclass":
            continue
        for cohort, (_, sides) in read_sides(known, task).items():
            if not set(ROLES) <= set(sides):
                continue
            told = strata_told(known.people, task, cohort)[ALL]
            fewer = rarer(known.people, task, cohort, pl.lit(True))
            share = share_tested(known.people, cohort)
            estimates = [_of_label(sides, j, share) for j in range(len(task.labels))]
            for label, found in zip(task.labels, _together(estimates), strict=True):
                row: dict[str, Any] = {"task": task.name, "cohort": cohort, "label": label}
                row |= {f"{role}_strategy": sides[role].choice[label] for role in ROLES}
                row |= {"entropy": number(found["entropy"].value), "n": told.n, "positives": told.positives[label]}
                for name in QUANTITIES:
                    low, high = found[name].interval(known.rule.confidence, unbiased=True)
                    row |= {f"{name}_low": low, f"{name}_high": high}
                    row[name] = number(found[name].value - found[name].bias)
                known_enough = found["both"].known and fewer[label] >= known.rule.least_positives
                row["kind"] = named(found, known.rule.confidence) if known_enough else None
                row["runs"] = found["both"].runs
                row["note"] = ONE_RUN if found["both"].one_run else None
                rows.append(row)
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _of_label(sides: Mapping[str, Side], label: int, test_share: float) -> dict[str, Estimate]:
    ehr, image, fusion = (sides[role].runs for role in ROLES)
    each = [decompose(*run, label) for run in zip(ehr, image, fusion, strict=True)]
    folds = [run.fold for run in ehr]
    found = {}
    for name in ("entropy", *QUANTITIES):
        values = np.array([of[name] for of in each]) if each else np.zeros((0, 1))  # without a test stay
        found[name] = estimate(values, folds, test_share)
    return found


def _together(estimates: list[dict[str, Estimate]]) -> list[dict[str, Estimate]]:
    """The same, the few runs of all labels and quantities telling of luck together."""
    told = iter(moderated([of[name] for of in estimates for name in QUANTITIES]))
    return [{**of, **{name: next(told) for name in QUANTITIES}} for of in estimates]
