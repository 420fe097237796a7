"""EXIF orientation: reading it where torchvision does, and turning pixels and boxes by it (CIPA DC-008, 4.6.5.A).

The reference for JPEG and PNG is ``torchvision.io.decode_image(apply_exif_orientation=True)``, which reads the first
EXIF block and there the first directory; for other formats it is ``PIL.ImageOps.exif_transpose``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Encoded = bytes | memoryview
Pixels = NDArray[np.uint8]
Order = Literal["little", "big"]
Box = tuple[int, int, int, int]
"""Left, top, width, height."""

TAG = 0x0112
ENTRY = 12
"""Bytes of an entry of a TIFF directory."""
EXIF = b"Exif\0\0"
SOS, APP1 = 0xDA, 0xE1
_ORDERS: dict[bytes, Order] = {b"II": "little", b"MM": "big"}
BARE = frozenset(range(0xD0, 0xD9)) | {0x01}
"""JPEG markers without a length."""


def of_jpeg(data: Encoded) -> int:
    """1 to 8, by the first APP1 segment that holds EXIF; 1 without one."""
    for marker, start, end in _segments(data):
        if marker == APP1 and data[start : start + 6] == EXIF:
            return of_exif(bytes(data[start + 6 : end]))
    return 1


def of_png(data: Encoded) -> int:
    """The same, by the eXIf chunk before the pixels or after them; one with a wrong checksum is none, as to libpng."""
    at = 8
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), bytes(data[at + 4 : at + 8])
        if kind == b"eXIf":
            block, end = bytes(data[at + 8 : at + 8 + length]), at + 12 + length
            sound = zlib.crc32(kind + block) == int.from_bytes(data[end - 4 : end], "big")
            return of_exif(block) if sound else 1
        at += 12 + length
    return 1


def of_exif(block: bytes) -> int:
    """The orientation that a TIFF header and its first directory say; 1 where there is none of 1 to 8."""
    order = _ORDERS.get(block[:2])
    if order is None or _number(block, 2, 2, order) != 42:
        return 1
    at = _number(block, 4, 4, order)
    count = _number(block, at, 2, order)
    for entry in range(at + 2, min(at + 2 + count * ENTRY, len(block)), ENTRY):
        if _number(block, entry, 2, order) == TAG:
            found = _number(block, entry + 8, 2, order)
            return found if 1 <= found <= 8 else 1
    return 1


def _number(block: bytes, at: int, size: int, order: Order) -> int:
    return int.from_bytes(block[at : at + size], order)


def _segments(data: Encoded) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of the content of each segment before the first scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in BARE:
            at += 2
        elif marker == SOS:
            return
        else:
            length = data[at + 2] << 8 | data[at + 3]
            yield marker, at + 4, at + 2 + length
            at += 2 + length


def swaps(turn: int) -> bool:
    """Whether turning by it swaps width and height."""
    return turn >= 5


def flips(turn: int) -> tuple[bool, bool]:
    """Whether the rows and the columns run the other way, once the axes of those that it `swaps` are."""
    return _FLIPS[turn]


def turned(pixels: Pixels, turn: int) -> Pixels:
    """``(H, W)`` or ``(H, W, C)`` as a viewer shows it, contiguous."""
    if swaps(turn):
        pixels = pixels.swapaxes(0, 1)
    down, across = _FLIPS[turn]
    return np.ascontiguousarray(pixels[:: -1 if down else 1, :: -1 if across else 1])


def stored_box(box: Box, shown: tuple[int, int], turn: int) -> Box:
    """Where a ``box`` of the shown image, of height and width ``shown``, lies in the stored pixels."""
    x, y, width, height = box
    down, across = _FLIPS[turn]
    if across:
        x = shown[1] - x - width
    if down:
        y = shown[0] - y - height
    return (y, x, height, width) if swaps(turn) else (x, y, width, height)


_FLIPS = {
    1: (False, False),
    2: (False, True),
    3: (True, True),
    4: (True, False),
    5: (False, False),
    6: (False, True),
    7: (True, True),
    8: (True, False),
}
"""Turn -> whether the rows and the columns run the other way, once 5 to 8 are transposed."""
