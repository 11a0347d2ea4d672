"""The structural model: latent causes, and how strongly each phenotype, death and length of stay depend on them.

Every admission carries the latent causes below, independent of each other and of age, sex, race, admission type and
era. The EHR shows some of them, the radiograph others, both show a few. A phenotype is drawn from a logistic model of
at most two causes; its *kind* says which modality can know it. Everything here is arithmetic on arrays: drawing tables
and pictures is left to the other modules. docs/synthetic-hospital.md has the same in words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from pipeline.params import Synthetic
from pipeline.synthetic.streams import Floats, sigmoid
from pipeline.tasks import LOS_EDGES, phenotype_slugs

VERSION = "1.2"
Kind = Literal["ehr_only", "cxr_only", "complementary", "synergistic", "redundant", "noise"]


@dataclass(frozen=True)
class Cause:
    """A latent cause, with mean 0 and variance 1: normal, or on two levels and on the higher one with chance `share`.

    Around its level it varies normally by `spread`; with a spread of 0 it has two values.
    """

    seen_in: Literal["ehr", "cxr", "both"]
    meaning: str
    share: float | None = None
    spread: float = 1.0

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Values of `count` admissions."""
        if self.share is None:
            return rng.standard_normal(count)
        low, high = self.levels
        level = np.where(rng.random(count) < self.share, high, low)
        return level + self.spread * rng.standard_normal(count) if self.spread else level

    @property
    def levels(self) -> tuple[float, float]:
        """The two levels' values (causes with a share)."""
        share = self.share or 0.5
        scale = ((1 - self.spread**2) / (share * (1 - share))) ** 0.5
        return -share * scale, (1 - share) * scale


CAUSES: dict[str, Cause] = {
    "circulation": Cause("ehr", "low blood pressure, fast heart, high lactate"),
    "inflammation": Cause("ehr", "fever, fast heart and breathing, high white count"),
    "kidney": Cause("ehr", "little urine, high creatinine and urea"),
    "consciousness": Cause("ehr", "low Glasgow coma scores", share=0.5, spread=0.4),
    "glycaemia": Cause("ehr", "high glucose"),
    "rhythm": Cause("ehr", "atrial fibrillation and ectopy in the charted rhythm"),
    "heart_size": Cause("cxr", "width of the heart"),
    "aorta": Cause("cxr", "width of the aortic knob and of the aorta's border"),
    "effusion": Cause("cxr", "fluid over the diaphragm, with a meniscus"),
    "opacity": Cause("cxr", "a patch in the middle and lower zone of one lung", share=0.5, spread=0.4),
    "hyperinflation": Cause("cxr", "long dark lungs over a flat diaphragm"),
    "air": Cause("cxr", "a pneumothorax: line and empty rim", share=0.18, spread=0.0),
    "gas_exchange": Cause("both", "fast breathing, low saturation, ventilation; diffuse haze of both lungs"),
    "overload": Cause("both", "wide pulse pressure, somewhat low saturation; haze around both hila"),
    "pacing": Cause("both", "a pacemaker: paced rhythm; generator and lead", share=0.25, spread=0.0),
}


@dataclass(frozen=True)
class Effect:
    """How a label depends on causes: log-odds per standard deviation, or of the sign of the product of two causes."""

    kind: Kind
    prevalence: float
    causes: dict[str, float]
    interaction: tuple[str, str, float] | None = None


