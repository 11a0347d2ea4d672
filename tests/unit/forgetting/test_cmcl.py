"""forgetting_cmcl.csv: what was aligned first finds itself later with projection, and less without."""

import pytest
import torch

from pipeline.forgetting.cmcl import of_run, recall
from pipeline.forgetting.tables import JOINT, KEPT, PLAIN
from pipeline.modelling.examples import example_batch, small_shapes
from pipeline.modelling.registry import build
from tests.support.replays import made_up

N, TESTED, WIDTH, LATENTS = 200, 60, 16, 5
PAIRS = ["0-1", "0-cxr", "2-cxr", "1-cxr"]


def replay_of(training, tested=TESTED):
    """CMCL whose encoders say a noisy latent, which all modalities share, each in directions of its own."""
    torch.manual_seed(0)
    hyper = {"lr": 1e-3, "groups": [0, 4, 9], "pairs": PAIRS, "explained": 0.9999}
    model = build("cmcl", small_shapes("mortality"), hyper).eval()
    spaces = torch.linalg.qr(torch.randn(4, WIDTH, LATENTS)).Q
    noisy = torch.randn(N + TESTED, 1, LATENTS) + 0.3 * torch.randn(N + TESTED, 4, LATENTS)
    vectors = torch.einsum("nul,uwl->nuw", noisy, spaces)
    model.encode = lambda batch: vectors[batch.index]
    learned = example_batch(model.shapes, N, torch.ones(N).bool())
    shown = example_batch(model.shapes, tested, torch.ones(tested).bool())
    shown.index.add_(N)
    return made_up(training, model, "cmcl", "mortality", [(learned, None)], [(shown, None)], 20)


@pytest.fixture(scope="module")
def found(training):
    return {(row["method"], row["step"], row["place"]): row for row in of_run(replay_of(training))}


def test_similarities_of_earlier_pairs_stay_with_projection_and_move_without(found):
    for place in (1, 2, 3):
        kept, plain = (found[method, 4, place] for method in (KEPT, PLAIN))
        assert kept["drift"] < 1e-3
        assert plain["drift"] > 0.05
        assert kept["recall_1"] == found[KEPT, place, place]["recall_1"]
    assert found[KEPT, 1, 1]["recall_1"] > 5 * found[KEPT, 1, 1]["chance_1"]  # there was something to lose


def test_each_step_has_the_pairs_so_far_and_what_is_aligned_at_once_all_of_them(found):
    for method in (KEPT, PLAIN):
        assert [key[1:] for key in found if key[0] == method] == [(s, p) for s in range(1, 5) for p in range(1, s + 1)]
    joint = [row for key, row in found.items() if key[0] == JOINT]
    assert [(row["step"], row["pair"]) for row in joint] == [(4, pair) for pair in PAIRS]
    assert all("drift" not in row for row in joint)
    assert {row["chance_1"] for row in found.values()} == {1 / TESTED}


def test_directions_are_those_that_both_projectors_take_when_a_pairs_turn_comes(found):
    taken = [found[KEPT, step, step]["directions"] for step in range(1, 5)]
    assert taken[0] == 0.0
    assert taken[1] == pytest.approx((LATENTS / WIDTH) ** 2 / 2)  # of the record's group; the image is new
    assert taken[3] == pytest.approx((LATENTS / WIDTH) ** 2, rel=0.5)
    assert {found[PLAIN, step, step]["directions"] for step in range(1, 5)} == {0.0}
    assert found[KEPT, 4, 1]["directions"] is None


def test_of_a_handful_of_stays_nothing_is_told(training):
    rows = list(of_run(replay_of(training, tested=9)))
    assert len(rows) == 10 + 10 + 4
    assert not any("recall_1" in row or "drift" in row for row in rows)


def test_recall_by_hand():
    """Of rows the first finds its own at once, of columns the second; the others have one before it."""
    similar = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 5.0], [9.0, 0.0, 1.0]])
    assert recall(similar, 1) == pytest.approx(2 / 6)
    assert recall(similar, 2) == 1.0
