"""The recipe `max256` and its like: re-encoded so that the shorter side has at most so many pixels."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from datahub.core.images import checked
from datahub.pack import images, jpeg
from datahub.pack.recipes import Made

QUALITY = 90
FILTER = 1
"""Raised when the same libraries would scale otherwise."""
ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class Smaller:
    """Antialiased, quality 90, 4:2:0; grey images stay grey. What is small enough already keeps its bytes."""

    side: int

    @property
    def name(self) -> str:
        return f"max{self.side}"

    def facts(self) -> dict[str, Any]:
        """The bytes depend on the libraries that decode, scale and encode."""
        return {
            "quality": QUALITY,
            "filter": FILTER,
            "opencv": cv2.__version__,
            "simplejpeg": simplejpeg.__version__,
            "pillow": PIL.__version__,
        }

    def encode(self, pixels: NDArray[np.uint8]) -> list[bytes]:
        return [_encoded(self._scaled(each)) for each in pixels]

    def transform(self, files: Sequence[bytes]) -> list[Made]:
        return [self._one(data) for data in files]

    def _one(self, data: bytes) -> Made:
        try:
            look = images.look(data)
            if min(look.width, look.height) <= self.side:
                return Made(data, kept="small")
            if look.format != "jpeg":
                return self._by_pillow(data, look.format)
            return self._jpeg(data)
        except ValueError as error:
            return Made(data, damage=str(error))

    def _jpeg(self, data: bytes) -> Made:
        header = jpeg.read(data)
        if header.precision != 8:
            return Made(data, kept=f"{header.precision}-bit")
        if len(header.components) not in (1, 3):
            return Made(data, kept="CMYK")
        pixels = self._decoded(data, "GRAY" if len(header.components) == 1 else "RGB")
        return Made(_oriented(_encoded(self._scaled(pixels)), _turn(data, "jpeg")))

    def _decoded(self, data: bytes, space: str) -> NDArray[np.uint8]:
        """Pixels, by the decoder's own scaling where twice the wanted size is left for the antialiased rest."""
        least = 2 * self.side
        options: dict[str, Any] = {"colorspace": space, "min_height": least, "min_width": least, "min_factor": 1}
        try:
            found: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, **options)
        except ValueError:
            # Strict decoding also refuses what decodes in full but for a warning; Pillow tells the two apart.
            images.pixels(data)
            found = simplejpeg.decode_jpeg(data, strict=False, **options)
        return found

    def _by_pillow(self, data: bytes, form: str) -> Made:
        pixels, why = images.plain(data)
        if pixels is None:
            return Made(data, kept=why)
        return Made(_oriented(_encoded(self._scaled(pixels)), _turn(data, form)))

    def _scaled(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W), (H, W, 1) or (H, W, 3) with the shorter side at most ``side``, the other rounded."""
        height, width = pixels.shape[:2]
        shorter = min(height, width)
        if shorter <= self.side:
            return pixels
        return _shrunk(pixels, max(1, round(width * self.side / shorter)), max(1, round(height * self.side / shorter)))


def _shrunk(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """An antialiased reduction: halvings, then a triangle filter as wide as the rest of the scale.

    Linear interpolation is a triangle of half-width 1, variance 1/6; scale s wants s * s / 6. A kernel (a, 1 - 2a, a)
    before it adds 2a. That is as near to the exact filter as area averaging is, at less than half its time.
    """
    found = pixels
    while found.shape[0] >= 2 * height and found.shape[1] >= 2 * width:
        found = cv2.resize(found, (found.shape[1] // 2, found.shape[0] // 2), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    scale = found.shape[0] / height
    if scale > 1.01:
        side = (scale * scale - 1) / 12
        sigma = math.sqrt(-0.5 / math.log(side / (1 - 2 * side)))  # GaussianBlur is exact in fixed point
        found = cv2.GaussianBlur(found, (3, 3), sigma)  # type: ignore[assignment]
    if found.shape[:2] != (height, width):
        found = cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    return found


def _encoded(pixels: NDArray[np.uint8]) -> bytes:
    grey = pixels.ndim == 2 or pixels.shape[2] == 1
    space, sampling = ("GRAY", "Gray") if grey else ("RGB", "420")
    whole = np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], 1 if grey else 3))
    data: bytes = simplejpeg.encode_jpeg(whole, quality=QUALITY, colorspace=space, colorsubsampling=sampling)
    return data


def _turn(data: bytes, form: str) -> int:
    """The EXIF orientation by which a loader turns an image; 1 for none.

    Pillow has turned a TIFF's pixels already, and also finds orientations in a PNG's texts, where no loader looks.
    """
    none = {"jpeg": b"Exif\0\0" not in data[: 1 << 16], "png": b"eXIf" not in data, "tiff": True}
    if none.get(form, False):
        return 1
    try:
        with images.QUIET, Image.open(io.BytesIO(checked(data)), formats=images.FORMATS) as image:
            if form == "png":
                image.load()  # it may stand behind the pixels
                found = Image.Exif()
                found.load(image.info.get("exif", b""))
            else:
                found = image.getexif()
            turned = found.get(ORIENTATION, 1)
    except images.BROKEN:
        return 1
    return turned if isinstance(turned, int) and 2 <= turned <= 8 else 1


def _oriented(made: bytes, turned: int) -> bytes:
    """A JPEG with an EXIF orientation: pixels and tag keep their meaning."""
    if turned == 1:
        return made
    # TIFF header (big-endian), one directory entry: the tag, type SHORT, one value; no further directory.
    tiff = b"MM\0*\0\0\0\x08\0\x01" + ORIENTATION.to_bytes(2, "big") + b"\0\x03\0\0\0\x01" + bytes([0, turned, 0, 0])
    body = b"Exif\0\0" + tiff + bytes(4)
    return made[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + made[2:]
