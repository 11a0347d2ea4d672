"""`python -m tests.benchmarks.learnable`: how many patients teach each kind of planted truth to a perfect encoder.

A perceptron with one hidden layer gets what the record and the radiograph show of every cause, noise and all, and
learns the 25 phenotypes at once; as many patients again choose the epoch. Prints a Markdown table: the mean AUROC by
kind on fresh patients, for each number of training patients. Where it fails, no strategy is to blame.
"""

import argparse

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.neural_network import MLPClassifier

from pipeline.presentation.text import markdown_table, number
from pipeline.questions.known.known import KINDS
from pipeline.synthetic import model
from pipeline.synthetic.people import shows
from pipeline.synthetic.streams import Floats, stream

PATIENTS = (1000, 2000, 4000, 8000)
FRESH = 10_000
EPOCHS = 80


def draw(seed: int, count: int) -> tuple[Floats, Floats]:
    """(what both modalities show [count, C], labels [count, 25]) of patients whose images show all (men)."""
    rng = stream(seed, "learnable")
    causes = {name: cause.draw(rng, count) for name, cause in model.CAUSES.items()}
    shown = [
        shows(rng, causes[name], name, noise)
        for name, cause in model.CAUSES.items()
        for modality, noise in (("ehr", model.EHR_NOISE), ("cxr", model.CXR_NOISE))
        if cause.seen_in in (modality, "both")
    ]
    chance = [model.probability(effect, causes, 1.0) for effect in model.PHENOTYPES.values()]
    return np.stack(shown, axis=1), (rng.random((len(chance), count)) < np.array(chance)).T.astype(float)


def by_kind(patients: int, seed: int) -> dict[str, float]:
    """Mean AUROC of each kind after `patients` training patients."""
    (inputs, labels), held, (fresh, truth) = draw(seed, patients), draw(seed + 1, patients), draw(seed + 2, FRESH)
    perceptron = MLPClassifier(64, alpha=0.01, batch_size=32, random_state=0)
    best, score = np.inf, np.zeros_like(truth)
    for _ in range(EPOCHS):
        perceptron.partial_fit(inputs, labels, classes=np.arange(labels.shape[1]))
        loss = log_loss(held[1].ravel(), perceptron.predict_proba(held[0]).ravel())
        if loss < best:
            best, score = loss, perceptron.predict_proba(fresh)
    auroc = {
        name: (effect.kind, float(roc_auc_score(truth[:, i], score[:, i])))
        for i, (name, effect) in enumerate(model.PHENOTYPES.items())
    }
    return {kind: float(np.mean([value for of, value in auroc.values() if of == kind])) for kind in KINDS}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.learnable", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="hospitals that a number is the mean of")
    seeds = range(parser.parse_args().seeds)
    rows = []
    for patients in PATIENTS:
        found = [by_kind(patients, 10 * seed) for seed in seeds]
        rows.append((f"{patients:,}", *(number(float(np.mean([each[kind] for each in found]))) for kind in KINDS)))
    print(f"Version {model.VERSION} of the hospital, {len(seeds)} hospitals:\n")
    print(markdown_table(["Patients", *KINDS], rows))


if __name__ == "__main__":
    main()
