"""What choosing on validation does to a comparison: `python -m tests.simulations.selection`.

Writes docs/simulations/selection.csv and its table in docs/reading-the-report.md. No strategy is better than any other;
each is trained once a run. A run's AUROC on any patients is 0.8, plus its luck, plus what these patients do to it, of
which strategies share `SHARED`. Candidates with the best validation mean over runs are compared on 100 test positives.
`bias` is the expected difference of the two chosen ones on test; it is not noise that choosing adds, which the test
patients know nothing of, but luck that it keeps.
"""

from __future__ import annotations

import numpy as np

from pipeline.estimation.power import auroc_variance
from tests.simulations.world import percent, tell, write

AUROC, ODDS, SHARED, TESTED = 0.8, 4, 0.6, 100  # negatives a positive; positives tested
SAMPLES = 40_000
CANDIDATES = ((15, 5), (5, 5))
VALIDATION, LUCK, RUNS = (4, 20, 100), (0.0, 1.0, 3.0), (1, 3)


def error(positives):
    """Standard deviation that patients give an AUROC."""
    return np.sqrt(auroc_variance(AUROC, positives, ODDS * positives))


def patients(random, positives, candidates):
    """[SAMPLES, candidates]: what these patients do to each candidate."""
    shared = np.sqrt(SHARED) * random.standard_normal((SAMPLES, 1))
    return error(positives) * (shared + np.sqrt(1 - SHARED) * random.standard_normal((SAMPLES, candidates)))


def chosen(random, candidates, validation, luck, runs, shared):
    """Test AUROC less 0.8 of the candidate that validation chooses, [SAMPLES]; `shared`: the test patients' part."""
    lucky = np.sqrt(luck / runs) * error(TESTED) * random.standard_normal((SAMPLES, candidates))
    best = (lucky + patients(random, validation, candidates)).argmax(axis=1)
    own = np.sqrt(1 - SHARED) * error(TESTED) * random.standard_normal(SAMPLES)
    return lucky[np.arange(SAMPLES), best] + shared + own


def row(fusion, single, validation, luck, runs, seed=0):
    """Bias of the difference, and in how many samples it seems a gain by an interval of patients alone."""
    random = np.random.default_rng([seed, fusion, single, validation, int(luck), runs])
    shared = np.sqrt(SHARED) * error(TESTED) * random.standard_normal(SAMPLES)
    apart = chosen(random, fusion, validation, luck, runs, shared) - chosen(
        random, single, validation, luck, runs, shared
    )
    width = 1.96 * np.sqrt(2 * (1 - SHARED)) * error(TESTED)
    return {
        "fusion_candidates": fusion,
        "unimodal_candidates": single,
        "validation_positives": validation,
        "luck": luck,
        "runs": runs,
        "bias": round(float(apart.mean()), 4),
        "seeming_gains": round(float((apart > width).mean()), 4),
    }


def main() -> None:
    rows = [
        row(fusion, single, validation, luck, runs)
        for luck in LUCK
        for runs in RUNS
        for validation in VALIDATION
        for fusion, single in CANDIDATES
    ]
    write("selection", rows)
    tell("selection", *table(rows))


def table(rows):
    """(header, body): a row a luck, runs and validation; uneven and even candidates beside each other."""
    body = []
    for uneven, even in zip(rows[::2], rows[1::2], strict=True):
        each = [f"{float(one['bias']):+.3f} ({percent(one['seeming_gains'])} %)" for one in (uneven, even)]
        body.append([*(uneven[name] for name in ("luck", "runs", "validation_positives")), *each])
    return ["luck", "runs", "positives that choose", "15 against 5", "5 against 5"], body


if __name__ == "__main__":
    main()
