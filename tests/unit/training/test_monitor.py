"""The validation metric that chooses a run's epoch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.tasks import get_task
from pipeline.training.monitor import average_precisions, monitor_score


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_average_precision_is_scikit_learns(data):
    from sklearn.metrics import average_precision_score

    n = data.draw(st.integers(2, 40))
    truth = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), float)
    scores = np.array(data.draw(st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.7, 0.9]), min_size=n, max_size=n)))
    other = np.arange(n) % 2  # a second label beside it changes nothing
    found, beside = average_precisions(np.stack([truth, other], axis=1), np.stack([scores, scores[::-1]], axis=1))
    assert beside == pytest.approx(average_precision_score(other, scores[::-1]))
    if truth.min() == truth.max():
        assert found is None
    else:
        assert found == pytest.approx(average_precision_score(truth, scores))


def test_a_label_that_validation_does_not_hold_is_left_out_of_the_monitor():
    task = get_task("phenotype")
    rng = np.random.default_rng(0)
    targets, p = (rng.random((30, 25)) < 0.4).astype(float), rng.random((30, 25))
    targets[:, 3] = 0
    from sklearn.metrics import average_precision_score

    kept = [average_precision_score(targets[:, i], p[:, i]) for i in range(25) if i != 3]
    assert monitor_score(task, targets, p) == pytest.approx(np.mean(kept))
    assert average_precisions(targets, p)[3] is None
    assert monitor_score(get_task("mortality"), np.zeros((5, 1)), rng.random((5, 1))) is None
    assert monitor_score(task, targets[:0], p[:0]) is None
