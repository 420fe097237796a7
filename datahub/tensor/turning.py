"""Boxes, keypoints and masks of images that are turned upright: as the pixels are, by the same EXIF orientation.

They are of the stored pixels. Nothing is clipped or scaled, so that turning loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datahub.store.record import FieldSpec
from datahub.tensor.orientation import flips, swaps

Ints = NDArray[np.int64]


def turn(specs: Mapping[str, FieldSpec], values: Sequence[dict[str, Any]], sizes: Ints, turns: Sequence[int]) -> Ints:
    """Turn the ``values`` of a batch, one dict a sample; returns the sizes of the images that are shown, ``(B, 2)``.

    ``sizes``: heights and widths of the stored images. ``turns``: EXIF orientations, 1 to 8.
    """
    shown = sizes.copy()
    for row, each in enumerate(turns):
        if each == 1:
            continue
        if swaps(each):
            shown[row] = sizes[row, ::-1]
        height, width = shown[row].tolist()
        for name, spec in specs.items():
            if spec.type == "boxes":
                values[row][name] = boxes(values[row][name], str(spec.format), (height, width), each)
            elif spec.type == "keypoints":
                values[row][name] = points(values[row][name], (height, width), each)
            elif spec.type in ("mask", "masks"):
                values[row][name] = masks(values[row][name], each)
    return shown


def boxes(rows: NDArray[Any], form: str, shown: tuple[int, int], turn: int) -> NDArray[Any]:
    """Boxes ``(N, 4)``; ``shown``: height and width of the turned image."""
    found: NDArray[Any] = rows[:, [1, 0, 3, 2]] if swaps(turn) else rows.copy()
    for axis, far, flipped in ((0, shown[1], flips(turn)[1]), (1, shown[0], flips(turn)[0])):
        if not flipped:
            continue
        if form == "xyxy":
            found[:, [axis, axis + 2]] = far - found[:, [axis + 2, axis]]
        elif form == "xywh":
            found[:, axis] = far - (found[:, axis] + found[:, axis + 2])
        else:
            found[:, axis] = far - found[:, axis]
    return found


def points(rows: NDArray[Any], shown: tuple[int, int], turn: int) -> NDArray[Any]:
    """Points ``(..., 2)``; the far edge of W pixels is pixel W - 1, as it is where they are flipped."""
    found: NDArray[Any] = rows[..., ::-1].copy() if swaps(turn) else rows.copy()
    down, across = flips(turn)
    if across:
        found[..., 0] = shown[1] - 1 - found[..., 0]
    if down:
        found[..., 1] = shown[0] - 1 - found[..., 1]
    return found


def masks(pixels: NDArray[Any], turn: int) -> NDArray[Any]:
    """``(..., H, W)``, contiguous."""
    down, across = flips(turn)
    turned = pixels.swapaxes(-1, -2) if swaps(turn) else pixels
    return np.ascontiguousarray(turned[..., :: -1 if down else 1, :: -1 if across else 1])
