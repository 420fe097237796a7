"""Windows of uniform batches: gathering, shifting and mirroring uint8 images (N, C, H, W) in few passes over memory.

A window that is no larger than the image is a run of the image's own bytes, begun ``top * W + left`` later: one copy a
sample, whatever its offsets, and then one pass that blanks what the run took from the other side of an edge.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MASK_BYTES = 1 << 20
"""Masks of all offsets are kept up to this size; beyond it they are made for each batch."""
ALONE_BYTES = 32 << 10
"""Images of this size are worth a call of their own: one pass over memory less."""
PADDING = {"constant": "constant", "edge": "edge", "reflect": "reflect", "symmetric": "symmetric"}
"""torchvision's padding modes -> NumPy's."""


def take_rows(pixels: Pixels, rows: Ints, out: Pixels | None = None) -> Pixels:
    """Rows of ``pixels``, which must all be there, as a contiguous array of their own."""
    if out is None:
        out = np.empty((len(rows), *pixels.shape[1:]), np.uint8)
    return pixels.take(rows, axis=0, out=out, mode="clip")  # other modes copy through a buffer


def windows(pixels: Pixels, rows: Ints, top: Ints, left: Ints, size: tuple[int, int], fill: Ints) -> Pixels:
    """Windows of ``size`` (at most that of the images) whose corners lie at ``top``, ``left`` of each row's image.

    What reaches out of the image is ``fill``, a value a channel. Corners may be up to a window's size outside.
    """
    _, _, height, width = pixels.shape
    found = _runs(np.ascontiguousarray(pixels), rows, top * width + left)[:, :, : size[0], : size[1]]
    inside = top.min() >= 0 and left.min() >= 0 and (top.max() <= height - size[0]) and (left.max() <= width - size[1])
    if inside:
        return np.ascontiguousarray(found)
    mask = _masks(top, left, size, (height, width))[:, None]
    out = np.bitwise_and(found, mask, out=found if found.flags.c_contiguous else None)
    if fill.any():
        np.bitwise_or(out, ~mask & fill.astype(np.uint8)[:, None, None], out=out)
    return out


def padded(images: Pixels, widths: tuple[int, int, int, int], mode: str, fill: Ints) -> Pixels:
    """``images`` with left, top, right and bottom edges of ``widths``."""
    left, top, right, bottom = widths
    edges = ((0, 0), (0, 0), (top, bottom), (left, right))
    if mode != "constant":
        return np.pad(images, edges, PADDING[mode])  # type: ignore[call-overload,no-any-return]
    count, channels, height, width = images.shape
    out = np.empty((count, channels, top + height + bottom, left + width + right), np.uint8)
    out[...] = fill.astype(np.uint8)[:, None, None]
    out[:, :, top : top + height, left : left + width] = images
    return out


def take_mirrored(pixels: Pixels, rows: Ints, chosen: Bools) -> Pixels:
    """`take_rows`, with left and right of the ``chosen`` ones swapped."""
    if pixels[:1].nbytes < ALONE_BYTES or not pixels.flags.c_contiguous or not chosen.any():
        out = take_rows(pixels, rows)
        mirror(out, chosen)
        return out
    out = np.empty((len(rows), *pixels.shape[1:]), np.uint8)
    lines, made_lines = (each.reshape(len(each), -1, pixels.shape[3]) for each in (pixels, out))
    for row, made, flipped in zip(rows.tolist(), made_lines, chosen.tolist(), strict=True):
        if flipped:
            cv2.flip(lines[row], 1, made)
        else:
            made[...] = lines[row]
    return out


def mirror(images: Pixels, chosen: Bools) -> None:
    """Swap left and right of the ``chosen`` images, in place."""
    rows = np.flatnonzero(chosen)
    if len(rows):
        lines = images.take(rows, axis=0).reshape(-1, images.shape[3])
        images[rows] = cv2.flip(lines, 1).reshape(len(rows), *images.shape[1:])


def upend(images: Pixels, chosen: Bools) -> None:
    """Swap top and bottom of the ``chosen`` images, in place."""
    rows = np.flatnonzero(chosen)
    if len(rows):
        images[rows] = images.take(rows, axis=0)[:, :, ::-1]


def _runs(pixels: Pixels, rows: Ints, shift: Ints) -> Pixels:
    """An image's number of bytes from ``shift`` bytes after each row's start, neighbours' among them: (B, C, H, W)."""
    each = int(np.prod(pixels.shape[1:]))
    flat = pixels.reshape(-1)
    last = flat.size - each
    starts = rows * each + shift
    view = np.lib.stride_tricks.as_strided(flat, (last + 1, each), (1, 1), writeable=False)
    out: Pixels = view[np.clip(starts, 0, last)]
    for place in np.flatnonzero((starts < 0) | (starts > last)).tolist():
        # The first and the last image have no neighbour to read into.
        offset, image = int(shift[place]), pixels[rows[place]].reshape(-1)
        begin, end = max(0, offset), min(each, each + offset)
        if begin < end:
            out[place, begin - offset : end - offset] = image[begin:end]
    return out.reshape(len(rows), *pixels.shape[1:])


def _masks(top: Ints, left: Ints, size: tuple[int, int], image: tuple[int, int]) -> Pixels:
    """255 where a window lies on its image, 0 elsewhere: (B, height, width)."""
    lines, columns = _span(top), _span(left)
    shape = (len(lines), len(columns), *size)
    if np.prod(shape) > MASK_BYTES:
        return _mask(top, left, size, image)
    table = _mask_table(lines, columns, size, image)
    found: Pixels = table.take((top - lines.start) * len(columns) + left - columns.start, axis=0)
    return found


def _span(offsets: Ints) -> range:
    """All offsets from the lowest to the highest, widened so that batches share one."""
    bound = max(-int(offsets.min()), int(offsets.max()), 1)
    bound = 1 << (bound - 1).bit_length()
    return range(-bound, bound + 1)


@lru_cache(maxsize=8)
def _mask_table(lines: range, columns: range, size: tuple[int, int], image: tuple[int, int]) -> Pixels:
    top, left = (each.ravel() for each in np.meshgrid(np.array(lines), np.array(columns), indexing="ij"))
    return _mask(top, left, size, image)


def _mask(top: Ints, left: Ints, size: tuple[int, int], image: tuple[int, int]) -> Pixels:
    down, across = _inside(top, size[0], image[0]), _inside(left, size[1], image[1])
    mask: Pixels = (down[:, :, None] & across[:, None, :]).astype(np.uint8) * np.uint8(255)
    return mask


def _inside(start: Ints, length: int, limit: int) -> NDArray[Any]:
    line = start[:, None] + np.arange(length)
    return (line >= 0) & (line < limit)
