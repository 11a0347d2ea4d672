"""Numbers as text for people."""

import pytest

from pipeline.presentation.tables import Cell
from pipeline.presentation.text import joined, plural, verb, with_interval


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (1, "1 death"),
        ("1", "1 death"),
        (2, "2 deaths"),
        ("0", "0 deaths"),
        ("<10", "<10 deaths"),
        ("hidden", "an untold number of deaths"),
    ],
)
def test_a_count_with_its_noun(count, text):
    assert plural(count, "death") == text


def test_words_that_end_in_y():
    assert [plural(count, "strategy") for count in (0, 1, 2)] == ["0 strategies", "1 strategy", "2 strategies"]
    assert plural(2, "stay") == "2 stays"


def test_what_is_joined_reads_as_one_speaks():
    assert [joined(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


def test_a_verb_goes_with_its_count():
    assert [verb(count, "is", "are") for count in (0, 1, 2)] == ["are", "is", "are"]


def test_a_number_in_a_sentence_says_why_it_or_its_interval_is_absent():
    assert Cell(None, None, None).told == "not estimable"
    assert Cell(0.8, None, None).told == "0.800 (too few stays for an interval)"
    assert Cell(0.8, 0.7, 0.9).told == "0.800 (0.700–0.900)"


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (-0.144, -0.00025001, "−0.072 (−0.144 to −0.0003)"),  # below 0 …
        (-0.144, 0.0003, "−0.072 (−0.144 to 0.0003)"),  # … and not
        (0.00004, 0.2, "−0.072 (0.00004–0.200)"),
        (-0.144, 0.0, "−0.072 (−0.144 to 0.000)"),  # 0 is 0
        (-0.144, -1e-12, "−0.072 (−0.144 to 0.000)"),  # and so is rounding
        (-0.0005001, 0.0006, "−0.072 (−0.001 to 0.001)"),
    ],
)
def test_a_bound_that_is_not_zero_does_not_look_like_it(low, high, text):
    """What is told of an interval is on which side of 0 its ends lie."""
    assert with_interval(-0.072, low, high) == text
    assert Cell(-0.072, low, high).text == text
    assert f"({Cell(-0.072, low, high).interval})" in text
