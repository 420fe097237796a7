"""Crops cut out of a tiled JPEG's bitstream, without decoding it: a smaller JPEG that holds the crop.

Decoding the cut and taking the crop at its offset gives, bit for bit, the pixels that the whole image has there, with
libjpeg-turbo's decoders at full scale: their upsampling of chroma reaches less than one MCU to each side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from datahub.pack.jpeg import EOI, Encoded
from datahub.pack.tiling import Tiling

_SIZE_AT, _SIZE_END = 5, 9
"""Where a frame header holds the image's height and width."""
_CODES = bytes(range(0xD0, 0xD8))


class Cut(NamedTuple):
    """A JPEG of ``height`` x ``width`` pixels, and where the crop starts in them."""

    data: bytes
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
    step = tiling.interval * tiling.mcu_width
    left, right = _span(x, width, step, tiling.mcu_width * tiling.subsampled[0], tiling.width)
    top, bottom = _span(y, height, tiling.mcu_height, tiling.mcu_height * tiling.subsampled[1], tiling.height)
    x0, y0 = left * step, top * tiling.mcu_height
    size = min(bottom * tiling.mcu_height, tiling.height) - y0, min(right * step, tiling.width) - x0
    return Cut(_cut(data, tiling, top, bottom, left, right, size), *size, x - x0, y - y0)


def _span(start: int, length: int, step: int, margin: int, limit: int) -> tuple[int, int]:
    """First and past-the-last step that cover the stretch and its margins, inside ``limit``."""
    return max(start - margin, 0) // step, -(-min(start + length + margin, limit) // step)


def _cut(data: Encoded, tiling: Tiling, top: int, bottom: int, left: int, right: int, size: tuple[int, int]) -> bytes:
    """Rows ``top:bottom`` and segments ``left:right`` of each; ``size`` is the new height and width."""
    per_row, sof = tiling.per_row, tiling.sof
    head_end = tiling.head_offset + tiling.head_length
    starts = tiling.bounds[top * per_row + left : bottom * per_row : per_row].tolist()
    ends = tiling.bounds[top * per_row + right : (bottom - 1) * per_row + right + 1 : per_row].tolist()
    view = memoryview(data)
    pieces: list[Encoded] = [
        b"\xff\xd8",
        view[tiling.head_offset : sof + _SIZE_AT],
        (size[0] << 16 | size[1]).to_bytes(4, "big"),
        view[sof + _SIZE_END : head_end],
        *[view[start:end] for start, end in zip(starts, ends, strict=True)],
    ]
    out = bytearray().join(pieces)
    # Every segment brought the marker after it along: number them anew from zero, and let the last one be the end.
    last = tiling.sizes[top:bottom, left:right].cumsum()
    last += tiling.head_length + 1
    np.frombuffer(out, np.uint8)[last] = np.frombuffer(_CODES * (len(last) // 8 + 1), np.uint8, len(last))
    out[-1] = EOI
    return bytes(out)
