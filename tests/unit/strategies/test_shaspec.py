"""ShaSpec: its losses and composition, that the domain loss reaches the specific encoders, and the stand-in."""

import dataclasses

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.modelling.examples import example_batch, example_targets, small_shapes
from pipeline.modelling.registry import build


def model_of(task="mortality", **hyper):
    torch.manual_seed(0)
    return build("shaspec", small_shapes(task, 32), {"lr": 1e-3, **hyper})


def test_losses_are_those_of_present_modalities_alone():
    model = model_of(align=0.3, domain=0.7).eval()
    batch = example_batch(model.shapes, 4, torch.tensor([1, 0, 1, 1]).bool())
    present = batch.present.clone()
    present[3, 0] = False
    batch = dataclasses.replace(batch, present=present)
    with torch.no_grad():
        output = model(batch)
        losses = model.losses(output, batch, example_targets(model.shapes, 4))
    f = {key: value.numpy() for key, value in output.features.items()}
    distance = np.mean([np.abs(f["shared_ehr"][i] - f["shared_cxr"][i]).mean() for i in (0, 2)])
    assert float(losses["align"]) == pytest.approx(0.3 * distance, abs=1e-5)
    w, b = model.classify_domain.weight.detach().numpy(), model.classify_domain.bias.detach().numpy()
    terms = []
    for modality, name in enumerate(("ehr", "cxr")):
        for i in range(4):
            if present[i, modality]:
                z = w @ f[f"specific_{name}"][i] + b
                terms.append(np.log(np.exp(z).sum()) - z[modality])
    assert len(terms) == 6
    assert float(losses["domain"]) == pytest.approx(0.7 * np.mean(terms), abs=1e-5)


def test_composition_is_a_residual():
    model = model_of().eval()
    shared, specific = torch.randn(2, 16), torch.randn(2, 16)
    w, b = model.compose.weight.detach().numpy(), model.compose.bias.detach().numpy()
    expected = shared.numpy() + np.concatenate([shared, specific], axis=1) @ w.T + b
    np.testing.assert_allclose(model.composed(shared, specific).detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("loss", "reached"),
    [("domain", {"series", "image", "classify_domain"}), ("align", {"hours", "positions", "grid", "shared"})],
)
def test_specific_and_shared_encoders_have_no_weight_in_common(loss, reached):
    """What draws shared features together leaves the specific ones alone, and what tells these apart the others."""
    model = model_of()
    batch = example_batch(model.shapes, 4, torch.ones(4).bool())
    model.losses(model(batch), batch, example_targets(model.shapes, 4))[loss].backward()
    moved = {key.split(".")[0] for key, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert moved == reached


def test_the_domain_loss_makes_specific_features_separable():
    model = model_of(domain=1.0)
    batch = example_batch(model.shapes, 8, torch.ones(8).bool())
    targets = example_targets(model.shapes, 8)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    seen = []
    for _ in range(15):
        optimiser.zero_grad()
        losses = model.losses(model(batch), batch, targets)
        seen.append(float(losses["domain"].detach()))
        (losses["domain"] + losses["align"]).backward()
        optimiser.step()
    assert seen[-1] < 0.1 * seen[0]


def test_a_missing_modality_is_the_others_shared_feature():
    model = model_of().eval()
    batch = example_batch(model.shapes, 3, torch.tensor([1, 0, 1]).bool())
    present = torch.tensor([[True, True], [True, False], [False, True]])
    batch = dataclasses.replace(batch, present=present)
    seen = []
    hook = model.head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        f = model(batch).features
    hook.remove()
    ehr, cxr = seen[0][:, :16], seen[0][:, 16:]
    with torch.no_grad():
        assert torch.allclose(cxr[1], f["shared_ehr"][1])
        assert torch.allclose(ehr[2], f["shared_cxr"][2])
        assert torch.allclose(cxr[0], model.composed(f["shared_cxr"], f["specific_cxr"])[0], atol=1e-6)


def test_a_negative_weight_is_refused():
    with pytest.raises(InputError, match=r"strategies\.shaspec: domain must be at least 0"):
        model_of(domain=-1.0)
