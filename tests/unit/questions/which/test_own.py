"""Single strategies' own tables on the page: every number from its CSV, and none of who is not in the grid."""

import pytest

from pipeline.errors import InputError
from pipeline.forgetting.tables import JOINT, KEPT, PLAIN
from pipeline.forgetting.tables import SCHEMAS as FORGETTING
from pipeline.params import Grid
from pipeline.presentation.tables import Cell
from pipeline.questions.which import curriculum, distillation
from pipeline.questions.which.ablations import table
from pipeline.questions.which.own import FILES, TABLES, own_tables

HERE = {"task": "los", "cohort": "matched"}


def shown(tmp_path, strategy, **rows):
    """What the page shows of the strategy, of tables with these rows."""
    schemas = curriculum.SCHEMAS | FORGETTING | {"distillation": distillation.SCHEMA}
    for name, found in rows.items():
        table([HERE | row for row in found], schemas[name]).write_csv(tmp_path / f"{name}.csv")
    return own_tables(tmp_path, Grid(("lstm", strategy), ("los",)))


def plain(value):
    return Cell(value, None, None) if value is None else Cell(pytest.approx(value), None, None)


def test_a_table_is_needed_where_the_grid_has_its_strategy_alone(tmp_path):
    assert own_tables(tmp_path, Grid(("lstm",), ("los",))) == []
    assert list(TABLES) == list(FILES)
    for strategy, (first, *_) in FILES.items():
        with pytest.raises(InputError, match=rf"{first}\.csv: not found"):
            own_tables(tmp_path, Grid((strategy,), ("los",)))


def test_the_curriculum_is_held_against_its_base_by_stratum_and_told_epoch_by_epoch(tmp_path):
    scores = [
        {"variant": variant, "stratum": stratum, "metric": "accuracy", "value": value, "low": 0.1, "high": 0.9}
        | ({} if variant == "drfuse" else {"difference": 0.1, "difference_low": -0.2, "difference_high": 0.4})
        for stratum, value in (("all", 0.5), ("long", 0.3))
        for variant in ("drfuse", "inverse_frequency", "climd")
    ]
    told = {"variant": "climd", "epoch": 1, "runs": 3, "progress": 0.2, "drawn_rarest": 0.3, "drawn_pairs": 0.4}
    told |= {"score_rarest": 0.5, "score": 0.6, "metric": "accuracy", "validation": 0.7}
    epochs = [told, told | {"epoch": 2, "validation": None}, told | {"variant": "unmeasured"}]
    first, second = shown(tmp_path, "climd", curriculum=scores, curriculum_epochs=epochs)
    assert first.header == ("Variant", "All", "… less drfuse", "Stays of 6 days and more", "… less drfuse")
    less = Cell(0.1, -0.2, 0.4)
    assert first.rows == (
        ("drfuse", Cell(0.5, 0.1, 0.9), "–", Cell(0.3, 0.1, 0.9), "–"),
        ("inverse frequency", Cell(0.5, 0.1, 0.9), less, Cell(0.3, 0.1, 0.9), less),
        ("climd", Cell(0.5, 0.1, 0.9), less, Cell(0.3, 0.1, 0.9), less),
    )
    assert first.title == "climd: Length of stay, matched cohort, Accuracy"
    assert "than that of drfuse" in first.note
    numbers = (*(Cell(value, None, None) for value in (0.2, 0.3, 0.4, 0.5, 0.6)),)
    assert second.rows == (
        ("1", 3, *numbers, Cell(0.7, None, None)),
        ("2", 3, *numbers, Cell(None, None, None)),
    )
    assert second.header[-1] == "Accuracy"
    assert first.folded
    assert (first.source, first.stage, second.source) == (
        "tables/curriculum.csv",
        "mechanisms",
        "tables/curriculum_epochs.csv",
    )


def test_without_its_base_in_the_grid_the_curriculum_is_compared_with_nothing(tmp_path):
    score = {"variant": "climd", "stratum": "all", "metric": "accuracy", "value": 0.5, "low": 0.1, "high": 0.9}
    (found,) = shown(tmp_path, "climd", curriculum=[score], curriculum_epochs=[])
    assert (found.header, found.rows) == (("Variant", "All"), (("climd", Cell(0.5, 0.1, 0.9)),))
    assert "than that of its base" in found.note