# On two levels each, since the sign of a product of two normal causes is lost to noise wherever one is near 0; and the
# same pair for all four phenotypes, so that as many labels teach it.
SYNERGY = ("consciousness", "opacity", 4.0)
PHENOTYPES: dict[str, Effect] = {
    "acute_and_unspecified_renal_failure": Effect("ehr_only", 0.36, {"kidney": 2.3}),
    "acute_cerebrovascular_disease": Effect("ehr_only", 0.14, {"consciousness": 2.2}),
    "acute_myocardial_infarction": Effect("synergistic", 0.28, {}, SYNERGY),
    "cardiac_dysrhythmias": Effect("ehr_only", 0.38, {"rhythm": 2.4}),
    "chronic_kidney_disease": Effect("complementary", 0.24, {"kidney": 1.5, "heart_size": 1.5}),
    "chronic_obstructive_pulmonary_disease_and_bronchiectasis": Effect("cxr_only", 0.20, {"hyperinflation": 2.4}),
    "complications_of_surgical_procedures_or_medical_care": Effect("synergistic", 0.32, {}, SYNERGY),
    "conduction_disorders": Effect("redundant", 0.15, {"pacing": 1.5}),
    "congestive_heart_failure_nonhypertensive": Effect("complementary", 0.30, {"circulation": 1.5, "heart_size": 1.7}),
    "coronary_atherosclerosis_and_other_heart_disease": Effect("cxr_only", 0.34, {"aorta": 2.3}),
    "diabetes_mellitus_with_complications": Effect("ehr_only", 0.14, {"glycaemia": 2.2}),
    "diabetes_mellitus_without_complication": Effect("noise", 0.20, {}),
    "disorders_of_lipid_metabolism": Effect("noise", 0.40, {}),
    "essential_hypertension": Effect("noise", 0.42, {}),
    "fluid_and_electrolyte_disorders": Effect("redundant", 0.40, {"overload": 2.3}),
    "gastrointestinal_hemorrhage": Effect("synergistic", 0.26, {}, SYNERGY),
    "hypertension_with_complications_and_secondary_hypertension": Effect(
        "complementary", 0.22, {"circulation": -1.5, "aorta": 1.6}
    ),
    "other_liver_diseases": Effect("synergistic", 0.30, {}, SYNERGY),
    "other_lower_respiratory_disease": Effect("cxr_only", 0.16, {"opacity": 2.3}),
    "other_upper_respiratory_disease": Effect("noise", 0.10, {}),
    "pleurisy_pneumothorax_pulmonary_collapse": Effect("cxr_only", 0.18, {"effusion": 2.0, "air": 1.0}),
    "pneumonia_except_that_caused_by_tuberculosis_or_sexually_transmitted_disease": Effect(
        "complementary", 0.22, {"inflammation": 1.5, "opacity": 1.8}
    ),
    "respiratory_failure_insufficiency_arrest_adult": Effect("redundant", 0.34, {"gas_exchange": 2.4}),
    "septicemia_except_in_labor": Effect("ehr_only", 0.24, {"inflammation": 2.3}),
    "shock": Effect("ehr_only", 0.16, {"circulation": 2.4}),
}
# Of patients who are in the ICU, and alive, 48 h after they came.
ICU_MORTALITY = Effect(
    "complementary", 0.135, {"circulation": 1.5, "consciousness": 1.2, "gas_exchange": 0.9, "opacity": 0.9}
)
# Length of stay = 2 days + a lognormal number of days: log of the median, effects on the log, spread of the log.
LOS_MEDIAN, LOS_CAUSES, LOS_SPREAD = np.log(1.5), {"gas_exchange": 0.5, "inflammation": 0.45, "effusion": 0.35}, 0.85
LOS_LIMIT_DAYS = 28.0

# One group's radiographs tell less of the causes: women's, as if breast tissue hid some findings and feigned others.
DISPARITY_ATTRIBUTE, DISPARITY_GROUP, DISPARITY_LOSS = "gender", "F", 0.45
# What the record and the picture show is the cause and, for causes that are not two-valued, noise of this spread.
EHR_NOISE, CXR_NOISE = 0.30, 0.25

# Absence of a radiograph: log-odds of there being one, by admission group; none before 2011 or after 2016 (the years of
# MIMIC-CXR). IMAGE_BASE is the log-odds where neither counts, IMAGE_COVERED the same inside of the covered years.
IMAGE_YEARS = (2011, 2016)
IMAGE_NEVER_AFTER = 2019  # whatever the strength: those whom MIMIC-IV 3.1 adds are in no picture archive
IMAGE_BASE, IMAGE_COVERED = -0.35, 0.70
IMAGE_ADMISSION = {"EMERGENCY": 0.6, "OBSERVATION": -0.4, "ELECTIVE": -1.8}


def _offsets(effect: Effect, signal: float) -> list[tuple[float, float]]:
    """Values, with their chances, of what the levels of causes and the interaction add to the log-odds."""
    values = [(0.0, 1.0)]
    for name, slope in effect.causes.items():
        share = CAUSES[name].share
        if share is not None:
            low, high = CAUSES[name].levels
            steps = ((slope * signal * low, 1 - share), (slope * signal * high, share))
            values = [(value + step, p * q) for value, p in values for step, q in steps]
    if effect.interaction:
        step = effect.interaction[2] * signal
        values = [(value + sign * step, p / 2) for value, p in values for sign in (-1, 1)]
    return values


