"""Weights of a mean of probabilities, searched on validation: Optuna's TPE, or greedy forward selection.

Arrays in, weights out. Whoever calls hands over validation stays alone, so that no test label can reach a search.
TPE over whole weights 0 to 10 that begins with each component alone: AutoPrognosis-M (Imrie et al., IEEE JBHI 2025,
arXiv 2407.18227). Greedy selection with replacement: Caruana et al., ICML 2004. A search ends after a number of trials,
never after a time: what is found does not depend on the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.tasks import Task
from pipeline.training.monitor import monitor_score

Floats = NDArray[np.float64]
Weights = tuple[int, ...]
Score = Callable[[Sequence[int]], float | None]
HEAVIEST = 10
SURE = 1e-7  # a probability is kept this far from 0 and 1, whose logarithm is infinite
DIGITS = 9  # significant ones of a score that is compared: the last bits follow from the processor


class Trial(NamedTuple):
    """Weights of the components, in their order, and what they score on validation; None: weights that are all 0."""

    weights: Weights
    score: float | None


class Found(NamedTuple):
    """What a search chose, the first of equals, and all that it tried, in order."""

    best: Trial
    trials: tuple[Trial, ...]


def mean(p: Floats, weights: Sequence[int]) -> Floats:
    """Weighted mean [n, outputs] of the components' probabilities [components, n, outputs]."""
    share = np.asarray(weights, dtype=np.float64)
    found: Floats = np.einsum("k,kno->no", share, p) / share.sum()
    return found


def score(task: Task, metric: str, truth: NDArray[Any], p: Floats) -> float | None:
    """Of truth [n, labels] and probabilities [n, outputs], higher is better; None where it is not estimable.

    `metric` monitor: the task's own (pipeline.training.monitor). log_loss: its negative, a mean over stays and labels.
    """
    if not len(p):
        return None
    if metric == "monitor":
        found = monitor_score(task, truth, p)
    else:
        likely = np.clip(p, SURE, 1 - SURE)
        if task.kind == "multiclass":
            found = float(np.log(likely[np.arange(len(p)), truth[:, 0].astype(np.int64)]).mean())
        else:
            found = float(np.log(np.where(truth > 0, likely, 1 - likely)).mean())
    return None if found is None else float(f"{found:.{DIGITS}g}")


def alone(components: int, among: Sequence[int]) -> list[Weights]:
    """The weights of each of `among` alone."""
    return [tuple(HEAVIEST * (i == j) for j in range(components)) for i in among]


def first_best(trials: Sequence[Trial]) -> Trial:
    """The one that scores highest, the first of equals."""
    return max(trials, key=lambda trial: -np.inf if trial.score is None else trial.score)


def tpe(of: Score, components: int, among: Sequence[int], trials: int, seed: int) -> Found:
    """`trials` weights by Optuna's TPE, the first of them each component alone: never worse than the best of these.

    Components that are not `among` those to be weighted have 0. `of` must be estimable for weights that are not all 0.
    """
    import optuna  # half a second

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    for weights in alone(components, among):
        study.enqueue_trial({str(i): weights[i] for i in among})
    tried: list[Trial] = []
    while len(tried) < trials:
        asked = study.ask()
        drawn = {i: asked.suggest_int(str(i), 0, HEAVIEST) for i in among}
        weights = tuple(drawn.get(i, 0) for i in range(components))
        trial = Trial(weights, of(weights) if any(weights) else None)
        if trial.score is None:
            study.tell(asked, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(asked, trial.score)
        tried.append(trial)
    return Found(first_best(tried), tuple(tried))


def greedy(of: Score, components: int, among: Sequence[int], rounds: int) -> Found:
    """Takes in, round by round, the component that scores best with those in it, again if need be.

    The trials are the rounds, weights how often each component is in; the best round is chosen, the first is the best
    component alone. `among` and `of` as in `tpe`.
    """
    weights: Weights = (0,) * components
    tried: list[Trial] = []
    for _ in range(rounds):
        steps = [tuple(weight + (i == j) for j, weight in enumerate(weights)) for i in among]
        tried.append(first_best([Trial(each, of(each)) for each in steps]))
        weights = tried[-1].weights
    return Found(first_best(tried), tuple(tried))
