"""The drawn radiographs: deterministic grey pixels that change where, and only where, a cause is seen; development."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.synthetic.darkroom import BATCH, Shot, developing
from pipeline.synthetic.radiograph import Findings, draw

# cause: low value, high value, region (top, bottom, left, right, in 32nds of the picture) that must change
REGIONS = {
    "heart_size": (-1.5, 2.0, (14, 22, 19, 25)),
    "aorta": (-1.5, 2.0, (10, 24, 18, 22)),
    "effusion": (-1.5, 2.0, (17, 24, 4, 28)),
    "opacity": (-1.5, 2.0, (11, 19, 5, 27)),
    "hyperinflation": (-1.5, 2.0, (20, 26, 6, 12)),
    "air": (-1.0, 2.1, (6, 18, 4, 28)),
    "gas_exchange": (-1.5, 2.0, (8, 20, 5, 12)),
    "overload": (-1.5, 2.0, (10, 18, 10, 15)),
    "pacing": (-1.0, 1.7, (6, 11, 23, 27)),
}


def small(findings: Findings, view: str = "PA", seed: int = 1) -> np.ndarray:
    """The picture at 32 x 32, as a small network sees it."""
    pixels = draw(findings, view=view, height=128, width=128, seed=[seed])  # type: ignore[arg-type]
    return np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR)).astype(float)


def test_same_arguments_same_pixels_and_other_seed_other_pixels() -> None:
    first = draw(Findings(), view="AP", height=50, width=60, seed=[1, 2])
    assert first.shape == (50, 60)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, draw(Findings(), view="AP", height=50, width=60, seed=[1, 2]))
    assert (first != draw(Findings(), view="AP", height=50, width=60, seed=[1, 3])).mean() > 0.5


@pytest.mark.parametrize("cause", REGIONS)
def test_a_cause_changes_several_pixels_at_32_by_32_where_it_is_seen(cause: str) -> None:
    low, high, (top, bottom, left, right) = REGIONS[cause]
    change = np.abs(small(Findings(**{cause: high})) - small(Findings(**{cause: low})))
    assert (change[top:bottom, left:right] > 12).sum() >= 6
    assert change[:3].mean() < 3  # the top of the picture, above the lungs


@pytest.mark.parametrize("cause", REGIONS)
def test_less_of_a_cause_shown_is_less_change(cause: str) -> None:
    _, high, (top, bottom, left, right) = REGIONS[cause]
    plain = small(Findings(**{cause: min(0.0, REGIONS[cause][0] + 1.5) if cause not in ("air", "pacing") else -0.4}))
    full, weak = (small(Findings(**{cause: share * high})) for share in (1.0, 0.4))
    region = (slice(top, bottom), slice(left, right))
    assert np.abs(weak - plain)[region].mean() < np.abs(full - plain)[region].mean()


def test_the_heart_grows_and_lungs_are_darker_than_mediastinum_and_abdomen() -> None:
    def heart_pixels(size: float) -> int:
        return int((small(Findings(heart_size=size))[19] > 130)[6:27].sum())

    assert heart_pixels(-1.5) < heart_pixels(0.0) < heart_pixels(2.0)
    picture = small(Findings())
    lung = picture[9:18, 7:11].mean()
    assert lung < picture[15:20, 16:19].mean() - 50
    assert lung < picture[28:31, 8:24].mean() - 50


def test_views_differ() -> None:
    ap, pa, lateral = (small(Findings(), view) for view in ("AP", "PA", "LATERAL"))
    assert np.abs(ap - pa).mean() > 3
    assert np.abs(pa - lateral).mean() > 20


def shots(count: int) -> list[Shot]:
    return [Shot(f"files/p1{i % 3}/{i}.jpg", {"opacity": i / 10}, "AP", 30, 24, [i]) for i in range(count)]


def test_development_writes_grey_jpegs_of_the_stated_size_whatever_the_workers(tmp_path: Path) -> None:
    for workers in (1, 2):
        with developing(tmp_path / str(workers), shots(BATCH + 3), workers):
            pass
    for shot in shots(BATCH + 3):
        path = tmp_path / "1" / shot.path
        with Image.open(path) as picture:
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "L", (24, 30))
        assert path.read_bytes() == (tmp_path / "2" / shot.path).read_bytes()
