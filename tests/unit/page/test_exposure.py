"""What a frozen encoder has seen stands across the page's head and in every row that sees images."""

import json

import pytest

from pipeline.page.exposure import badges, banner
from pipeline.page.page import build
from pipeline.params import Grid
from tests.support.pages import SMALL

WHY = "it saw train of MIMIC-CXR's own split"


def exposure(badge, in_use="rad-dino"):
    return {
        "in_use": in_use,
        "encoders": {"rad-dino": {"encoder": "rad-dino", "badge": badge, "why": WHY, "parts": []}},
    }


@pytest.mark.parametrize(
    ("badge", "word", "told"),
    [
        ("images seen", "IMAGES SEEN", "which has seen images of patients that are tested here"),
        ("labels or reports seen", "LABELS OR REPORTS SEEN", "which has learned from labels or reports of patients"),
        ("unknown", "OVERLAP UNKNOWN", "of which it is not known whether it has seen patients"),
    ],
)
def test_the_banner(badge, word, told):
    ((found, sentence),) = banner(exposure(badge))
    assert found == word
    assert f"through rad-dino, a frozen encoder {told}" in sentence
    assert f"({WHY})" in sentence


def test_no_banner_for_what_is_clean_or_trained():
    for each in (exposure("clean"), exposure("images seen", in_use=None), {}, None):
        assert banner(each) == []


def test_a_badge_for_those_that_see_images():
    modalities = {"lstm": ["ehr"], "resnet": ["cxr"], "medfuse": ["cxr", "ehr"]}
    assert badges(exposure("clean"), modalities) == {"resnet": "clean", "medfuse": "clean"}
    assert (
        badges(exposure("clean", in_use=None), modalities) == badges(None, modalities) == badges({}, modalities) == {}
    )


@pytest.mark.usefixtures("undrawn")
def test_rows_of_the_page_have_it(own, shown, page):
    (own / "reports/data/exposure.json").write_text(json.dumps(exposure("images seen")))
    grid = {"grid": Grid(("lstm", "resnet"), ("los",))}
    html, _ = build(own / "data", own / "reports", shown | SMALL | grid)
    chip = '<span class="chip open">images seen</span>'
    assert f'<th scope="row">resnet {chip}</th>' in html
    assert f'<a href="#card-resnet">resnet</a> {chip}</th>' in html
    assert f"lstm {chip}" not in html
    assert "<strong>IMAGES SEEN</strong>" in html
    assert "Exposure" in html
    (own / "reports/data/exposure.json").write_text("{}")
    html, _ = build(own / "data", own / "reports", shown | SMALL | grid)
    assert "IMAGES SEEN" not in html
    assert "Exposure" not in html
    assert chip not in page
