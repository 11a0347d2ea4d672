"""What it takes to measure a line of text, against its letters' outlines, of which a page has some 600."""

import time

import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from pipeline.presentation.figures import STYLE, TITLE, line_width

TEXTS = [f"Phenotypes, base cohort, what fusion adds by group {i}" for i in range(100)]


@pytest.mark.benchmark
def test_a_line_is_measured_in_a_tenth_of_its_outlines_time():
    look = FontProperties(family=STYLE["font.family"], **TITLE)
    seconds = []
    for measure in (
        lambda text: TextPath((0, 0), text, prop=look).get_extents(),
        lambda text: line_width(text, **TITLE),
    ):
        measure(TEXTS[0])  # which loads the font
        start = time.process_time()
        for text in TEXTS:
            measure(text)
        seconds.append(time.process_time() - start)
    outlines, own = seconds
    print(f"outlines {1000 * outlines:.0f} ms, advances {1000 * own:.0f} ms of {len(TEXTS)} lines")
    assert own <= outlines / 10
