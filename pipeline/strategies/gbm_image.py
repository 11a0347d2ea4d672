"""gbm_image: gradient-boosted trees on a summary of the 48 hours and frozen features of the image.

Paper: Soenksen et al., npj Digital Medicine 2022 (HAIM, arXiv 2202.12998): boosted trees on concatenated embeddings.
Idea: the summary that `gbm` sees, and beside it the pooled vector of the image encoder that the run of `resnet` of the
same cohort, fold and seed has trained; trees may split on either.
Missing image: native; zeros in place of its vector, and a feature that says so, in training and at inference.
Changed: the image's features come from the benchmark's own unimodal run, not from a network pretrained elsewhere; no
text. They are features of the very stays that the encoder was trained on, which tell more there than elsewhere.
"""

from __future__ import annotations

from pipeline.modelling.trees import TreesWithImage


class GBMImage(TreesWithImage):
    """Boosted trees on both modalities."""

    missing = "native"
    interaction = "joint"
    needs = ("resnet",)
