"""Boxes of every format as corners and back, and clipped; the arithmetic is torchvision's, in float32."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def to_corners(rows: Floats, form: str) -> Floats:
    """Boxes ``(M, 4)`` as left, top, right, bottom."""
    if form == "xyxy":
        return rows
    near, size = rows[:, :2], rows[:, 2:]
    if form == "cxcywh":
        near = near - np.abs(size / np.float32(-2))
    return np.concatenate([near, size + near], axis=1)


def from_corners(corners: Floats, form: str) -> Floats:
    if form == "xyxy":
        return corners
    near, size = corners[:, :2], corners[:, 2:] - corners[:, :2]
    if form == "cxcywh":
        near = np.asarray((near * np.float32(2) + size) / np.float32(2), np.float32)
    return np.concatenate([near, size], axis=1)


def clipped(rows: Floats, form: str, size: Ints) -> Floats:
    """``size``: width and height of each box's image."""
    far = size.astype(np.float32)
    return from_corners(np.clip(to_corners(rows, form), 0, np.concatenate([far, far], axis=1)), form)
