"""Tables of answers: what is blank throughout is not shown."""

from pipeline.presentation.answers import AnswerTable
from pipeline.presentation.tables import Cell

BOTH, NONE = Cell(0.1, 0.0, 0.2), Cell(0.1, None, None)


def table(header, *rows):
    return AnswerTable("T", "", header, rows, "tables/t.csv", "gain", anchors=tuple(f"row-{each[0]}" for each in rows))


def test_a_column_that_is_blank_in_every_row_is_not_shown():
    made = table(("Name", "Note", "Score", ""), ("a", "", NONE, ""), ("b", "", None, "why"))
    shown = made.shown
    assert shown.header == ("Name", "Score", "")
    assert shown.rows == (("a", NONE, ""), ("b", None, "why"))
    assert shown.anchors == ("row-a", "row-b")
    assert table(("Name", "")).shown.header == ("Name", "")


def test_only_a_column_with_an_interval_can_lack_one():
    assert table(("Name", "Score", "Share"), ("a", BOTH, NONE), ("b", NONE, NONE)).bounded == (False, True, False)
