"""forgetting_cmcl.csv: what was aligned first finds itself later with projection, and less without."""

import numpy as np
import pytest
import torch

from pipeline.forgetting import cmcl
from pipeline.forgetting.cmcl import found as hits
from pipeline.forgetting.cmcl import of_run
from pipeline.forgetting.tables import JOINT, KEPT, PLAIN, over_runs
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
    return {(row["method"], row["step"], row["place"]): row for row in of_run(replay_of(training)) if row["place"]}


def test_similarities_of_earlier_pairs_stay_with_projection_and_move_without(found):
    for place in (1, 2, 3):
        kept, plain = (found[method, 4, place] for method in (KEPT, PLAIN))
        assert kept["drift"] < 1e-3
        assert plain["drift"] > 0.05
        assert kept["recall_1"].tolist() == found[KEPT, place, place]["recall_1"].tolist()
        assert not kept["recall_1_lost"].any()
    assert found[KEPT, 1, 1]["recall_1"][0] > 5 * found[KEPT, 1, 1]["chance_1"]  # there was something to lose


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
    assert found[KEPT, 4, 2]["directions"] == taken[1]  # of the pair's own step


def test_of_a_handful_of_stays_nothing_is_told(training):
    rows = list(of_run(replay_of(training, tested=9)))
    assert len(rows) == 10 + 10 + 4 + 9  # and the means after each step
    assert not any("recall_1" in row or "drift" in row for row in rows)


def test_recall_by_hand():
    """Of rows the first finds its own at once, of columns the second; the others have one before it."""
    similar = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 5.0], [9.0, 0.0, 1.0]])
    assert hits(similar, 1).tolist() == [0.5, 0.5, 0.0]
    assert hits(similar, 2).tolist() == [1.0, 1.0, 1.0]


def test_the_interval_of_what_was_lost_is_that_of_the_difference_in_each_draw_of_subjects(training, monkeypatch):
    """Who finds whom among all, by hand, before and after; then draw by draw the loss ± 1.96 standard deviations."""
    seen, similar_of = [], cmcl._similar
    monkeypatch.setattr(cmcl, "_similar", lambda *told: seen.append(similar_of(*told)) or seen[-1])
    replay = replay_of(training)
    table = over_runs(list(of_run(replay)), "forgetting_cmcl", 0.25, 0.95)
    plain = seen[14:]  # a step asks for the new pair, and then for all so far: 2, 3, 4 and 5 times
    weights = np.concatenate(replay.draws.blocks, axis=1)[replay.at]

    def told(similar, nearest):
        hits = np.zeros(TESTED)
        for i in range(TESTED):
            row, column = ((line > line[i]).sum() < nearest for line in (similar[i], similar[:, i]))
            hits[i] = (float(row) + float(column)) / 2
        return np.array([np.average(hits, weights=weight) for weight in weights.T])

    losses = {n: [told(plain[then], n) - told(plain[10 + i], n) for i, then in enumerate((0, 2, 5, 9))] for n in (1, 5)}
    for nearest, each in losses.items():
        for place, lost in [*enumerate(each, 1), (0, np.mean(each, axis=0))]:
            row = table.filter(method=PLAIN, step=4, place=place).row(0, named=True)
            found = [row[f"recall_{nearest}_lost{bound}"] for bound in ("", "_low", "_high")]
            spread = 1.959964 * lost[1:].std(ddof=1)
            if spread:
                assert found == pytest.approx([lost[0], lost[0] - spread, lost[0] + spread])
            else:
                assert found == [0.0, None, None]
    assert any(lost.any() for lost in losses[1])
    assert table.filter(method=PLAIN, step=4, place=0)["pair"].item() == "mean"
