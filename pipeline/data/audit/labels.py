"""Leaks by labels: labels that the records do not bear out, and inputs that give them away."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from pipeline.data.audit.artefacts import Array, Artefacts, Leak, died_at, leak_of
from pipeline.tasks import LOS_EDGES

OUTCOMES = {
    *("outtime", "los", "los_days", "los_class", "last_careunit", "dischtime", "discharge_location", "edouttime"),
    *("deathtime", "died_at", "dod", "hospital_expire_flag", "icu_mortality", "hospital_mortality"),
    *("icd_code", "icd_version"),
}
ALIKE_STAYS = 10  # in each of two classes, where an input takes one value a class
APART_STAYS = 50  # in each class, where its values only lie apart
CHANCE = 1e-10
FIRST = 256


def _of_cohort(a: Artefacts, labels: list[str]) -> pl.DataFrame:
    """The raw ICU stays of the cohort beside some of their labels, those as `LABEL_made`."""
    made = a.labels.select("stay_id", *(pl.col(name).alias(f"{name}_made") for name in labels))
    return a.icustays.join(a.stays.select("stay_id"), on="stay_id", how="semi").join(made, on="stay_id")


def mortality_contradicts_admissions(a: Artefacts) -> Leak | None:
    """icu_mortality that is not "died in [intime, outtime]" or hospital_mortality that is not hospital_expire_flag;
    recounted from interim/icustays and interim/admissions."""
    names = ["icu_mortality", "hospital_mortality"]
    frame = _of_cohort(a, names).join(
        a.admissions.select("hadm_id", "hospital_expire_flag", died_at=died_at()), on="hadm_id", how="left"
    )
    died = (pl.col("died_at") >= pl.col("intime")) & (pl.col("died_at") <= pl.col("outtime"))
    truth = {"icu_mortality": died, "hospital_mortality": pl.col("hospital_expire_flag") == 1}
    return next(
        (
            leak
            for name in names
            if (leak := leak_of(name, frame.filter(pl.col(f"{name}_made").ne_missing(truth[name].fill_null(False)))))
        ),
        None,
    )


def los_contradicts_times(a: Artefacts) -> Leak | None:
    """los_class that is not the class of outtime - intime; recounted in whole microseconds from interim/icustays."""
    frame = _of_cohort(a, ["los_class"])
    length = (pl.col("outtime") - pl.col("intime")).dt.total_microseconds()
    edges = [round(edge * 86_400_000_000) for edge in LOS_EDGES]
    passed = pl.sum_horizontal((length >= edge).cast(pl.Int64) for edge in edges) - 1
    return leak_of("los_class", frame.filter(pl.col("los_class_made").cast(pl.Int64).ne_missing(passed)))


def phenotypes_contradict_diagnoses(a: Artefacts) -> Leak | None:
    """A phenotype that does not follow from the codes of the stay's own admission: recounted from interim/diagnoses by
    the map of codes, one phenotype after the other."""
    from pipeline.mimic.phenotypes import phenotype_categories

    code = pl.col("icd_code").str.strip_chars().str.to_uppercase().str.replace_all(".", "", literal=True)
    coded = a.diagnoses.select("hadm_id", pl.col("icd_version").cast(pl.Int64), code).join(
        a.codes.select(pl.col("icd_version").cast(pl.Int64), "icd_code", "ccs"), on=["icd_version", "icd_code"]
    )
    categories = phenotype_categories()
    frame = _of_cohort(a, list(categories))
    for slug, category in categories.items():
        holders = coded.filter(pl.col("ccs") == category)["hadm_id"].unique()
        truth = pl.col("hadm_id").is_in(holders.to_list())
        if leak := leak_of(slug, frame.filter(pl.col(f"{slug}_made").ne_missing(truth))):
            return leak
    return None


def _of_variable(values: Array) -> Array:
    """[n, K] of a variable's values [n, 48]: in every hour, the stay's mean and extremes; whether one was charted in
    every hour and at all, and how many."""
    there = ~np.isnan(values)
    count = there.sum(axis=1, keepdims=True).astype(np.float64)
    mean = np.nansum(values, axis=1, keepdims=True) / np.where(count, count, np.nan)
    low, high = np.fmin.reduce(values, axis=1)[:, None], np.fmax.reduce(values, axis=1)[:, None]
    return np.hstack([values, mean, low, high, there, there.any(axis=1, keepdims=True), count])


def _of_image(a: Artefacts) -> Array:
    """[N, 3]: whether there is an image, its hour, its mean grey."""
    grey = pl.Series("grey", [float(picture.mean()) for picture in a.pixels], pl.Float64)
    images = a.images.select("stay_id", hour="hours_from_intime").with_columns(grey).unique("stay_id", keep="first")
    image = a.stays.select("stay_id").join(images, on="stay_id", how="left", maintain_order="left")
    values = image.select(pl.col("hour").is_not_null().cast(pl.Float64), hours="hour", grey="grey")
    return values.fill_null(float("nan")).to_numpy()


def _ranges(shown: Array, label: Array) -> tuple[Array, Array]:
    """Smallest and largest value in each class of the label, [C, K] each; per column, the classes stand in the order of
    their smallest value, and those without a value are NaN and come last."""
    parts = [shown[label == c] for c in np.unique(label)]
    low = np.stack([np.fmin.reduce(part, axis=0, initial=np.nan) for part in parts])
    high = np.stack([np.fmax.reduce(part, axis=0, initial=np.nan) for part in parts])
    order = np.argsort(low, axis=0)
    return np.take_along_axis(low, order, axis=0), np.take_along_axis(high, order, axis=0)


def _apart(shown: Array, label: Array) -> Array:
    """Which columns [K] take their values in the classes of the label wholly apart."""
    low, high = _ranges(shown, label)
    return np.asarray(~(high[:-1] >= low[1:]).any(axis=0))


def _by_chance(label: Array) -> float:
    """How often a random order would put equal labels side by side, classes as large as they are: 1 / multinomial."""
    sizes = np.unique(label, return_counts=True)[1]
    return math.exp(sum(math.lgamma(n + 1) for n in sizes) - math.lgamma(len(label) + 1))


def _tells(shown: Array, label: Array) -> bool:
    """Whether a column of `shown` [N, K] gives `label` [N] away: see labels_among_inputs."""
    for column in np.flatnonzero(_apart(shown, label)):
        there = ~np.isnan(shown[:, column])
        values, classes = shown[there, column][:, None], label[there]
        sizes = np.unique(classes, return_counts=True)[1]
        if len(sizes) < 2 or _by_chance(classes) > CHANCE:
            continue
        low, high = _ranges(values, classes)
        if (sizes >= ALIKE_STAYS).sum() >= 2 if (low == high).all() else sizes.min() >= APART_STAYS:
            return True
    return False


def labels_among_inputs(a: Artefacts) -> Leak | None:
    """A label or an outcome among the inputs: by the name of a variable or of a column of hourly.parquet; or by what
    models see (values.npy, images): something that takes one value in each class of a label, or whose values in the
    classes lie wholly apart. That covers a variable that equals the label, in some hour or on the whole, and one whose
    mere presence does, and the presence, hour and mean grey of the image.

    On clean data it is silent: one value a class must hold for 10 stays in each of two classes, which a real variable
    never does; values apart for 50 in each class, since a good predictor may sort a few stays rightly; and a random
    order must do as well less than once in 10^10 (there are about 10^5 comparisons). A leak into a label with fewer
    positives passes: nothing tells it from luck."""
    labels = [name for name in a.labels.columns if name != "stay_id"]
    columns = {*(variable.name for variable in a.variables), *a.hourly.columns}
    named = sorted(columns & {*labels, *OUTCOMES})
    if named:
        return Leak(f"label among the inputs: {', '.join(named)}")
    if len(a.values) != a.stays.height or len(a.pixels) != a.images.height:
        return None  # packed_values_differ and packed_images_differ say so
    rows = a.stays.select("stay_id").join(
        a.labels.unique("stay_id"), on="stay_id", how="left", maintain_order="left", validate="m:1"
    )
    known = np.flatnonzero(rows["icu_mortality"].is_not_null().to_numpy())
    every = {name: rows[name].cast(pl.Float64).to_numpy()[known] for name in labels}
    targets = {name: label for name, label in every.items() if _by_chance(label) <= CHANCE}
    # Classes that overlap in some stays overlap in all: after these, hardly a variable is looked at in full.
    some = [_of_variable(np.asarray(a.values[known[:FIRST], :, i], np.float64)) for i in range(len(a.variables))]
    some.append(_of_image(a)[known[:FIRST]])
    ends = np.cumsum([block.shape[1] for block in some])[:-1]
    suspects = {
        name: [bool(part.any()) for part in np.split(_apart(np.hstack(some), label[:FIRST]), ends)]
        for name, label in targets.items()
    }
    for block, name in enumerate([*(variable.name for variable in a.variables), "the image"]):
        of_it = [label for label, suspect in suspects.items() if suspect[block]]
        if of_it:
            image = block == len(a.variables)
            shown = _of_image(a)[known] if image else _of_variable(np.asarray(a.values[known, :, block], np.float64))
            for label in of_it:
                if _tells(shown, targets[label]):
                    return Leak(f"{name} or its presence gives the label {label} away")
    return None
