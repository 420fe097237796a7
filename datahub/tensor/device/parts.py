"""What of an encoded image goes to the device: a JPEG that it decodes, cut to what its frame shows, or pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from datahub.core.errors import DamagedImage
from datahub.core.images import PIXEL_CAP
from datahub.pack import jpeg
from datahub.pack.tiletable import read_table
from datahub.tensor import orientation
from datahub.tensor.bitstream import crop
from datahub.tensor.decode import Encoded, Pixels, header, interleaved
from datahub.tensor.frames import Frame

CHROMA = ((1, 1), (2, 1), (1, 2), (2, 2), (4, 1))
"""Luma samples to a chroma sample, across and down, that nvJPEG names: 4:4:4, 4:2:2, 4:4:0, 4:2:0, 4:1:1."""
TAIL = 64
"""Bytes that may follow a JPEG's end; one without an end near its last byte is for the host to judge."""
NO_TRANSFORM = 0
"""Adobe's colour transform of RGB."""
YCBCR = ((1, 2, 3), (0, 1, 2))
"""Component numbers of JFIF, and of encoders that begin at 0. Some write RGB under the letters' own."""


class Part(NamedTuple):
    """``data`` is a JPEG where it is ``coded``, else uint8 pixels ``(h, w, C)``; ``box`` is the frame's, in either."""

    data: Encoded | Pixels
    coded: bool
    box: tuple[float, float, float, float]


def part_of(data: Encoded, frame: Frame, channels: int, upright: bool = False) -> Part:
    """What is needed of an image for ``frame``; what the device does not decode, or would not turn, is decoded here.

    Raises `DamagedImage`, also for an image of another size than its frame was made for.
    """
    found = _jpeg(data) if data[:2] == b"\xff\xd8" else None
    if found is None or not fits(data, found, channels) or (upright and orientation.of_jpeg(data) != 1):
        return _on_host(data, frame, channels, upright)
    _check(found.height, found.width, frame)
    x, y, width, height = frame.box
    tiling = read_table(data) if (width, height) != (found.width, found.height) else None
    if tiling is None:
        return Part(data, True, (x, y, width, height))
    cut = crop(data, tiling, x, y, width, height)
    return Part(cut.data, True, (cut.x, cut.y, width, height))


def fits(data: Encoded, found: jpeg.Header, channels: int) -> bool:
    """Whether nvJPEG's hardware engine gives this image's pixels: baseline, 8 bits, gray or YCbCr with usual chroma.

    What is left out (progressive and SOF1, CMYK, RGB, odd sampling, arithmetic coding) the host decodes as fast, on
    every thread at once, while nvJPEG would take such images one by one.
    """
    usual = found.frame == 0 and found.precision == 8 and found.height * found.width <= PIXEL_CAP and found.height > 0
    if not usual or channels not in (1, 3) or b"\xff\xd9" not in bytes(data[-TAIL:]):
        return False
    if len(found.components) == 1:
        return True
    luma, *chroma = found.components
    names = tuple(each.id for each in found.components)
    alike = len(chroma) == 2 and all((each.h, each.v) == (1, 1) for each in chroma) and names in YCBCR
    one_scan = data[found.sos + 4] == len(found.components)
    return alike and one_scan and (luma.h, luma.v) in CHROMA and found.adobe != NO_TRANSFORM


def _jpeg(data: Encoded) -> jpeg.Header | None:
    try:
        return jpeg.read(data)
    except ValueError:
        return None


def _on_host(data: Encoded, frame: Frame, channels: int, upright: bool) -> Part:
    """The box alone, as pixels of their own."""
    found = header(data, upright)
    _check(found.height, found.width, frame)
    x, y, width, height = frame.box
    whole = interleaved(data, found, channels).reshape(found.height, found.width, channels)
    pixels = np.ascontiguousarray(whole[y : y + height, x : x + width])
    return Part(pixels, False, (0, 0, width, height))


def decoded_here(part: Part, channels: int) -> Part:
    """The same as pixels, where the device has refused. Raises `DamagedImage`."""
    if not part.coded:
        return part
    data: Encoded = part.data  # type: ignore[assignment]
    found = header(data)
    pixels = interleaved(data, found, channels).reshape(found.height, found.width, channels)
    return Part(np.ascontiguousarray(pixels), False, part.box)


def _check(height: int, width: int, frame: Frame) -> None:
    if (height, width) != frame.source:
        wanted = f"{frame.source[1]} x {frame.source[0]}"
        raise DamagedImage(f"is {width} x {height}, not {wanted} as its index says")
