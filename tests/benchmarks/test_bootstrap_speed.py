"""The bootstrap at full size against the plain loop: 2,000 draws, 17 strategies, 25 phenotypes, 30,000 stays.

`FUSION_BENCHMARK_SHARE=0.1` runs a tenth of the strategies' labels and extrapolates. The plain loop (draw subjects,
copy their rows, call scikit-learn) is timed on a sample of draws in the same process: whole, it takes hours. Bounds are
on CPU time, of which two cores have 360 s in three minutes: most machines have other work to do. Wall time is printed.
"""

import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from pipeline.estimation.bootstrap import draw_subjects
from pipeline.estimation.metrics import rank_metrics
from pipeline.evaluation.scores import metric_interval

STAYS, STRATEGIES, LABELS, DRAWS, THREADS = 30_000, 17, 25, 2000, 2
SAMPLE = 20  # draws of the plain loop that are timed
SECONDS, GIGABYTES = 180, 4
CLOCKS = (time.perf_counter, time.process_time)


def scores_of(strategy: int, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Prevalences from 3 to 45 %, as those of the phenotypes."""
    prevalence = np.linspace(0.03, 0.45, LABELS)[label]
    labels = np.random.default_rng([0, label]).random(STAYS) < prevalence
    return np.random.default_rng([1, strategy, label]).standard_normal(STAYS) + labels, labels


@pytest.mark.benchmark
def test_the_bootstrap_of_a_full_benchmark_takes_minutes():
    share = float(os.environ.get("FUSION_BENCHMARK_SHARE", "1"))
    subjects = np.sort(np.random.default_rng(2).integers(0, 150_000, STAYS))  # a tenth has more than one stay
    pairs = [(strategy, label) for strategy in range(STRATEGIES) for label in range(LABELS)]
    pairs = pairs[:: max(1, round(1 / share))]
    start = [now() for now in CLOCKS]
    draws = draw_subjects(subjects, DRAWS, 1, "test", 0)
    rows = draws.rows(subjects)
    drawing = [now() - then for now, then in zip(CLOCKS, start, strict=True)]

    def one(pair):
        auroc, auprc = rank_metrics(*scores_of(*pair), rows, draws)
        return auroc[0], metric_interval("auroc", auroc, 0.95), metric_interval("auprc", auprc, 0.95)

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(one, pairs))
    wall, cpu = (now() - then for now, then in zip(CLOCKS, start, strict=True))
    wall, cpu = (
        d + (each - d) * STRATEGIES * LABELS / len(pairs) for each, d in zip((wall, cpu), drawing, strict=True)
    )
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6

    members = np.split(np.arange(STAYS), np.flatnonzero(np.diff(subjects)) + 1)
    before, random = time.process_time(), np.random.default_rng(3)
    for _ in range(SAMPLE):
        scores, labels = scores_of(*pairs[random.integers(len(pairs))])
        chosen = np.concatenate([members[i] for i in random.integers(0, len(members), len(members))])
        roc_auc_score(labels[chosen], scores[chosen])
        average_precision_score(labels[chosen], scores[chosen])
    plain = (time.process_time() - before) / SAMPLE * DRAWS * STRATEGIES * LABELS

    scores, labels = scores_of(*pairs[0])
    assert found[0][0] == pytest.approx(roc_auc_score(labels, scores))
    assert all(low < high for _, *bounds in found for low, high in bounds)
    print(
        f"\n{len(pairs)} of {STRATEGIES * LABELS} labels; all of them: {wall:.0f} s, {cpu:.0f} s of CPU, at most "
        f"{gigabytes:.2f} GB; plain loop, from {SAMPLE} draws: {plain / 3600:.1f} h of CPU, {plain / cpu:.0f} ×"
    )
    assert cpu < THREADS * SECONDS
    assert gigabytes < GIGABYTES
    assert plain > 20 * cpu
