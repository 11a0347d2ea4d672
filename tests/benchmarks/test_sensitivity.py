"""tests/benchmarks/sensitivity.py: what is measured of an untrained strategy."""

import pytest
import torch

from pipeline.modelling import registry
from pipeline.modelling.examples import small_shapes
from tests.benchmarks.sensitivity import first_parameters, measure


def built(name):
    torch.manual_seed(0)
    return registry.build(name, small_shapes("phenotype", 32), {})


def test_a_quieter_image_moves_logits_and_receives_gradients_by_as_much_less():
    loud, quiet = built("late_fusion"), built("late_fusion")
    width = quiet.shapes.encoders.width
    with torch.no_grad():
        quiet.head.weight[:, width:] /= 100
    torch.manual_seed(1)
    before = measure(loud)
    torch.manual_seed(1)
    after = measure(quiet)
    assert after["logit_cxr"] == pytest.approx(before["logit_cxr"] / 100, rel=1e-3)
    assert after["gradient_cxr"] == pytest.approx(before["gradient_cxr"] / 100, rel=0.2)
    assert after["logit_ehr"] == pytest.approx(before["logit_ehr"], rel=1e-3)
    assert after["gradient_ehr"] == pytest.approx(before["gradient_ehr"], rel=0.2)


@pytest.mark.parametrize(("name", "seen"), [("resnet", {"cxr"}), ("transformer", {"ehr"}), ("drfuse", {"cxr", "ehr"})])
def test_only_what_a_strategy_looks_at_is_measured(name, seen):
    assert measure(built(name)).keys() == {f"{what}_{modality}" for what in ("logit", "gradient") for modality in seen}


def test_the_first_parameters_are_the_filters_and_the_record_s_embedding():
    boosted, sets = built("aug"), built("umse")
    assert first_parameters(boosted)["cxr"] is boosted.image.stages[0][0].weight
    assert first_parameters(boosted)["ehr"] is boosted.series.embed.weight
    assert first_parameters(sets)["ehr"] is sets.kind.weight
