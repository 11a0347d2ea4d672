"""Counts of people: what is suppressed, and that nothing which is published gives it away."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.disclosure import HIDDEN, SMALL, groups, levels, parted, pieces, protected, suppressed, told

SHORT = st.lists(st.integers(0, 14), min_size=2, max_size=4)


def test_fewer_than_ten_people_are_not_counted_and_nobody_is():
    assert [told(count) for count in (0, 1, 9, 10)] == [0, "<10", "<10", 10]
    assert [suppressed(count) for count in (None, 0, 9, 10)] == [None, "0", "<10", "10"]


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ([12, 40], [12, 40]),
        ([4, 40, 20], [SMALL, 40, HIDDEN]),  # alone, 4 would be the total less 60
        ([4, 0, 20], [SMALL, 0, HIDDEN]),  # nobody last
        ([4, 0], [SMALL, HIDDEN]),
        ([4, 5, 20], [SMALL, SMALL, 20]),
        ([1, 1, 20], [SMALL, SMALL, HIDDEN]),  # a sum of 2 is 1 + 1
        ([9, 9, 20], [SMALL, SMALL, HIDDEN]),  # and 18 is 9 + 9
        ([1, 10, 20], [SMALL, HIDDEN, HIDDEN]),  # and 11 is 1 + 10
        ([4], [SMALL]),
        ([], []),
    ],
)
def test_a_count_that_would_give_a_suppressed_one_away_is_hidden(counts, shown):
    assert protected(counts, [range(len(counts))]) == shown


def possible(word, most):
    """The counts that a reader may think of where this is shown."""
    if word == SMALL:
        return range(1, 10)
    return range(10, most + 1) if word == HIDDEN else [word]


@given(SHORT)
@settings(deadline=None)
def test_who_knows_the_sum_cannot_work_a_suppressed_count_out(counts):
    shown = protected(counts, [range(len(counts))])
    ranges = [possible(word, sum(counts)) if count else [0] for count, word in zip(counts, shown, strict=True)]
    readings = [each for each in itertools.product(*ranges) if sum(each) == sum(counts)]
    assert tuple(counts) in readings
    if any(isinstance(word, int) and word for word in shown):  # else there is nothing left to hide it behind
        for place, word in enumerate(shown):
            assert word != SMALL or len({each[place] for each in readings}) > 1


def test_the_part_that_leaves_few_is_hidden_and_the_rest_of_a_hidden_whole_needs_no_other():
    # 12 with an image of 15 leave 3 without: both columns lose a second
    assert parted([15, 60, 90], [12, 30, 40], [15, 60, 90]) == ([HIDDEN, HIDDEN, 40], [SMALL, HIDDEN, 50])
    # the second whole is hidden already, so that nobody can tell its rest: nothing else is lost
    assert groups([5, 30, 90], [0, 10, 40]) == ([SMALL, HIDDEN, 90], [0, 10, 40], [SMALL, HIDDEN, 50])
    assert parted([20], [17], [20]) == ([HIDDEN], [SMALL])
    # 4 of 24 with an image, 7 of 17 without: each is the other's second, and the third group is whole
    assert parted([24, 42, 17], [4, 23, 10], [24, 42, 17]) == ([SMALL, 23, HIDDEN], [HIDDEN, 19, SMALL])
    assert parted([20], [20], [20]) == ([20], [0])


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=5))
@settings(deadline=None)
def test_neither_a_group_nor_its_part_nor_its_rest_below_ten_follows(pairs):
    wholes, parts = [sum(pair) for pair in pairs], [pair[0] for pair in pairs]
    table = list(zip(*groups(wholes, parts), strict=True))
    for (part, rest), (whole, with_, without) in zip(pairs, table, strict=True):
        for count, word in ((part + rest, whole), (part, with_), (rest, without)):
            assert word == count if isinstance(word, int) else word == (SMALL if 0 < count < 10 else HIDDEN)
            assert isinstance(word, str) or not 0 < count < 10
        if 0 < rest < 10:
            assert isinstance(whole, str) or isinstance(with_, str)
    for column in zip(*table, strict=True):
        away = [word for word in column if isinstance(word, str)]
        assert SMALL not in away or len(away) > 1 or len(column) == 1


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ([140, 140, 100, 60], [140, 140, 100, 60]),
        ([140, 100, 97, 60], [140, HIDDEN, 97, 60]),  # 3 went: 100 would tell
        ([140, 100, 97, 96, 60], [140, HIDDEN, HIDDEN, 96, 60]),
        ([140, 139, 100], [140, HIDDEN, 100]),  # the first stands elsewhere, too
        ([140, 63, 60], [140, HIDDEN, 60]),  # and so does the last
        ([140, 8, 8], [140, SMALL, SMALL]),
        ([140, 140, 40, 0], [140, 140, 40, 0]),
    ],
)
def test_the_few_who_went_at_a_rule_do_not_follow_from_who_was_left(counts, shown):
    assert levels(counts) == shown


@given(st.lists(st.integers(0, 40), min_size=2, max_size=7).map(lambda each: sorted(each, reverse=True)))
def test_between_two_levels_that_are_shown_nobody_went_or_ten_did(counts):
    shown = levels(counts)
    seen = [word for word in shown if isinstance(word, int)]
    assert all(
        high - low == 0 or high - low >= 10
        for high, low in itertools.pairwise(seen)
        if (high, low) != (counts[0], counts[-1])
    )
    assert all(word == count for word, count in zip(shown, counts, strict=True) if isinstance(word, int))
    assert all(isinstance(word, str) for word, count in zip(shown, counts, strict=True) if 0 < count < 10)


@pytest.mark.parametrize(
    ("counts", "whole", "shown"),
    [
        ([30, 12], 42, [30, 12]),
        ([38, 4], 42, [HIDDEN, SMALL]),  # 4 is 42 less 38
        ([42, 0], 42, [42, 0]),
        ([30, 12], HIDDEN, [HIDDEN, 12]),  # together they would tell the whole
        ([42], HIDDEN, [HIDDEN]),
        ([6, 2], SMALL, [SMALL, SMALL]),
        ([], 0, []),
        ([], SMALL, []),
    ],
)
def test_pieces_tell_neither_themselves_nor_their_whole(counts, whole, shown):
    assert pieces(counts, whole) == shown
