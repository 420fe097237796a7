"""Encoded images to their frames: no more of each is decoded than its frame shows, straight into the batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datahub.core.errors import DamagedImage
from datahub.tensor import orientation
from datahub.tensor.decode import Encoded, Header, Pixels, header, interleaved
from datahub.tensor.frames import Frame, Frames
from datahub.tensor.partial import Part, jpeg_box, part_of, part_pixels
from datahub.tensor.resample import framed_pixels

TOGETHER = 4
"""Images whose headers are looked into before the first of them is decoded.

Decoding drives Python out of the processor's caches: alone, looking costs half as much again. With many at once, other
threads would wait for the interpreter's lock.
"""


def sizes_of(images: Sequence[Encoded], upright: bool = False) -> NDArray[np.int64]:
    """Heights and widths, ``(n, 2)``, by the images' headers. Raises `DamagedImage` with the position."""
    found = np.empty((len(images), 2), np.int64)
    for row, data in enumerate(images):
        try:
            seen = header(data, upright)
        except DamagedImage as damage:
            raise DamagedImage(damage.cause, row) from damage
        found[row] = seen.height, seen.width
    return found


def decode_framed(images: Sequence[Encoded], frames: Frames, outs: Sequence[Pixels], upright: bool = False) -> None:
    """Each image's frame into ``outs``, uint8 ``(C, H, W)`` of the frame's size each.

    The pixels are those of decoding whole, cropping and scaling. Raises `DamagedImage` with the position, also for an
    image of another size than its frame was made for.
    """
    rows = frames.rows()
    for first in range(0, len(images), TOGETHER):
        some = range(first, min(first + TOGETHER, len(images)))
        parts = [None if upright else part_of(images[row], rows[row].source, rows[row].box) for row in some]
        for row, part in zip(some, parts, strict=True):
            try:
                _one(images[row], rows[row], outs[row], part, upright)
            except DamagedImage as damage:
                raise DamagedImage(damage.cause, row) from damage


def outputs(frames: Frames, channels: int) -> list[Pixels]:
    """Memory for frames of any sizes."""
    return [np.empty((channels, height, width), np.uint8) for _, _, height, width in frames.window.tolist()]


def _one(data: Encoded, frame: Frame, out: Pixels, part: Part | None, upright: bool) -> None:
    """``part``: what `part_of` found of it."""
    pixels = part_pixels(part, frame.box, len(out)) if part is not None and len(out) in (1, 3) else None
    if pixels is None:
        found = header(data, upright)
        if (found.height, found.width) != frame.source:
            wanted = f"{frame.source[1]} x {frame.source[0]}"
            raise DamagedImage(f"is {found.width} x {found.height}, not {wanted} as its index says")
        pixels = _region(data, found, frame, len(out))
    framed_pixels(pixels, frame.scaled, frame.window, frame.flip, out)


def _region(data: Encoded, found: Header, frame: Frame, channels: int) -> Pixels:
    """The pixels of the frame's box, uint8 ``(h, w, C)``."""
    if found.turn != 1:
        box = orientation.stored_box(frame.box, frame.source, found.turn)
        stored = found.stored()
        frame = frame._replace(source=(stored.height, stored.width), box=box)
        return orientation.turned(_region(data, stored, frame, channels), found.turn)
    if found.kind == "jpeg" and found.plain and channels in (1, 3):
        part = jpeg_box(data, found, frame.box, channels)
        if part is not None:
            return part
    whole = interleaved(data, found, channels)
    x, y, width, height = frame.box
    return whole.reshape(found.height, found.width, channels)[y : y + height, x : x + width]
