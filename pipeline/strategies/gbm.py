"""gbm: gradient-boosted trees on a summary of the 48 hours. EHR alone.

Paper: Friedman, Annals of Statistics 2001; with histograms as in LightGBM (Ke et al., NeurIPS 2017).
Idea: mean, last, min, max, slope and count of each variable; scikit-learn's HistGradientBoostingClassifier, as many
rounds as have the lowest loss on validation, label by label. Length of stay: a tree a class and round.
Missing image: never looks at one, in training or at inference.
Changed: fitted by scikit-learn, once; a seed changes nothing. Values are clipped as for every strategy, and a variable
that was never charted stands at the training median with count 0, not as a missing value.
"""

from __future__ import annotations

from pipeline.modelling.trees import Trees


class GBM(Trees):
    """Boosted trees as EHR baseline."""

    modalities = frozenset({"ehr"})
    interaction = "additive"
