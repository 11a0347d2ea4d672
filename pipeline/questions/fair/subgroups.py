"""Who belongs to which group: attributes and pairs of them, group sizes, and which counts may be shown.

Groups are those of the stay (age at intime, insurance of the admission). What is null is a group of its own, UNKNOWN,
apart from OTHER: that nobody asked for a patient's race says something about the admission.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.disclosure import protected
from pipeline.estimation.metrics import Bools

Codes = NDArray[np.int64]

# Attribute: the column of stays.parquet
ATTRIBUTES = {
    "age": "age",
    "gender": "gender",
    "race": "race_group",
    "admission": "admission_group",
    "insurance": "insurance",
    "has_cxr": "has_cxr",
}
WHOLE = "all"  # the attribute, and its only group, of everybody
SMALL = "too small"


@dataclass(frozen=True)
class Grouping:
    """An attribute (or pair, `age+gender`): its groups in order, and each stay's group as an index into them."""

    name: str
    groups: tuple[str, ...]
    codes: Codes

    @property
    def crossed(self) -> bool:
        """Whether it is a pair of attributes."""
        return "+" in self.name


def age_labels(edges: Sequence[int]) -> tuple[str, ...]:
    """(40, 60, 80) -> <40, 40–59, 60–79, ≥80."""
    inner = [f"{low}–{high - 1}" for low, high in itertools.pairwise(edges)]
    return (f"<{edges[0]}", *inner, f"≥{edges[-1]}")


def grouping(stays: pl.DataFrame, name: str, age_edges: Sequence[int]) -> Grouping:
    """The groups of `stays` by an attribute or a pair `one+other`; only groups that have a stay, in a fixed order."""
    if name == WHOLE:
        return Grouping(name, (WHOLE,), np.zeros(stays.height, dtype=np.int64))
    if "+" in name:
        one, other = (grouping(stays, each, age_edges) for each in name.split("+"))
        joint = one.codes * len(other.groups) + other.codes
        present, codes = np.unique(joint, return_inverse=True)
        width = len(other.groups)
        names = tuple(f"{one.groups[each // width]}, {other.groups[each % width]}" for each in present)
        return Grouping(name, names, codes.astype(np.int64))
    column = stays[ATTRIBUTES[name]]
    if name == "age":
        of = np.digitize(column.to_numpy(), age_edges)
        order = age_labels(age_edges)
        texts = np.array(order)[of]
    else:
        if name == "has_cxr":
            column = column.replace_strict({True: "image", False: "no image"}, return_dtype=pl.String)
        texts = column.cast(pl.String).fill_null("UNKNOWN").to_numpy()
        order = tuple(sorted(set(texts.tolist())))
    groups = tuple(each for each in order if each in set(texts.tolist()))
    place = {each: i for i, each in enumerate(groups)}
    return Grouping(name, groups, np.array([place[each] for each in texts.tolist()], dtype=np.int64))


@dataclass(frozen=True)
class Sizes:
    """Of each group: stays [G], subjects [G], and stays with and without each of L labels [G, L]."""

    stays: Codes
    subjects: Codes
    positives: Codes
    negatives: Codes


def sizes(of: Grouping, subjects: Codes, truth: Bools) -> Sizes:
    """Counts of the groups of n stays with labels `truth` [n, L]."""
    groups = range(len(of.groups))
    inside = [of.codes == group for group in groups]
    return Sizes(
        stays=np.array([int(each.sum()) for each in inside], dtype=np.int64),
        subjects=np.array([len(np.unique(subjects[each])) for each in inside], dtype=np.int64),
        positives=np.array([truth[each].sum(axis=0) for each in inside], dtype=np.int64).reshape(
            len(inside), truth.shape[1]
        ),
        negatives=np.array([(~truth[each]).sum(axis=0) for each in inside], dtype=np.int64).reshape(
            len(inside), truth.shape[1]
        ),
    )


def enough(size: Sizes, least_positives: int, least_negatives: int) -> Bools:
    """[G, L]: groups with as many stays with and without a label as an estimate asks for."""
    return np.asarray((size.positives >= least_positives) & (size.negatives >= least_negatives))


def common_labels(large: Bools) -> tuple[Bools, Bools]:
    """(groups [G], labels [L]) of a macro mean that compares like with like.

    A group takes part where it is large enough for at least half of the labels that any group is large enough for; the
    mean is over the labels for which all of these are. Both are empty where no label is left.
    """
    any_group = large.any(axis=0)
    groups = np.asarray((large.sum(axis=1) * 2 >= any_group.sum()) & large.any(axis=1))
    labels = np.asarray(large[groups].all(axis=0)) if groups.any() else np.zeros(large.shape[1], dtype=bool)
    return groups & labels.any(), labels


def lines(of: Grouping) -> list[list[int]]:
    """Sets of groups whose counts sum to a number that is published: all, or those that share a pair's one half."""
    if not of.crossed:
        return [list(range(len(of.groups)))]
    halves = [name.split(", ") for name in of.groups]
    found = []
    for side in (0, 1):
        for value in dict.fromkeys(half[side] for half in halves):
            found.append([i for i, half in enumerate(halves) if half[side] == value])
    return found


def shown(of: Grouping, counts: Codes, small: Bools) -> list[str]:
    """The counts as text: `<10` or `hidden` where `small`, or where a sum would give such a one away."""
    return [str(count) for count in protected(counts.tolist(), lines(of), small.tolist())]
