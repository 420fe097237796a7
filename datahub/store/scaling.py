"""Annotations of an image that is scaled to another size: what torchvision's ``resize`` makes of them.

Sizes are height and width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Size = tuple[int, int]


def places(rows: NDArray[np.float32], before: Size, after: Size) -> NDArray[np.float32]:
    """Boxes of any format ``(N, 4)``, or points ``(..., 2)``: across by the widths' ratio, down by the heights'."""
    ratio = np.array([after[1] / before[1], after[0] / before[0]]).astype(np.float32)
    found: NDArray[np.float32] = rows * np.tile(ratio, rows.shape[-1] // 2)
    return found


def pixels(mask: NDArray[Any], after: Size) -> NDArray[Any]:
    """Masks ``(..., H, W)``, at the nearest pixel."""
    rows, columns = (nearest(np.arange(length), to) for length, to in zip(mask.shape[-2:], after, strict=True))
    return mask.take(rows, axis=-2).take(columns, axis=-1)


def nearest(line: Ints, length: int) -> Ints:
    """The rows or columns that ``length`` of them show: torch's ``nearest``, places scaled in 32 bits and cut off."""
    if length == len(line):
        return line
    scale = np.float32(len(line)) / np.float32(length)
    at = np.floor(np.arange(length, dtype=np.float32) * scale).astype(np.int64)
    found: Ints = line[np.minimum(at, len(line) - 1)]
    return found
