"""Traps: faults of real data, planted on demand, that a pipeline must handle and a comparison must not fall for.

Each has a knob under `synthetic.traps`; at 0 it changes no byte. They touch when people come and die, which codes are
billed, which radiographs are taken and in which view; the places that plant them ask this file for numbers. The planted
probabilities (hospital.planted) are those of what is in the files: p_SLUG of the *coded* label, p_image of the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.params import Synthetic, Traps
from pipeline.synthetic import model
from pipeline.synthetic.streams import Floats, stream

DAY = 86400
# Share of a phenotype's ICD-10 admissions without a code of it at strength 1. Measured on the open MIMIC-IV demo: what
# backward GEM tables, which MedFuse and CareBench use for ICD-10, lose of five phenotypes (25 of 42 rhythms kept, ...).
CODING_LOSS = {
    "cardiac_dysrhythmias": 1 - 25 / 42,
    "diabetes_mellitus_with_complications": 1 - 37 / 60,
    "disorders_of_lipid_metabolism": 1 - 58 / 69,
    "pleurisy_pneumothorax_pulmonary_collapse": 1 - 1 / 10,
    "respiratory_failure_insufficiency_arrest_adult": 1 - 6 / 23,
}
# A phenotype of kind `noise`, and the log-odds between admissions with and without an image in the window.
PRESENCE_PHENOTYPE, PRESENCE_LOG_ODDS = "essential_hypertension", 2.4
# Sick: at least this many standard deviations of what the record alone can know of the risk of death.
SEVERITY_CAUSES, SEVERITY_BOUND = {"circulation": 1.5, "consciousness": 1.2}, -0.5
FINDING, FINDING_LOG_ODDS = "effusion", 1.5  # of an image, per standard deviation of a cause that only images show
PAIR_YEARS = (model.IMAGE_YEARS[0] + 1, model.IMAGE_YEARS[1] - 1)  # both stays of a pair lie in the years of MIMIC-CXR


def kept_codes(traps: Traps, slug: str, icd10: NDArray[np.bool_]) -> Floats:
    """coding_loss: the chance that an admission with the phenotype is billed for it; 1 in ICD-9."""
    return np.where(icd10, 1 - traps.coding_loss * CODING_LOSS.get(slug, 0.0), 1.0)


def presence_log_odds(traps: Traps, slug: str, pictured: NDArray[np.bool_]) -> Floats:
    """label_by_image_presence: what is added to a phenotype's log-odds, by whether there is an image."""
    effect = traps.label_by_image_presence * PRESENCE_LOG_ODDS if slug == PRESENCE_PHENOTYPE else 0.0
    return np.where(pictured, effect / 2, -effect / 2)


def finding_log_odds(traps: Traps, stays: pl.DataFrame) -> Floats:
    """image_by_finding: what is added to the log-odds of an image; missing, then, not at random."""
    return np.asarray(traps.image_by_finding * FINDING_LOG_ODDS * stays[f"z_{FINDING}"].to_numpy())


def sick(admissions: pl.DataFrame) -> NDArray[np.bool_]:
    """view_by_severity: whose radiographs are taken in bed; of causes that no radiograph shows."""
    scale = np.sqrt(sum(weight**2 for weight in SEVERITY_CAUSES.values()))
    severity = sum(weight * admissions[f"z_{name}"].to_numpy() for name, weight in SEVERITY_CAUSES.items()) / scale
    return np.asarray(severity > SEVERITY_BOUND)


def early_readmissions(params: Synthetic, admissions: pl.DataFrame, stays: pl.DataFrame) -> pl.DataFrame:
    """image_of_two_stays: second admissions that are entered whole days too early, as if in the first one's ICU stay.

    A row a pair: hadm_id of the second, `first` (that of the first), `until` (the end of the first one's 48 h) and
    `days`. Both admissions have one ICU stay, of 48 h or more; the later one comes to begin within a day of the other.
    `admissions` and `stays` are those of people.populate, whose hadm_id ends with the number of the admission.
    """
    single = stays.filter(pl.len().over("hadm_id") == 1).filter("long")
    both = admissions.join(single.select("hadm_id", "intime"), on="hadm_id").select(
        "subject_id", "hadm_id", "year", "intime", (pl.col("hadm_id") % 10).alias("number")
    )
    pairs = (
        both.filter(pl.col("number") == 1, pl.col("year").is_between(*PAIR_YEARS))
        .join(both.filter(pl.col("number") == 2), on="subject_id", suffix="_again")
        .sort("subject_id")
        .select(
            pl.col("hadm_id_again").alias("hadm_id"),
            pl.col("hadm_id").alias("first"),
            (pl.col("intime") + 2 * DAY).alias("until"),
            ((pl.col("intime_again") - pl.col("intime")) // DAY).alias("days"),
        )
    )
    chosen = stream(params.seed, "early readmissions").random(pairs.height) < params.traps.image_of_two_stays
    return pairs.filter(pl.Series(chosen, dtype=pl.Boolean))


def planted(traps: Traps) -> dict[str, float]:
    """The traps that are set to another strength than a documented hospital's."""
    return {name: value for name, value in vars(traps).items() if value != getattr(Traps(), name)}


def describe(traps: Traps) -> dict[str, dict[str, Any]]:
    """For data/truth/model.json: of each trap that is planted, its strength and what it does."""
    details: dict[str, dict[str, Any]] = {
        "dead_before_48h": {"share_of_last_stays": traps.dead_before_48h},
        "coding_loss": {
            "lost_share_in_icd10": {slug: traps.coding_loss * share for slug, share in CODING_LOSS.items()},
            "p": "of the coded label; divide by 1 - lost share for the disease itself",
        },
        "label_by_image_presence": {
            "phenotype": PRESENCE_PHENOTYPE,
            "log_odds_present_over_absent": traps.label_by_image_presence * PRESENCE_LOG_ODDS,
        },
        "view_by_severity": {
            "share_of_frontal_studies": traps.view_by_severity,
            "severity": SEVERITY_CAUSES,
            "ap_from_standard_deviations": SEVERITY_BOUND,
        },
        "image_by_finding": {"cause": FINDING, "log_odds": traps.image_by_finding * FINDING_LOG_ODDS},
        "image_of_two_stays": {"share_of_eligible_readmissions": traps.image_of_two_stays, "p_image_of_both_stays": 1},
    }
    return {name: {"strength": strength} | details[name] for name, strength in planted(traps).items()}
