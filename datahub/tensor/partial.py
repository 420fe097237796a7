"""A box of a JPEG without decoding all of it.

A tiled JPEG is cut in its bitstream (`datahub.tensor.bitstream`). Any other baseline JPEG is coded from top to bottom
in one piece: its frame header is told a smaller height, and decoders stop below the box. Either way the pixels are, bit
for bit, those of the whole image. Damage in what is not decoded is not seen.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import simplejpeg

from datahub.core.images import PIXEL_CAP
from datahub.pack import jpeg
from datahub.pack.tiletable import read_table
from datahub.tensor.bitstream import REACH, crop
from datahub.tensor.decode import Encoded, Header, Pixels
from datahub.tensor.scratch import scratch

_LEFT_OVER = re.compile(r"Corrupt JPEG data: [0-9]+ extraneous bytes before marker 0xd9")
"""What libjpeg remarks, when it is done, of coded data that it had no need of."""
_SIZE_AT, _BITS = 5, 8
"""Where a frame header holds the image's height, and the bits a sample that are decoded here."""


class Part(NamedTuple):
    """A JPEG of ``height`` x ``width`` pixels, and where the box starts in it. ``short``: data are left over."""

    data: Encoded
    height: int
    width: int
    x: int
    y: int
    short: bool


def part_of(data: Encoded, source: tuple[int, int], box: tuple[int, int, int, int]) -> Part | None:
    """The least of a JPEG that must be decoded to know the box (left, top, width, height), whatever its coding.

    None for all else: no JPEG, one that is not of ``source`` (height and width), above the pixel cap, not of 8 bits, or
    of neither gray nor three components.
    """
    if data[:2] != b"\xff\xd8" or source[0] * source[1] > PIXEL_CAP:
        return None
    x, y, width, height = box
    tiling = read_table(data) if (height, width) != source else None
    if tiling is not None and (tiling.height, tiling.width) == source:
        return Part(*crop(data, tiling, x, y, width, height), short=False)
    try:
        header = jpeg.read(data)
    except ValueError:
        return None
    if (header.height, header.width) != source or header.precision != _BITS or len(header.components) not in (1, 3):
        return None
    rows = _rows(data, header, y + height)
    if rows >= header.height:
        return Part(data, *source, x, y, short=False)
    at = header.sof + _SIZE_AT
    shortened = b"".join((data[:at], rows.to_bytes(2, "big"), memoryview(data)[at + 2 :]))
    return Part(shortened, rows, header.width, x, y, short=True)


def jpeg_box(data: Encoded, found: Header, box: tuple[int, int, int, int], channels: int) -> Pixels | None:
    """The pixels in ``box`` (left, top, width, height), uint8 ``(height, width, C)``, of a plain JPEG.

    None where libjpeg has something to say. What is returned is overwritten by this thread's next call.
    """
    part = part_of(data, (found.height, found.width), box)
    return None if part is None else part_pixels(part, box, channels)


def part_pixels(part: Part, box: tuple[int, int, int, int], channels: int) -> Pixels | None:
    """As `jpeg_box`, of the part that holds the box."""
    pixels = _decoded(part, channels)
    if pixels is None:
        return None
    return pixels[part.y : part.y + box[3], part.x : part.x + box[2]]


def _rows(data: Encoded, header: jpeg.Header, bottom: int) -> int:
    """How many rows of pixels the rows above ``bottom`` depend on: whole MCUs, or the image's height.

    All of them where the data are not one scan of all components without restart markers.
    """
    one_scan = data[header.sos + 4] == len(header.components)
    if header.frame not in (0, 1) or header.restart or not one_scan:
        return header.height
    step = header.mcu[1]
    reach = REACH if header.subsampled[1] else 0
    return min(-(-(bottom + reach) // step) * step, header.height)


def _decoded(part: Part, channels: int) -> Pixels | None:
    pixels = scratch("pixels", (part.height, part.width, channels))
    space = "RGB" if channels == 3 else "GRAY"
    try:
        found: Pixels = simplejpeg.decode_jpeg(part.data, space, fastdct=False, fastupsample=False, buffer=pixels)
    except ValueError as error:
        return pixels if part.short and _LEFT_OVER.fullmatch(str(error)) else None
    return found if found.shape == pixels.shape else None
