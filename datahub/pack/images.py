"""What an encoded image says of itself: format and dimensions from its header, pixels for statistics."""

from __future__ import annotations

import io
import re
import threading
import warnings
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datahub.core.images import PIXEL_CAP, check_bits, checked

EXTENSIONS = {
    "jpeg": "jpg",
    "png": "png",
    "webp": "webp",
    "avif": "avif",
    "gif": "gif",
    "tiff": "tif",
    "bmp": "bmp",
    "ppm": "ppm",
}
"""Format -> the extension of its members."""
FORMATS = tuple(name.upper() for name in EXTENSIONS)
"""As Pillow names them; no other decoder is tried."""
BROKEN = (Exception,)
"""What Pillow's decoders raise over damaged bytes: they parse in Python, which raises wherever those lead it."""
PNM = re.compile(rb"P[56]\s+(\d{1,9})\s+(\d{1,9})\s+255\s")


class _Quiet:
    """While anybody is in it, Pillow's remarks on odd EXIF and the like are not printed over a pack's own lines.

    Not `warnings.catch_warnings`, which threads that overlap leave switched on.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._filter: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self._filter = warnings.filters[0]

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                with suppress(ValueError):
                    warnings.filters.remove(self._filter)  # type: ignore[attr-defined]


QUIET = _Quiet()


class Looks(NamedTuple):
    format: str
    width: int
    height: int


def look(data: bytes) -> Looks:
    """Format, width and height by the header alone; raises ``ValueError`` with the reason."""
    found = _jpeg(data) if data[:2] == b"\xff\xd8" else _png(data) if data[:8] == b"\x89PNG\r\n\x1a\n" else None
    if found is None and (pnm := PNM.match(data[:64])):
        found = Looks("ppm", int(pnm[1]), int(pnm[2]))
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
            check_bits(data[at + 4])
            return Looks(
                "jpeg", int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
            )
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ValueError("a JPEG without a frame header")


def _by_pillow(data: bytes) -> Looks:
    try:
        with QUIET, Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return Looks(str(image.format).lower(), *image.size)
    except Image.DecompressionBombError as error:
        raise ValueError(f"more than {PIXEL_CAP} pixels") from error
    except BROKEN as error:
        raise ValueError("no image that can be read") from error


def pixels(data: bytes) -> NDArray[np.uint8]:
    """uint8 RGB ``(H, W, 3)``; raises ``ValueError``."""
    try:
        with QUIET, Image.open(io.BytesIO(checked(data)), formats=FORMATS) as image:
            return np.asarray(image.convert("RGB"))
    except BROKEN as error:
        raise ValueError(f"cannot be decoded: {error}") from error


def plain(data: bytes) -> tuple[NDArray[np.uint8] | None, str]:
    """uint8 pixels, (H, W) of grey images and (H, W, 3) of others; or None and why 8 bits of RGB do not hold it.

    Raises ``ValueError``.
    """
    try:
        with QUIET, Image.open(io.BytesIO(checked(data)), formats=FORMATS) as image:
            if why := unfit(image):
                return None, why
            return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB")), ""
    except BROKEN as error:
        raise ValueError(f"cannot be decoded: {error}") from error


def unfit(image: Image.Image) -> str:
    """Why an image cannot be 8-bit grey or RGB without loss of meaning, "" where it can."""
    if getattr(image, "is_animated", False):
        return "animated"
    if image.mode.startswith(("I", "F")):
        return "16-bit"
    if "A" in image.getbands() or "transparency" in image.info:
        return "alpha"
    return "CMYK" if image.mode in ("CMYK", "YCCK") else ""
