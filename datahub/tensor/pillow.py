"""What Pillow decodes: the plugin that a file's first bytes name, and no other. Pillow's own pixels are the reference.

Two things differ from its ``convert``: 16 bits a pixel keep the high byte, as torchvision does it (Pillow clips them),
and a palette with transparent colours is opaque, like every other image whose alpha is dropped. Animations give their
first frame; a TIFF is turned as its orientation tag says, for that is how Pillow loads it.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from datahub.core.errors import DamagedImage
from datahub.core.images import checked
from datahub.pack.images import QUIET

PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "png": PngImagePlugin.PngImageFile,
    "jpeg": JpegImagePlugin.JpegImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "avif": AvifImagePlugin.AvifImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "pnm": PpmImagePlugin.PpmImageFile,
}
"""Kind of file -> what reads it. Called by class: `Image.open` would add a warning of its own to large images."""
FORMATS = tuple("PPM" if kind == "pnm" else kind.upper() for kind in PLUGINS)
"""The same as Pillow names them."""
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Channels -> Pillow's mode."""
AVIF_BRANDS = (b"avif", b"avis", b"mif1", b"msf1")
ORIENTATION = 0x0112

Pixels = NDArray[np.uint8]
Encoded = bytes | memoryview


def kind_of(data: Encoded) -> str | None:
    """The kind of file by its first bytes; None for what is not read."""
    start = bytes(data[:12])
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "webp"
    if start[4:8] == b"ftyp" and start[8:12] in AVIF_BRANDS:
        return "avif"
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            return kind
    return "pnm" if start[:1] == b"P" and start[1:2] in (b"1", b"2", b"3", b"4", b"5", b"6") else None


_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8": "jpeg",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"II": "tiff",
    b"MM": "tiff",
    b"BM": "bmp",
}


def look(data: Encoded, kind: str, cap: int) -> tuple[int, int, int, int]:
    """Width, height, channels and EXIF orientation by the header. Raises `DamagedImage`, also above ``cap`` pixels."""
    if kind == "webp":  # its decoder takes the canvas's memory when it is made
        check_cap(*webp_size(data), cap)
    with QUIET, opened(data, kind) as image:
        check_cap(*image.size, cap)
        turn = 1 if kind == "tiff" else _orientation(image)
        return (*image.size, len(image.getbands()), turn)


def check_cap(width: int, height: int, cap: int) -> None:
    """Raise `DamagedImage` for an image without pixels, or with more than ``cap``."""
    if width < 1 or height < 1:
        raise DamagedImage(f"{width} x {height} pixels are none")
    if width * height > cap:
        raise DamagedImage(f"{width} x {height} pixels are above the cap of {cap}")


def decoded(data: Encoded, kind: str, channels: int) -> Pixels:
    """uint8 ``(H, W, channels)``, or ``(H, W)`` for one. Raises `DamagedImage`."""
    try:
        data = checked(data)
    except ValueError as error:
        raise DamagedImage(str(error)) from error
    with QUIET, opened(data, kind) as image:
        try:
            return _converted(image, channels)
        except Exception as error:
            # Plugins parse in Python, and raise what Python raises wherever damaged bytes lead them.
            raise DamagedImage(f"does not decode: {_told(error)}") from error


def opened(data: Encoded, kind: str) -> Image.Image:
    """The image with its header read. Raises `DamagedImage`."""
    try:
        return PLUGINS[kind](io.BytesIO(data))
    except Exception as error:
        raise DamagedImage(f"the {kind.upper()} header cannot be read: {_told(error)}") from error


def webp_size(data: Encoded) -> tuple[int, int]:
    """Width and height of the canvas, by the first chunk (RFC 9649). Raises `DamagedImage`."""
    start = bytes(data[:30]).ljust(30, b"\0")
    kind = start[12:16]
    if kind == b"VP8X":
        return int.from_bytes(start[24:27], "little") + 1, int.from_bytes(start[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(start[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", start[26:30])
        return width & 0x3FFF, height & 0x3FFF
    raise DamagedImage("the WEBP header cannot be read: it begins with no image")


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1 as well where the tag makes no sense."""
    try:
        found: Any = image.getexif().get(ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - metadata that cannot be read turn nothing
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _converted(image: Image.Image, channels: int) -> Pixels:
    if image.mode.startswith("I") and not (image.mode == "I" and image.format == "TIFF"):  # that one is of 32 bits
        image.load()
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert(MODES[channels]))


def _told(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
