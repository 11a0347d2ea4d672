"""How often shuffled groups call a gap of AUROC real where there is none: `python -m tests.simulations.fairness`.

Writes docs/simulations/fairness.csv and its table in docs/reading-the-report.md. Groups have the same AUROC and may
differ in how widely scores spread, in size, and in prevalence; p at most 5 % is an error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from pipeline.estimation.bootstrap import SubjectDraws
from pipeline.estimation.gaps import against_null, exchanges, gap
from pipeline.estimation.metrics import rank_metrics
from pipeline.estimation.studentised import GroupArea, studentised_gap
from tests.simulations.world import clustered, percent, tell, write

SHUFFLES, SHIFT, LEVEL, SAMPLES = 199, 1.2, 0.05, 1000


@dataclass(frozen=True)
class Groups:
    """Stays, spread of scores and prevalence of each group; `heavy`: the spread is that of positives alone."""

    sizes: tuple[int, ...]
    spreads: tuple[float, ...]
    prevalences: tuple[float, ...]
    stays: int = 1
    heavy: bool = False


SETTINGS = {
    "alike": Groups((250, 250), (1, 1), (0.2, 0.2)),
    "sizes": Groups((420, 80), (1, 1), (0.2, 0.2)),
    "spread": Groups((250, 250), (1, 3), (0.2, 0.2)),
    "spread of positives": Groups((250, 250), (1, 3), (0.2, 0.2), heavy=True),
    "prevalence": Groups((250, 250), (1, 1), (0.1, 0.3)),
    "spread and size: the small one spreads": Groups((420, 80), (1, 3), (0.2, 0.3)),
    "spread of positives, the small group's": Groups((420, 80), (1, 3), (0.2, 0.3), heavy=True),
    "spread of positives, the large group's": Groups((420, 80), (3, 1), (0.1, 0.3), heavy=True),
    "four groups": Groups((250, 150, 100, 80), (1, 1, 2, 3), (0.15, 0.2, 0.25, 0.3), heavy=True),
    "three stays a subject": Groups((251, 251), (1, 3), (0.2, 0.2), stays=3, heavy=True),
}


def sample(random, groups):
    """(subject, group, truth, score) of each stay."""
    subject = np.concatenate([np.repeat(np.arange(-(-size // groups.stays)), groups.stays) for size in groups.sizes])
    counts = [-(-size // groups.stays) * groups.stays for size in groups.sizes]
    group = np.repeat(np.arange(len(counts)), counts)
    subject = np.cumsum(np.concatenate([[0], (np.diff(subject) != 0) | (np.diff(group) != 0)])).astype(np.int64)
    truth = clustered(random, subject) > norm_tail(np.array(groups.prevalences)[group])
    spread = np.array(groups.spreads, dtype=float)[group]
    if not groups.heavy:
        return subject, group, truth, spread * (clustered(random, subject) + SHIFT * truth)
    # AUROC is that of a shift over the root of both variances
    shift = SHIFT * np.sqrt((1 + spread**2) / 2)
    score = np.where(truth, spread, 1.0) * clustered(random, subject) + shift * truth
    return subject, group, truth, score


def norm_tail(share):
    """Above which a standard normal lies with that probability."""
    return -ndtri(share)


def p_values(random, groups, shuffles=SHUFFLES):
    """(p of the gap, p of the studentised gap) of a sample."""
    subject, group, truth, score = sample(random, groups)
    index = exchanges(subject, truth.astype(np.int64), shuffles, random)
    shuffled, at = group[index], np.arange(len(truth))
    areas, studentised = [], []
    for one in range(len(groups.sizes)):
        members = (shuffled == one).astype(np.float64)
        areas.append(rank_metrics(score, truth, at, SubjectDraws(at, (members,)))[0])
        area = GroupArea(1 + shuffles)
        area.add(0, subject, score, truth, members)
        studentised.append(area.values())
    gaps = gap(np.array(areas))
    found = against_null(gaps), against_null(gaps, studentised_gap(studentised))
    return tuple(1.0 if null is None else null.p for null in found)


def errors(name, samples=SAMPLES, seed=0):
    """Shares of samples with p at most LEVEL."""
    random = np.random.default_rng([seed, list(SETTINGS).index(name)])
    p = np.array([p_values(random, SETTINGS[name]) for _ in range(samples)])
    gaps, studentised = (p <= LEVEL).mean(axis=0)
    return {
        "groups": name,
        "samples": samples,
        "gap": round(float(gaps), 4),
        "studentised": round(float(studentised), 4),
    }


def main() -> None:
    rows = []
    for name in SETTINGS:
        rows.append(errors(name))
        print(rows[-1], flush=True)
    write("fairness", rows)
    tell("fairness", *table(rows))


def table(rows):
    """(header, body): a row a setting."""
    body = [[row["groups"], percent(row["gap"]), percent(row["studentised"])] for row in rows]
    return ["groups differ in", "gap", "studentised gap"], body


if __name__ == "__main__":
    main()