@cache
def _quadrature() -> tuple[Floats, Floats]:
    """Nodes and weights for means over a standard normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    return nodes, weights / weights.sum()


def intercept(effect: Effect, signal: float) -> float:
    """The log-odds at average causes for which the label's prevalence over all admissions is `effect.prevalence`.

    Gauss-Hermite quadrature over the normal parts of causes, exact sums over levels and interaction, bisection.
    """
    nodes, weights = _quadrature()
    slopes = [slope * CAUSES[name].spread for name, slope in effect.causes.items()]
    spread = signal * float(np.sqrt(sum(slope**2 for slope in slopes)))
    low, high = -30.0, 30.0
    for _ in range(80):
        middle = (low + high) / 2
        mean = sum(p * float(weights @ sigmoid(middle + step + spread * nodes)) for step, p in _offsets(effect, signal))
        low, high = (middle, high) if mean < effect.prevalence else (low, middle)
    return (low + high) / 2


def probability(effect: Effect, causes: dict[str, Floats], signal: float, extra: Floats | float = 0.0) -> Floats:
    """The planted probability of a label, from the causes of each admission; `extra` log-odds are of a trap."""
    count = len(next(iter(causes.values())))
    logit = np.full(count, intercept(effect, signal)) + extra
    for name, slope in effect.causes.items():
        logit += signal * slope * causes[name]
    if effect.interaction:
        first, second, slope = effect.interaction
        logit += signal * slope * np.sign(causes[first] * causes[second])
    return sigmoid(logit)


def los_location(causes: dict[str, Floats], signal: float) -> Floats:
    """Mean of the log of (length of stay in days - 2)."""
    return np.asarray(LOS_MEDIAN + signal * sum(slope * causes[name] for name, slope in LOS_CAUSES.items()))


def los_probabilities(causes: dict[str, Floats], signal: float) -> Floats:
    """Planted probabilities of the length-of-stay classes, [N, 7], of stays of at least 48 h."""
    cuts = np.log(np.maximum(np.asarray(LOS_EDGES[1:]) - LOS_EDGES[0], 1e-9))
    normal = np.vectorize(lambda z: 0.5 * (1 + math.erf(z / math.sqrt(2))), otypes=[float])
    below = normal((cuts[None, :] - los_location(causes, signal)[:, None]) / LOS_SPREAD)
    edges = np.concatenate([np.zeros((len(below), 1)), below, np.ones((len(below), 1))], axis=1)
    return np.asarray(np.diff(edges, axis=1))


def image_signal(gender: np.ndarray[Any, Any], disparity: float) -> Floats:
    """How far a patient's radiographs follow the causes (a correlation): 1, and less in the disadvantaged group."""
    return np.where(gender == DISPARITY_GROUP, max(0.0, 1 - DISPARITY_LOSS * disparity), 1.0)


def image_probability(
    group: np.ndarray[Any, Any], year: np.ndarray[Any, Any], strength: float, extra: Floats | float = 0.0
) -> Floats:
    """The chance of a frontal radiograph in the window of a stay of 48 h and more, by admission group and year.

    strength 0: the same for all stays; 1: none outside of the covered years; in between, and above 1 for the admission
    groups, in proportion. `extra` log-odds are of a trap.
    """
    share = min(strength, 1.0)
    effect = np.vectorize(IMAGE_ADMISSION.__getitem__, otypes=[float])(group)
    inside = sigmoid(IMAGE_BASE + share * (IMAGE_COVERED - IMAGE_BASE) + strength * effect + extra)
    covered = (year >= IMAGE_YEARS[0]) & (year <= IMAGE_YEARS[1])
    return np.where(covered, inside, (1 - share) * inside) * (year <= IMAGE_NEVER_AFTER)


def describe(params: Synthetic) -> dict[str, Any]:
    """The whole model with its coefficients at these params: the content of data/truth/model.json."""

    def effect(item: Effect) -> dict[str, Any]:
        out: dict[str, Any] = {
            "kind": item.kind,
            "prevalence": item.prevalence,
            "intercept": intercept(item, params.signal),
            "causes": {name: slope * params.signal for name, slope in item.causes.items()},
        }
        if item.interaction:
            first, second, slope = item.interaction
            out["interaction"] = {"sign_of_product": [first, second], "log_odds": slope * params.signal}
        return out

    return {
        "version": VERSION,
        "causes": {
            name: {"seen_in": cause.seen_in, "meaning": cause.meaning, "share": cause.share, "spread": cause.spread}
            for name, cause in CAUSES.items()
        },
        "noise": {"ehr": EHR_NOISE, "cxr": CXR_NOISE},
        "phenotypes": {slug: effect(PHENOTYPES[slug]) for slug in phenotype_slugs()},
        "icu_mortality": effect(ICU_MORTALITY),
        "los": {
            "kind": "complementary",
            "log_median_days_over_2": float(LOS_MEDIAN),
            "causes": {name: slope * params.signal for name, slope in LOS_CAUSES.items()},
            "spread": LOS_SPREAD,
        },
        "disparity": {
            "attribute": DISPARITY_ATTRIBUTE,
            "group": DISPARITY_GROUP,
            "share_of_signal_shown": max(0.0, 1 - DISPARITY_LOSS * params.disparity),
        },
        "image_missingness": {
            "strength": params.image_missingness,
            "years": list(IMAGE_YEARS),
            "log_odds_by_admission_group": {k: v * params.image_missingness for k, v in IMAGE_ADMISSION.items()},
        },
    }
