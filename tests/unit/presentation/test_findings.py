"""What a figure shows, in words."""

from pipeline.presentation.findings import by_series, extremes, sides
from pipeline.presentation.tables import Cell


def test_the_highest_and_the_lowest():
    assert extremes({"gbm": 0.8, "lstm": None, "resnet": -0.1}) == "highest: gbm 0.800, lowest: resnet −0.100"
    assert extremes({"gbm": 0.8}) == "highest: gbm 0.800"
    assert extremes({"gbm": None}) == "not estimable"


def test_which_differences_lie_on_one_side_of_zero():
    cells = {
        "a": Cell(0.2, 0.1, 0.3),
        "b": Cell(-0.2, -0.3, -0.1),
        "c": Cell(0.1, -0.1, 0.3),
        "d": Cell(0.1, None, None),
        "e": None,
    }
    assert sides(cells) == "above 0: a; below 0: b; 1 of 3 intervals hold 0"
    assert sides({"d": cells["d"]}) == "highest: d 0.100"
    assert sides({}) == "not estimable"


def test_a_series_after_the_other():
    assert by_series({"base": "x", "matched": "y"}) == "base: x. matched: y"
