"""One radiograph: shape and orientation of its pixels, and a file that is damaged."""

import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.closure import ROOT
from pipeline.mimic import pixels
from pipeline.mimic.pixels import ImageError, pack
from tests.support.radiographs import _noise, _truncated, jpeg, radiograph


@given(st.integers(8, 90), st.integers(8, 90), st.sampled_from([8, 16, 33, 64]))
@settings(max_examples=60, deadline=None)
def test_the_longer_side_fills_the_square_and_the_shorter_one_is_padded_with_black(width, height, px):
    buffer = io.BytesIO()
    radiograph(width, height).save(buffer, "JPEG", quality=95)
    packed = pack(buffer, px, "image")
    assert packed.pixels.shape == (px, px)
    assert (packed.height, packed.width, packed.mode) == (height, width, "L")
    inside = packed.pixels > 0
    shown = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    expected = [max(1, round(side * px / max(width, height))) for side in (height, width)]
    assert [len(part) for part in shown] == expected
    for part in shown:  # centred, up to one pixel
        assert abs(part[0] - (px - 1 - part[-1])) <= 1
    assert inside[shown[0][0] : shown[0][-1] + 1, shown[1][0] : shown[1][-1] + 1].all()


def test_nothing_is_turned_or_mirrored(tmp_path):
    canvas = np.full((120, 80), 40, np.uint8)
    canvas[:30, :20] = 250  # above left
    canvas[90:, 60:] = 140  # below right
    shown = pack(jpeg(tmp_path / "a.jpg", Image.fromarray(canvas)), 48).pixels
    left, right = (48 - 32) // 2, (48 + 32) // 2
    assert shown[4, left + 3] > 230
    assert 120 < shown[43, right - 4] < 160
    assert shown[4, right - 4] < 60
    assert shown[43, left + 3] < 60


@pytest.mark.parametrize("px", [16, 64, 224])
def test_it_looks_like_an_exact_area_average(tmp_path, px):
    """The decoder's halving and Lanczos stay close to averaging every source pixel: no aliasing."""
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(30, 220, (8, 8)).astype(np.uint8)).resize(
        (896, 896), Image.Resampling.BICUBIC
    )
    noisy = np.asarray(coarse) + rng.normal(0, 25, (896, 896))
    canvas = noisy.clip(0, 255).astype(np.uint8)
    shown = pack(jpeg(tmp_path / "a.jpg", Image.fromarray(canvas)), px).pixels.astype(float)
    side = 896 // px
    exact = canvas.reshape(px, side, px, side).mean(axis=(1, 3))
    assert np.abs(shown - exact).mean() < 4
    assert abs(shown.mean() - exact.mean()) < 1


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_colour_becomes_grey(tmp_path, mode):
    grey = radiograph(64, 64)
    packed = pack(jpeg(tmp_path / "a.jpg", grey.convert(mode)), 32)
    plain = pack(jpeg(tmp_path / "b.jpg", grey), 32)
    assert packed.mode == mode
    assert np.abs(packed.pixels.astype(int) - plain.pixels).max() <= 4


def _png(path):
    radiograph(64, 64).save(path, "PNG")


def _empty(path):
    path.write_bytes(b"")


def _folder(path):
    path.unlink()
    path.mkdir()


def _header_of_a_giant(path):
    """A JPEG whose header claims 65,000 x 65,000 pixels."""
    content = bytearray(path.read_bytes())
    start = content.index(b"\xff\xc0") + 5
    content[start : start + 4] = (65_000).to_bytes(2, "big") * 2
    path.write_bytes(bytes(content))


def _tiny(path):
    jpeg(path, radiograph(3, 3))


DAMAGE = [
    (_truncated, "damaged"),
    (_noise, "not a JPEG"),
    (_png, "not a JPEG"),
    (_empty, "not a JPEG"),
    (_folder, "damaged"),
    (_header_of_a_giant, "more than 50,000,000 pixels"),
    (_tiny, "a side below 8 pixels"),
]


@pytest.mark.parametrize(("harm", "reason"), DAMAGE)
def test_a_damaged_file_is_named(tmp_path, harm, reason):
    path = jpeg(tmp_path / "files" / "a.jpg", radiograph(200, 200))
    harm(path)
    with pytest.raises(ImageError) as caught:
        pack(path, 16)
    assert caught.value.reason == reason
    assert str(caught.value).startswith(f"{path}: {reason}")
    assert "\n" not in str(caught.value)


def test_memory_does_not_follow_the_header(tmp_path):
    path = jpeg(tmp_path / "a.jpg", radiograph(200, 200))
    _header_of_a_giant(path)
    code = (
        "import resource, sys; from pathlib import Path; from pipeline.mimic.pixels import pack, ImageError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"try: pack(Path({str(path)!r}), 16)\n"
        "except ImageError: pass\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) < 50  # MB; decoded, it would be 4 GB
    assert done.stderr == ""


def test_half_an_image_never_passes(monkeypatch, tmp_path):
    monkeypatch.setattr(pixels.ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(RuntimeError, match="LOAD_TRUNCATED_IMAGES"):
        pack(jpeg(tmp_path / "a.jpg", radiograph(64, 64)), 16)