def test_students_stand_before_their_teachers_with_what_teaching_gave(tmp_path):
    def row(answers, metric, value, **more):
        return {"answers": answers, "metric": metric, "value": value, "low": 0.1, "high": 0.9, "parameters": 70} | more

    taught = {"taught": True, "against": "untaught", "difference": 0.2, "difference_low": 0.1, "difference_high": 0.3}
    heads = {"head_ehr": 0.4, "head_cxr": 0.3, "apart": 0.02}
    rows = [
        each
        for metric, value in (("accuracy", 0.5), ("kappa", 0.6))
        for each in (
            row("mind", metric, value, **taught, **heads),
            row("half_untaught", metric, value, taught=False, **heads),
            row("teachers", metric, value),
        )
    ]
    (found,) = shown(tmp_path, "mind", distillation=rows)
    five, six, gain = Cell(0.5, 0.1, 0.9), Cell(0.6, 0.1, 0.9), Cell(0.2, 0.1, 0.3)
    own = tuple(Cell(value, None, None) for value in (0.4, 0.3, 0.02))
    assert found.rows == (
        ("mind", 70, five, gain, six, gain, *own),
        ("half untaught", 70, five, "–", six, "–", *own),
        ("(mean of both)", 70, five, "–", six, "–", "–", "–", "–"),
    )


def test_what_pal_forgets_is_what_was_learned_less_what_is_left(tmp_path):
    def row(method, phase, group, value, lost):
        about = {"method": method, "phase": phase, "group": group, "outputs": f"{group}-{group}" if group else "mean"}
        about |= {"runs": 3, "metric": "accuracy", "value": value}
        bounds = {"value_lost_low": lost - 0.1, "value_lost_high": lost + 0.1} if lost else {}
        return about | {"value_lost": lost} | bounds

    values = {(1, 1): (0.9, 0.0), (2, 1): (0.4, 0.5), (2, 2): (0.8, 0.0), (2, 0): (0.6, 0.25)}
    rows = [row(method, *at, *value) for method in (KEPT, PLAIN) for at, value in values.items()]
    rows += [row(JOINT, 2, group, value, None) for group, value in ((1, 0.7), (2, None), (0, 0.7))]
    (found,) = shown(tmp_path, "pal", forgetting_pal=rows)
    forgot = [(0.9, 0.4, Cell(0.5, 0.4, 0.6)), (0.8, 0.8, plain(0.0)), (0.85, 0.6, Cell(0.25, 0.15, 0.35))]
    names = ["classes 1-1", "classes 2-2", "mean"]
    for i, who in enumerate(("PAL", "descent")):
        assert found.rows[3 * i : 3 * i + 3] == tuple(
            (f"{who}: {name}", plain(then), plain(now), lost)
            for name, (then, now, lost) in zip(names, forgot, strict=True)
        )
    assert found.rows[6:] == tuple(
        (f"all at once: {name}", "–", plain(value), "–") for name, value in zip(names, (0.7, None, 0.7), strict=True)
    )
    assert found.note.startswith("Groups of classes arrive one after another. Accuracy of each")


def test_what_cmcl_forgets_is_told_with_chance_drift_and_what_could_not_move(tmp_path):
    def row(method, step, place, first, **more):
        about = {"method": method, "step": step, "place": place, "pair": f"{place}-cxr" if place else "mean"}
        return about | {"recall_1": first, "recall_5": first + 0.1, "chance_1": 0.02} | more

    bounds = {"recall_1_lost_low": 0.02, "recall_1_lost_high": 0.18}
    rows = [
        row(KEPT, 1, 1, 0.5, recall_1_lost=0.0, recall_5_lost=0.0, drift=0.0, directions=0.0),
        row(KEPT, 2, 1, 0.4, recall_1_lost=0.1, **bounds, recall_5_lost=-0.2, drift=0.3, directions=0.0),
        row(KEPT, 2, 2, 0.6, recall_1_lost=0.0, recall_5_lost=0.0, drift=0.0, directions=0.1),
        row(KEPT, 2, 0, 0.5, recall_1_lost=0.05, recall_5_lost=-0.1, drift=0.15, directions=0.05),
        row(JOINT, 2, 1, 0.7),
        row(JOINT, 2, 0, 0.7),
    ]
    (found,) = shown(tmp_path, "cmcl", forgetting_cmcl=rows)
    lost = Cell(0.1, 0.02, 0.18)
    assert found.header[1:4] == ("First, when aligned", "First, at the end", "Lost")
    assert found.rows == (
        ("CMCL: 1-cxr", *map(plain, (0.5, 0.4)), lost, *map(plain, (0.02, 0.3, 0.5, -0.2, 0.3, 0.0))),
        ("CMCL: 2-cxr", *map(plain, (0.6, 0.6, 0.0, 0.02, 0.7, 0.7, 0.0, 0.0, 0.1))),
        ("CMCL: mean", *map(plain, (0.55, 0.5, 0.05, 0.02, 0.5, 0.6, -0.1, 0.15, 0.05))),
        ("all at once: 1-cxr", "–", plain(0.7), "–", plain(0.02), "–", plain(0.8), "–", "–", "–"),
        ("all at once: mean", "–", plain(0.7), "–", plain(0.02), "–", plain(0.8), "–", "–", "–"),
    )
