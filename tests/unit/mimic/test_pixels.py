"""One radiograph: shape and orientation of its pixels, and a file that is damaged."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.closure import ROOT
from pipeline.mimic import pixels
from pipeline.mimic.pixels import ImageError, read_jpeg
from tests.support.radiographs import _noise, _truncated, jpeg, radiograph


def pack(path, px):
    """As the stage does it."""
    return pixels.pack(read_jpeg(path, str(path)), px, str(path))


@given(st.integers(8, 90), st.integers(8, 90), st.sampled_from([8, 16, 33, 64]))
@settings(max_examples=60, deadline=None)
def test_the_longer_side_fills_the_square_and_the_shorter_one_is_padded_with_black(width, height, px):
    buffer = io.BytesIO()
    radiograph(width, height).save(buffer, "JPEG", quality=95)
    packed = pixels.pack(buffer.getvalue(), px, "image")
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


def _large(path):
    """A file of a hundred gigabytes that takes no room."""
    os.truncate(path, 10**11)


def _tiny(path):
    jpeg(path, radiograph(3, 3))


DAMAGE = [
    (_truncated, "damaged"),
    (_noise, "not a JPEG"),
    (_png, "not a JPEG"),
    (_empty, "not a JPEG"),
    (_folder, "cannot be read"),
    (_large, "more than 50,000,000 bytes"),
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
        "import resource, sys; from pathlib import Path\n"
        "from pipeline.mimic.pixels import pack, read_jpeg, ImageError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"try: pack(read_jpeg(Path({str(path)!r}), 'a'), 16, 'a')\n"
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


def grain(width, height, seed=0):
    """A radiograph with noise, as a JPEG's bytes: every part of them matters."""
    rng = np.random.default_rng(seed)
    noisy = np.asarray(radiograph(width, height)) + rng.normal(0, 8, (height, width))
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _zeros(content, start):
    return content[:start] + bytes(2000) + content[start + 2000 :]


def _lost(content, start):
    return content[:start] + content[start + 512 :]


def _twice(content, start):
    return content[: start + 512] + content[start:]


@pytest.mark.parametrize("harm", [_zeros, _lost, _twice])
@pytest.mark.parametrize("px", [16, 224])
def test_damage_in_the_middle_is_heard_though_the_decoder_is_mute(harm, px):
    content = grain(300, 300)
    pixels.pack(content, px, "whole")
    for start in range(1000, len(content) - 3000, 3000):
        harmed = harm(content, start)
        with Image.open(io.BytesIO(harmed)) as image:
            image.load()  # Pillow alone says nothing
        with pytest.raises(ImageError, match=r"^name: damaged: its data ") as caught:
            pixels.pack(harmed, px, "name")
        assert caught.value.reason == "damaged"


@given(
    st.integers(8, 120),
    st.integers(8, 120),
    st.integers(1, 100),
    st.sampled_from(["L", "RGB", "CMYK"]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 9),
    st.sampled_from([b"", b"\0\0\0", b"text"]),
)
@settings(max_examples=80, deadline=None)
def test_no_whole_jpeg_is_taken_for_a_damaged_one(width, height, quality, mode, progressive, optimize, restart, after):
    buffer = io.BytesIO()
    Image.open(io.BytesIO(grain(width, height))).convert(mode).save(
        buffer,
        "JPEG",
        quality=quality,
        progressive=progressive,
        optimize=optimize,
        restart_marker_blocks=restart,
    )
    content = buffer.getvalue() + after
    packed = pixels.pack(content, 32, "name")
    with Image.open(io.BytesIO(content)) as image:
        assert (packed.width, packed.height, packed.mode) == (*image.size, image.mode)


def test_the_strict_reading_changes_no_pixel(monkeypatch):
    content = grain(200, 150)
    strict = pixels.pack(content, 64, "name").pixels
    monkeypatch.setattr(pixels, "END", b"no such bytes")
    assert (pixels.pack(content, 64, "name").pixels == strict).all()


@pytest.mark.parametrize(("low", "high", "expected"), [(0, 0, True), (255, 255, True), (90, 200, False)])
def test_a_picture_of_one_grey_is_told(tmp_path, low, high, expected):
    canvas = np.full((40, 60), low, np.uint8)
    canvas[:, 30:] = high
    assert pack(jpeg(tmp_path / "a.jpg", Image.fromarray(canvas)), 16).one_grey is expected


@pytest.mark.parametrize(("orientation", "expected"), [(None, False), (1, False), (6, True)])
def test_a_turn_that_exif_asks_for_is_told_and_not_made(tmp_path, orientation, expected):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    plain = pack(jpeg(tmp_path / "a.jpg", radiograph(80, 40)), 32)
    marked = pack(jpeg(tmp_path / "b.jpg", radiograph(80, 40), exif=exif), 32)
    assert marked.turned is expected
    assert (marked.pixels == plain.pixels).all()
