"""Leaks by labels: false ones, and such as stand among the inputs."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl

from tests.support.planted.changes import column_of, common_label, where


def survivor_labelled_dead(a):
    row = a.labels["icu_mortality"].index_of(False)
    return {"labels": where(a.labels, "icu_mortality", row, pl.lit(True))}


def death_in_hospital_hidden(a):
    row = a.labels["hospital_mortality"].index_of(True)
    return {"labels": where(a.labels, "hospital_mortality", row, pl.lit(False))}


def labels_permuted(a):
    order = np.random.default_rng(0).permutation(a.labels.height)
    return {"labels": a.labels[order].with_columns(a.labels["stay_id"])}


def los_class_one_too_high(a):
    return {"labels": where(a.labels, "los_class", a.labels["los_class"].index_of(0), pl.lit(1, pl.Int8))}


def phenotype_of_another_admission(a):
    """A code of the subject's next admission: the future of this one."""
    slug = common_label(a)
    row = a.labels[slug].index_of(False)
    return {"labels": where(a.labels, slug, row, pl.lit(True))}


def phenotype_lost(a):
    row = a.labels["shock"].index_of(True)
    return {"labels": where(a.labels, "shock", row, pl.lit(False))}


def label_by_name(a):
    """In all files alike."""
    *others, last = a.variables
    statistics = {
        fold: {"icu_mortality" if name == last.name else name: entry for name, entry in known.items()}
        for fold, known in a.statistics.items()
    }
    return {
        "variables": [*others, dataclasses.replace(last, name="icu_mortality")],
        "hourly": a.hourly.rename({last.name: "icu_mortality"}),
        "statistics": statistics,
    }


def outcome_in_the_hourly_table(a):
    return {"hourly": a.hourly.join(a.stays.select("stay_id", "los_days"), on="stay_id")}


def with_label(a, give):
    """values.npy with `give(values of the glucose, label [N, 1])` for the glucose."""
    values = np.array(a.values)
    column = column_of(a, "glucose")
    label = a.labels[common_label(a)].to_numpy()[:, None]
    values[:, :, column] = give(values[:, :, column], label)
    return {"values": values}


def label_by_value(a):
    return with_label(a, lambda glucose, label: np.where(np.isnan(glucose), np.nan, label))


def label_by_value_in_one_hour(a):
    return with_label(a, lambda glucose, label: np.where(np.arange(48) == 30, 120.0 + label, glucose))


def label_with_noise(a):
    noise = np.random.default_rng(0).uniform(0, 0.9, (a.stays.height, 48))
    return with_label(a, lambda glucose, label: 100 + label + noise)


def label_by_presence(a):
    return with_label(a, lambda glucose, label: np.where(label, np.nanmedian(glucose) + 0 * glucose, np.nan))


def label_by_presence_in_the_last_hour(a):
    return with_label(
        a, lambda glucose, label: np.where(np.arange(48) < 47, glucose, np.where(label, 100.0 + np.arange(48), np.nan))
    )


def label_as_a_category(a):
    values = np.array(a.values)
    column = column_of(a, "ectopy_type")
    there = ~np.isnan(values[:, :, column])
    label = np.broadcast_to(a.labels[common_label(a)].to_numpy()[:, None], there.shape)
    values[:, :, column] = np.where(there, np.where(label, 3.0, 9.0), np.nan)
    return {"values": values}


def length_of_stay_among_the_inputs(a):
    values = np.array(a.values)
    values[:, 0, column_of(a, "glucose")] = 100 + 10 * a.labels["los_class"].to_numpy()
    return {"values": values}


def label_by_presence_of_the_image(a):
    """Images where the label is true, and nowhere else."""
    with_image_now = a.stays["stay_id"].is_in(a.images["stay_id"].to_list())
    return {"labels": a.labels.with_columns(with_image_now.alias(common_label(a)))}
