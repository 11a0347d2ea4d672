"""One JPEG -> one square grey image of a fixed size. Which images, and where they go, is images.py's affair."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from pipeline.errors import InputError

MAX_PIXELS = 50_000_000  # three times the largest radiograph of MIMIC-CXR-JPG; checked in the header, before decoding
MIN_SIDE = 8  # below it, nothing can be seen


class ImageError(InputError):
    """One image that cannot be used; `reason` says why without naming it, for counts."""

    def __init__(self, name: str, reason: str, detail: str = "") -> None:
        super().__init__(f"{name}: {reason}" + (f": {detail}" if detail else ""))
        self.reason = reason


@dataclass(frozen=True)
class Packed:
    """Pixels uint8 [px, px] with the JPEG's own height, width and colour mode (L, RGB, CMYK)."""

    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    height: int
    width: int
    mode: str


def pack(path: Path, px: int, name: str | None = None) -> Packed:
    """The JPEG at `path` with its longer side scaled to `px`, centred, the shorter side padded with black.

    The JPEG decoder halves the size where it can (to an eighth), Lanczos does the rest; nothing is cropped, and colour
    becomes grey. Raises ImageError, naming the file (as `name`), where it is not there, no JPEG, damaged or absurd.
    """
    name = name or str(path)
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: half an image would pass for a whole one")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            image = Image.open(path, formats=["JPEG"])
        with image:
            width, height = image.size
            mode = image.mode
            if width * height > MAX_PIXELS:
                raise ImageError(name, f"more than {MAX_PIXELS:,} pixels", f"{width} x {height}")
            if min(width, height) < MIN_SIDE:
                raise ImageError(name, f"a side below {MIN_SIDE} pixels", f"{width} x {height}")
            size = _fit(width, height, px)
            drafted = image.draft("L", size)
            grey = image.convert("L")
            fitted = grey.resize(size, Image.Resampling.LANCZOS, box=drafted[1] if drafted else None)
    except FileNotFoundError:
        raise ImageError(name, "not found") from None
    except Image.DecompressionBombError:
        raise ImageError(name, f"more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise ImageError(name, "not a JPEG") from None
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow's decoders raise on damage
        raise ImageError(name, "damaged", " ".join(str(error).split())) from None
    pixels = np.zeros((px, px), np.uint8)
    left, top = (px - size[0]) // 2, (px - size[1]) // 2
    pixels[top : top + size[1], left : left + size[0]] = np.asarray(fitted)
    return Packed(pixels, height, width, mode)


def _fit(width: int, height: int, px: int) -> tuple[int, int]:
    """Width and height with the longer side `px` and the shape kept, at least one pixel."""
    longer = max(width, height)
    return max(1, round(width * px / longer)), max(1, round(height * px / longer))
