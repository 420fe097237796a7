"""What an encoded image says of itself: format and dimensions from its header, pixels for statistics."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PIXEL_CAP = 1 << 28
"""Pixels above which an image is refused before memory is taken for it."""

EXTENSIONS = {"jpeg": "jpg", "png": "png", "webp": "webp", "gif": "gif", "tiff": "tif", "bmp": "bmp"}


class Looks(NamedTuple):
    format: str
    width: int
    height: int


def look(data: bytes) -> Looks:
    """Format, width and height by the header alone; raises ``ValueError`` with the reason."""
    found = _jpeg(data) if data[:2] == b"\xff\xd8" else _png(data) if data[:8] == b"\x89PNG\r\n\x1a\n" else None
    if found is None:
        found = _by_pillow(data)
    if found.width * found.height > PIXEL_CAP or not found.width * found.height:
        raise ValueError(f"{found.width} x {found.height} pixels, more than {PIXEL_CAP} or none")
    return found


def _png(data: bytes) -> Looks:
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise ValueError("a PNG without its header")
    return Looks("png", int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))


def _jpeg(data: bytes) -> Looks:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return Looks(
                "jpeg", int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
            )
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ValueError("a JPEG without a frame header")


def _by_pillow(data: bytes) -> Looks:
    try:
        with Image.open(io.BytesIO(data), formats=[*(name.upper() for name in EXTENSIONS)]) as image:
            return Looks(str(image.format).lower(), *image.size)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("no image that can be read") from error


def pixels(data: bytes) -> NDArray[np.uint8]:
    """uint8 RGB ``(H, W, 3)``; raises ``ValueError``."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot be decoded: {error}") from error
