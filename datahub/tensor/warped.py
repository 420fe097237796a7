"""Boxes and points through affine maps: where torchvision's ``affine`` and ``rotate`` put them.

A box becomes the box around its four corners, clipped to the image; points are not clipped. Worked out in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datahub.tensor.corners import from_corners, to_corners

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Warp:
    """One step of a batch: each image is moved by its map, unless it is left as it is. Sizes stay."""

    maps: NDArray[np.float64]
    """``(B, 6)``, as `datahub.tensor.warp` takes them."""
    moved: Bools
    size: Ints
    """Height and width, ``(B, 2)``."""

    @staticmethod
    def joined(parts: Sequence[Warp]) -> Warp:
        """The steps of some images as one of all."""
        maps, moved, size = (
            np.concatenate(each) for each in zip(*((p.maps, p.moved, p.size) for p in parts), strict=True)
        )
        return Warp(maps, moved, size)


def boxes(rows: NDArray[np.float32], form: str, of: Ints, step: Warp) -> NDArray[np.float32]:
    """Boxes ``(M, 4)`` of images ``of`` the batch, after a step."""
    corners = to_corners(rows, form)[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
    places = _moved(corners, of, step)
    far = step.size[of][:, ::-1]
    near_and_far = [np.clip(each, 0, far) for each in (places.min(axis=1), places.max(axis=1))]
    found = from_corners(np.concatenate(near_and_far, axis=1).astype(np.float32), form)
    return np.where(step.moved[of][:, None], found, rows)


def points(rows: NDArray[np.float32], of: Ints, step: Warp) -> NDArray[np.float32]:
    """Points ``(M, 2)`` of images ``of`` the batch, after a step."""
    with np.errstate(over="ignore"):
        found = _moved(rows[:, None], of, step)[:, 0].astype(np.float32)
    return np.where(step.moved[of][:, None], found, rows)


def _moved(places: NDArray[np.float32], of: Ints, step: Warp) -> NDArray[np.float64]:
    """Places ``(M, n, 2)``, from the images' corners. A map says where pixels come from; this goes the other way."""
    a, b, c, d, e, f = step.maps[of].T
    turn = a * e - b * d
    turn = np.where(turn > 0, turn, 1.0)  # as it is but for rounding, where an image is sheared to a line
    there = np.stack([np.stack([e, -b], axis=1), np.stack([-d, a], axis=1)], axis=1) / turn[:, None, None]
    middle = step.size[of][:, ::-1] * 0.5
    rest = middle + np.stack([c, f], axis=1)
    found: NDArray[np.float64] = (places - rest[:, None]) @ there.transpose(0, 2, 1) + middle[:, None]
    return found
