"""Looking pixels up in a table of 256 values, two at a time where OpenCV can."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datahub.tensor.windows import Pixels

WORTH = 1 << 16
"""Pixels from which a table of pairs, which has as many entries, pays."""
_PAIRS = {2: np.float32, 4: np.float64}
"""Bytes an entry -> the type, of two entries' size, that a pair is moved as: nothing is computed with it."""


class Table:
    """256 entries of 2, 4 or 8 bytes, as OpenCV's LUT takes them. Safe in threads."""

    def __init__(self, entries: NDArray[Any]) -> None:
        self.entries = np.ascontiguousarray(entries).reshape(256, 1)
        self._pairs: NDArray[Any] | None = None

    def __call__(self, pixels: Pixels, out: NDArray[Any]) -> None:
        """Contiguous ``pixels`` looked up into contiguous ``out``, of the entries' type."""
        size = self.entries.itemsize
        if pixels.size < WORTH or pixels.size % 2 or size not in _PAIRS or not takes_pairs():
            cv2.LUT(pixels.reshape(1, -1), self.entries, out.reshape(1, -1))
            return
        if self._pairs is None:
            low, high = np.tile(self.entries[:, 0], 256), np.repeat(self.entries[:, 0], 256)
            self._pairs = np.stack([low, high], axis=1).view(_PAIRS[size])
        cv2.LUT(pixels.reshape(1, -1).view(np.uint16), self._pairs, out.reshape(1, -1).view(_PAIRS[size]))


@cache
def takes_pairs() -> bool:
    """Whether this OpenCV looks 16-bit numbers up (it does from version 5 on), and a pair's first is its low byte."""
    if sys.byteorder != "little":
        return False
    numbers = np.array([[1, 65535]], np.uint16)
    try:
        found = cv2.LUT(numbers, np.arange(65536, dtype=np.float64).reshape(-1, 1))
    except cv2.error:
        return False
    return bool(np.array_equal(found, numbers))
