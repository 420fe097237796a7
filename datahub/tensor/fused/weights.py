"""Weights of antialiased bilinear scaling, as torch's uint8 kernel has them: 16-bit fixed point, the triangle filter.

ATen's ``_compute_index_ranges_int16_weights`` (UpSampleKernel.cpp): a triangle as wide as two output pixels (two input
pixels where that is more), normalised, then multiplied by the greatest power of two that keeps the greatest weight
of the axis below 2^15.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_BITS = 22
LIMIT = 1 << 15


class Axis(NamedTuple):
    """Of each shown pixel: the first input it reads, and its weights ``(shown, taps)``, scaled by 2^``bits``."""

    first: NDArray[np.int64]
    weights: NDArray[np.int64]
    bits: int


def axis(start: float, length: float, low: int, high: int, scaled: int, corner: int, shown: int, flip: bool) -> Axis:
    """Inputs from ``start`` on, ``length`` of them, become ``scaled``, of which ``shown`` from ``corner`` are wanted.

    No input before ``low`` or from ``high`` on is read. What lies outside of what was scaled has no weights.
    """
    scale = length / scaled
    support = max(scale, 1.0)
    inverse = 1 / scale if scale >= 1 else 1.0
    centre = start + scale * (np.arange(scaled) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), low)
    size = np.minimum((centre + support + 0.5).astype(np.int64), high) - first
    taps = np.arange(int(size.max()))
    distance = np.abs((taps + first[:, None] - centre[:, None] + 0.5) * inverse)
    weights = np.where(taps < size[:, None], np.maximum(1 - distance, 0), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    bits = precision(float(weights.max()))
    whole = (weights * (1 << bits) + 0.5).astype(np.int64)
    at = corner + (np.arange(shown)[::-1] if flip else np.arange(shown))
    inside = (at >= 0) & (at < scaled)
    at = np.where(inside, at, 0)
    return Axis(first[at], np.where(inside[:, None], whole[at], 0), bits)


def precision(greatest: float) -> int:
    """How many bits behind the point a greatest weight allows."""
    return sum(int(0.5 + greatest * (1 << (bits + 1))) < LIMIT for bits in range(MOST_BITS))
