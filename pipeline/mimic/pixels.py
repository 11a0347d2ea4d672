"""One JPEG -> one square grey image of a fixed size. Which images, and where they go, is images.py's affair."""

from __future__ import annotations

import io
import os
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from pipeline.errors import InputError

MAX_PIXELS = 50_000_000  # three times the largest radiograph of MIMIC-CXR-JPG; checked in the header, before decoding
MAX_BYTES = 50_000_000  # ten times its largest file
MIN_SIDE = 8  # below it, nothing can be seen
END = b"\xff\xd9"  # the marker behind a JPEG's last pixel
SHORT, LONG = "its data end before the last pixel", "its data go on behind the last pixel"
AHEAD = 8  # bytes that libjpeg reads beyond the ones it needs


class ImageError(InputError):
    """One image that cannot be used; `reason` says why without naming it, for counts."""

    def __init__(self, name: str, reason: str, detail: str = "") -> None:
        super().__init__(f"{name}: {reason}" + (f": {detail}" if detail else ""))
        self.reason = reason


@dataclass(frozen=True)
class Packed:
    """Pixels uint8 [px, px] with the JPEG's own height, width and colour mode (L, RGB, CMYK).

    `one_grey`: all pixels of the picture are alike. `turned`: its EXIF says that it lies on its side, on its head or is
    mirrored; it is packed as it is stored.
    """

    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    height: int
    width: int
    mode: str
    one_grey: bool
    turned: bool


class _Scan(io.BytesIO):
    """A grey JPEG for Pillow, so that damage in the middle of its pixels is heard: libjpeg only warns, Pillow is mute.

    Damaged, the data nearly always make too few pixels or too many. Too few: at the end marker libjpeg makes up the
    rest; here there is none, and Pillow takes the file for truncated. Too many: the last bytes, which are given out
    alone once `open_scan` was called, are never asked for.
    """

    def __init__(self, content: bytes, end: int) -> None:
        super().__init__(content[:end] + bytes(2 * AHEAD))
        self.last, self.apart = end - AHEAD, False

    def open_scan(self) -> None:
        """From now on Pillow reads the pixels."""
        self.apart = True

    def read(self, size: int | None = -1, /) -> bytes:
        """As many bytes, but none of the last ones together with others."""
        before = self.last - self.tell()
        return super().read(min(size, before) if self.apart and size is not None and before > 0 else size)

    def rest_unread(self) -> bool:
        """The pixels were complete without the last bytes."""
        return self.apart and self.tell() <= self.last


def read_jpeg(path: Path, name: str) -> bytes:
    """The bytes of a file; raises ImageError, naming it as `name`, where there is none or it is absurdly large."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise ImageError(name, f"more than {MAX_BYTES:,} bytes")
            return file.read()
    except FileNotFoundError:
        raise ImageError(name, "not found") from None
    except OSError as error:
        raise ImageError(name, "cannot be read", error.strerror or str(error)) from None


def pack(content: bytes, px: int, name: str) -> Packed:
    """A JPEG's bytes as an image whose longer side is `px`, centred, the shorter side padded with black.

    The JPEG decoder halves the size where it can (to an eighth), Lanczos does the rest; nothing is cropped, and colour
    becomes grey. Raises ImageError, naming the file as `name`, where it is no JPEG, damaged or absurd.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: half an image would pass for a whole one")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            image = Image.open(io.BytesIO(content), formats=["JPEG"])
            scan: _Scan | None = None
            # the data of others are in several scans, which libjpeg collects up to the end marker
            if image.mode == "L" and "progressive" not in image.info and (end := content.rfind(END)) > 0:
                image = Image.open(scan := _Scan(content, end), formats=["JPEG"])
        with image:
            width, height = image.size
            mode = image.mode
            if width * height > MAX_PIXELS:
                raise ImageError(name, f"more than {MAX_PIXELS:,} pixels", f"{width} x {height}")
            if min(width, height) < MIN_SIDE:
                raise ImageError(name, f"a side below {MIN_SIDE} pixels", f"{width} x {height}")
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            size = _fit(width, height, px)
            drafted = image.draft("L", size)
            if scan:
                scan.open_scan()
            grey = image.convert("L")
            if scan and scan.rest_unread():
                raise ImageError(name, "damaged", LONG)
            fitted = grey.resize(size, Image.Resampling.LANCZOS, box=drafted[1] if drafted else None)
    except Image.DecompressionBombError:
        raise ImageError(name, f"more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise ImageError(name, "not a JPEG") from None
    except (OSError, SyntaxError, ValueError, struct.error) as error:  # what Pillow's readers raise on damage
        said = " ".join(str(error).split())
        raise ImageError(name, "damaged", SHORT if "truncated" in said else said) from None
    pixels = np.zeros((px, px), np.uint8)
    left, top = (px - size[0]) // 2, (px - size[1]) // 2
    pixels[top : top + size[1], left : left + size[0]] = np.asarray(fitted)
    low, high = grey.getextrema()
    return Packed(pixels, height, width, mode, one_grey=low == high, turned=turned)


def _fit(width: int, height: int, px: int) -> tuple[int, int]:
    """Width and height with the longer side `px` and the shape kept, at least one pixel."""
    longer = max(width, height)
    return max(1, round(width * px / longer)), max(1, round(height * px / longer))
