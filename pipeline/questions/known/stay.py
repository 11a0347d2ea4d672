"""Length of stay's known answer: the accuracy that the planted model allows, told the record, the image, or both.

Each stay has a planted probability a class. An oracle is a multinomial logistic regression of these on what its
modalities show of the causes, fitted to the fold's training stays, every stay counting as all classes by their
probabilities. It says the likeliest class of each test stay; the planted probability of that class, the mean over
stays, is the accuracy to be expected: which class was drawn in the end teaches and tells nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression

from pipeline.evaluation.scores import in_cohort
from pipeline.questions.known.truth import P_STAY, SEEN, STAY, Truth, features

METRIC = "accuracy"


def likeliest(train: pl.DataFrame, test: pl.DataFrame, truth: Truth, seen: Sequence[str]) -> np.ndarray:
    """Of each stay of `test`, the class that an oracle says, [n]; where nothing is shown, the commonest one."""
    effect, p = truth.effects[STAY], train.select(P_STAY).to_numpy()
    inputs = features(train, effect, seen)
    if not inputs.shape[1]:
        return np.full(test.height, p.sum(axis=0).argmax())
    classes = np.tile(np.arange(p.shape[1]), len(p))
    fitted = LogisticRegression(C=1.0, max_iter=1000).fit(np.repeat(inputs, p.shape[1], axis=0), classes, p.ravel())
    return np.asarray(fitted.predict(features(test, effect, seen)))


def ceilings(people: pl.DataFrame, truth: Truth, cohort: str) -> dict[str, float | None]:
    """Expected accuracy on the test stays of a cohort, the mean over folds, of "planted", "ehr", "cxr" and "both".

    Stays of which the planted model does not speak are left out; None where no fold has a stay to learn from and one
    to test.
    """
    joined = people.join(truth.planted, on="stay_id", how="left").filter(in_cohort(cohort)).drop_nulls(P_STAY)
    found: dict[str, list[float]] = {name: [] for name in ("planted", *SEEN)}
    for fold in joined.sort("fold", "stay_id").partition_by("fold", maintain_order=True):
        train, test = fold.filter(part="train"), fold.filter(part="test")
        if not train.height or not test.height:
            continue
        p = test.select(P_STAY).to_numpy()
        said = {name: likeliest(train, test, truth, seen) for name, seen in SEEN.items()} | {
            "planted": p.argmax(axis=1)
        }
        for name, classes in said.items():
            found[name].append(float(p[np.arange(len(p)), classes].mean()))
    return {name: float(np.mean(each)) if each else None for name, each in found.items()}
