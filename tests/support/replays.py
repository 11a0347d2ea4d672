"""A replay of made-up stays, for a strategy whose encoders a test has put words into the mouth of."""

import dataclasses

import numpy as np
import torch

from pipeline.estimation.bootstrap import draw_subjects
from pipeline.forgetting.replay import Replay
from tests.support.runs import grid

DRAWS = 60


@dataclasses.dataclass(frozen=True)
class MadeUp(Replay):
    """`learned` and `shown`: batches with targets, of the training and of the test stays."""

    learned: tuple = ()
    shown: tuple = ()

    def ready(self):
        yield from self.learned

    def asked(self):
        yield from self.shown


def made_up(training, strategy, name, task, learned, shown, epochs, lr=0.01):
    (spec,) = [spec for spec in grid(training, name, task, batch_size=32) if spec.train_cohort == "matched"]
    spec = dataclasses.replace(spec, max_epochs=epochs, hyper={"lr": lr})
    none = torch.zeros(0, dtype=torch.long)
    subjects = np.arange(sum(batch.size for batch, _ in shown)) * 2 // 3  # every other one has two stays
    draws = draw_subjects(subjects, DRAWS, 1, "test", spec.fold)
    at = draws.rows(subjects)
    return MadeUp(spec, strategy, None, none, none, none, at, draws, tuple(learned), tuple(shown))
