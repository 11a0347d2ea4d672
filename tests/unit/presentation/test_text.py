"""Numbers as text for people."""

import pytest

from pipeline.presentation.text import plural


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
