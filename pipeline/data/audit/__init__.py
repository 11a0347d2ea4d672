"""The leak audit: each check takes the artefacts, and returns what is wrong (None: nothing).

It fails the pipeline on a leak; every train cell depends on its verdict. A check recounts from the rawest artefact that
tells, never with the code under audit. Counts go to the report, which is in git; ids of patients do not.
docs/audit.md tells of each check what it recounts, from what, and which planted leaks prove it.
"""

from __future__ import annotations

from typing import Any

from pipeline.data.audit import images, labels, masks, people, series
from pipeline.data.audit.artefacts import Artefacts, Events, Leak, read_artefacts

__all__ = ["CHECKS", "Artefacts", "Events", "Leak", "audit", "read_artefacts"]

CHECKS = (
    people.stays_contradict_records,
    people.dead_at_prediction_time,
    people.subjects_cross_parts,
    people.subjects_not_tested_once,
    people.later_era_in_training,
    people.splits_incomplete,
    series.events_outside_window,
    series.packed_values_differ,
    series.stays_without_series,
    series.statistics_beyond_training,
    images.images_outside_window,
    images.images_of_others,
    images.packed_images_differ,
    images.images_cross_parts,
    images.images_nearly_alike,
    labels.mortality_contradicts_admissions,
    labels.los_contradicts_times,
    labels.phenotypes_contradict_diagnoses,
    labels.labels_among_inputs,
    masks.masks_not_nested_or_shared,
    masks.masks_follow_labels,
)


def audit(artefacts: Artefacts) -> tuple[list[dict[str, Any]], list[str]]:
    """All checks, for the report (name, what it looks for, passed, detail); and a line a leak, which names an id."""
    rows: list[dict[str, Any]] = []
    leaks: list[str] = []
    for check in CHECKS:
        leak = check(artefacts)
        meaning = " ".join((check.__doc__ or "").split())
        detail = leak.text if leak else ""
        rows.append({"name": check.__name__, "meaning": meaning, "passed": leak is None, "detail": detail})
        if leak:
            leaks.append(f"{check.__name__}: {leak.text}" + (f", the first {leak.first}" if leak.first else ""))
    return rows, leaks
