"""Crops cut out of a tiled JPEG's bitstream, without decoding it: a smaller JPEG that holds the crop.

Decoding the cut and taking the crop at its offset gives, bit for bit, the pixels that the whole image has there, with
libjpeg-turbo's decoders at full scale. Where an image has fewer columns or rows of chroma than of pixels, they weigh a
chroma sample with its neighbour on the pixel's side (jdsample.c, the "fancy" filters), and at an edge take it alone: so
a cut reaches at least one pixel beyond the crop.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from datahub.pack.jpeg import Encoded
from datahub.pack.tiletable import Tiling, codes

REACH = 1
"""Pixels to each side that the chroma of a pixel depends on."""
_SMOOTHED = 5
"""Columns an image must have for its chroma to be weighed across at all: more than two samples."""
_SIZE_AT, _SIZE_END = 5, 9
"""Where a frame header holds the image's height and width."""


class Cut(NamedTuple):
    """A JPEG of ``height`` x ``width`` pixels, and where the crop starts in them."""

    data: Encoded
    height: int
    width: int
    x: int
    y: int


def crop(data: Encoded, tiling: Tiling, x: int, y: int, width: int, height: int) -> Cut:
    """The smallest JPEG of whole segments of ``data`` that holds the box, with what its pixels depend on.

    ``tiling`` is what `datahub.pack.tiling.read_table` found in the same bytes. Raises ``ValueError`` for a box that
    is empty or reaches out of the image.
    """
    if width < 1 or height < 1 or x < 0 or y < 0 or x + width > tiling.width or y + height > tiling.height:
        raise ValueError(f"no box in {tiling.width} x {tiling.height}: {width} x {height} at {x}, {y}")
    across, down = tiling.subsampled
    step = tiling.interval * tiling.mcu_width
    left, right = _span(x, width, step, across, tiling.width, _SMOOTHED if across else 1)
    top, bottom = _span(y, height, tiling.mcu_height, down, tiling.height, 1)
    x0, y0 = left * step, top * tiling.mcu_height
    size = min(bottom * tiling.mcu_height, tiling.height) - y0, min(right * step, tiling.width) - x0
    return Cut(_cut(data, tiling, top, bottom, left, right, size), *size, x - x0, y - y0)


def _span(start: int, length: int, step: int, fewer: bool, limit: int, least: int) -> tuple[int, int]:
    """First and past-the-last step that cover the stretch and what it depends on, ``least`` pixels of ``limit``."""
    reach = REACH if fewer else 0
    first = min(start - reach, limit - least)
    return max(first, 0) // step, -(-min(start + length + reach, limit) // step)


def _cut(data: Encoded, tiling: Tiling, top: int, bottom: int, left: int, right: int, size: tuple[int, int]) -> Encoded:
    """Rows ``top:bottom`` and segments ``left:right`` of each; ``size`` is the new height and width."""
    per_row, sof = tiling.per_row, tiling.sof
    head_end = tiling.head_offset + tiling.head_length
    first, last = top * per_row + left, (bottom - 1) * per_row + right
    every = last - first if right - left == per_row else per_row  # whole rows are one piece
    starts = tiling.bounds[first:last:every].tolist()
    ends = tiling.bounds[last : first + right - left - 1 : -every][::-1].tolist()
    view = memoryview(data)
    pieces: list[Encoded] = [
        b"\xff\xd8",
        view[tiling.head_offset : sof + _SIZE_AT],
        (size[0] << 16 | size[1]).to_bytes(4, "big"),
        view[sof + _SIZE_END : head_end],
        *map(view.__getitem__, map(slice, starts, ends)),
    ]
    out = bytearray().join(pieces)
    # Every segment brought the marker after it along: number them anew from zero, and let the last one be the end.
    ends = tiling.sizes[top:bottom, left:right].cumsum()
    ends += tiling.head_length + 1
    np.frombuffer(out, np.uint8)[ends] = np.frombuffer(codes(len(ends)), np.uint8)
    return memoryview(out)
