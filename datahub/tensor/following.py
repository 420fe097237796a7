"""Boxes, keypoints and masks following the pixels: the same crop, scale and flip, as torchvision's functionals do it.

Boxes are clipped to what is left of the image, keypoints are not. Masks are read at the nearest pixel, what reaches
beyond the image is class 0 (or mirrored, where the crop's padding is).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datahub.store import typed
from datahub.store.record import FieldSpec
from datahub.tensor.geometry import Ints, Placement, SanitizeBoundingBoxes, Stage
from datahub.tensor.windows import PADDING

Floats = NDArray[np.float32]
Values = dict[str, Any]


def follow(specs: Mapping[str, FieldSpec], values: Sequence[Values], sizes: Ints, steps: Sequence[Stage]) -> Ints:
    """Change the ``values`` of a batch, one dict a sample, as the steps say; returns the sizes at the end, ``(B, 2)``.

    ``sizes``: heights and widths of the images that the values are of.
    """
    moves = any(isinstance(step, Placement) for step in steps)
    masked = [name for name, spec in specs.items() if moves and spec.type in ("mask", "masks")]
    paths = [_Path(height, width) for height, width in sizes.tolist()] if masked else []
    for step in steps:
        if isinstance(step, SanitizeBoundingBoxes):
            _sanitize(specs, values, sizes, step)
            continue
        for name, spec in specs.items():
            if spec.type == "boxes":
                _each(values, name, 4, lambda rows, of, step=step, form=str(spec.format): boxes(rows, form, of, step))
            elif spec.type == "keypoints":
                _each(values, name, 2, lambda rows, of, step=step: points(rows, of, step))
        for row, path in enumerate(paths):
            path.go(step, row)
        sizes = step.size
    for value, path in zip(values, paths, strict=False):
        for name in masked:
            value[name] = path.taken(value[name])
    return sizes


def boxes(rows: Floats, form: str, of: Ints, step: Placement) -> Floats:
    """Boxes ``(M, 4)`` of images ``of`` the batch, after a step."""
    box, scaled, window = step.box[of], step.scaled[of], step.window[of]
    found = _shifted(rows, form, box[:, :2])
    if step.cut == "box":
        found = _clipped(found, form, box[:, 2:])
    ratio = (scaled[:, ::-1] / box[:, 2:]).astype(np.float32)
    found = found * np.concatenate([ratio, ratio], axis=1)
    if step.cut == "window":
        found = _clipped(_shifted(found, form, window[:, 1::-1]), form, window[:, :1:-1])
    found = _flipped(found, form, step.mirrored[of], window[:, 3], 0)
    return _flipped(found, form, step.upended[of], window[:, 2], 1)


def points(rows: Floats, of: Ints, step: Placement) -> Floats:
    """Points ``(M, 2)`` of images ``of`` the batch, after a step: the far edge of W pixels is that of pixel W - 1."""
    box, scaled, window = step.box[of], step.scaled[of], step.window[of]
    found = rows - box[:, :2].astype(np.float32)
    found *= (scaled[:, ::-1] / box[:, 2:]).astype(np.float32)
    found -= window[:, 1::-1].astype(np.float32)
    for axis, flips in enumerate((step.mirrored, step.upended)):
        turned = flips[of]
        far = window[turned, 3 - axis].astype(np.float32) - 1
        found[turned, axis] = -(found[turned, axis] - far)
    return found


def kept(rows: Floats, form: str, size: Ints, step: SanitizeBoundingBoxes) -> NDArray[np.bool_]:
    """Which boxes ``(N, 4)`` of an image of height and width ``size`` stay."""
    corners = to_corners(rows, form)
    width, height = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    stay: NDArray[np.bool_] = (width >= step.min_size) & (height >= step.min_size) & (width * height >= step.min_area)
    stay &= (corners >= 0).all(axis=1)
    stay &= (corners <= np.tile(size[::-1], 2)).all(axis=1)
    return stay


def to_corners(rows: Floats, form: str) -> Floats:
    """Boxes as left, top, right, bottom; the arithmetic is torchvision's."""
    if form == "xyxy":
        return rows
    near, size = rows[:, :2], rows[:, 2:]
    if form == "cxcywh":
        near = near - np.abs(size / np.float32(-2))
    return np.concatenate([near, size + near], axis=1)


def _from_corners(corners: Floats, form: str) -> Floats:
    if form == "xyxy":
        return corners
    near, size = corners[:, :2], corners[:, 2:] - corners[:, :2]
    if form == "cxcywh":
        near = np.asarray((near * np.float32(2) + size) / np.float32(2), np.float32)
    return np.concatenate([near, size], axis=1)


def _shifted(rows: Floats, form: str, by: Ints) -> Floats:
    near = by.astype(np.float32)
    found: Floats = rows - np.concatenate([near, near if form == "xyxy" else np.zeros_like(near)], axis=1)
    return found


def _clipped(rows: Floats, form: str, size: Ints) -> Floats:
    """``size``: width and height of each box's image."""
    far = size.astype(np.float32)
    return _from_corners(np.clip(to_corners(rows, form), 0, np.concatenate([far, far], axis=1)), form)


def _flipped(rows: Floats, form: str, chosen: NDArray[np.bool_], length: Ints, axis: int) -> Floats:
    found, far = rows.copy(), length[chosen].astype(np.float32)
    if form == "xyxy":
        for to, at in ((axis, axis + 2), (axis + 2, axis)):
            found[chosen, to] = -(rows[chosen, at] - far)
    elif form == "xywh":
        found[chosen, axis] = -(rows[chosen, axis] + rows[chosen, axis + 2] - far)
    else:
        found[chosen, axis] = -(rows[chosen, axis] - far)
    return found


def _each(values: Sequence[Values], name: str, width: int, of: Any) -> None:
    """Replace a field of all samples by what ``of`` makes of all its rows at once."""
    shapes = [value[name].shape for value in values]
    flat = [value[name].reshape(-1, width) for value in values]
    counts = [len(each) for each in flat]
    found = of(np.concatenate(flat), np.repeat(np.arange(len(values)), counts))
    for value, shape, rows in zip(values, shapes, np.split(found, np.cumsum(counts)[:-1]), strict=True):
        value[name] = rows.reshape(shape)


def _sanitize(
    specs: Mapping[str, FieldSpec], values: Sequence[Values], sizes: Ints, step: SanitizeBoundingBoxes
) -> None:
    name = next((name for name, spec in specs.items() if spec.type == "boxes"), None)
    if name is None:
        return
    beside = [other for other, spec in specs.items() if spec.type in typed.OBJECTS]
    for value, size in zip(values, sizes, strict=True):
        stay = kept(value[name], str(specs[name].format), size, step)
        if not stay.all():
            value |= {other: value[other][stay] for other in beside}


class _Path:
    """Which row and column of a mask each pixel shows, -1 for none, along the steps."""

    def __init__(self, height: int, width: int) -> None:
        self._rows, self._columns = np.arange(height), np.arange(width)

    def go(self, step: Placement, row: int) -> None:
        left, top, width, height = step.box[row].tolist()
        tall, wide = step.scaled[row].tolist()
        y, x, high, across = step.window[row].tolist()
        rows = _nearest(self._rows[top : top + height], tall)
        columns = _nearest(self._columns[left : left + width], wide)
        before, above, behind, below = step.edges
        rows = _window(rows, y, high, (above, below), step.mode)
        columns = _window(columns, x, across, (before, behind), step.mode)
        self._rows = rows[::-1] if step.upended[row] else rows
        self._columns = columns[::-1] if step.mirrored[row] else columns

    def taken(self, mask: NDArray[Any]) -> NDArray[Any]:
        """``(..., H, W)`` along the path."""
        found: NDArray[Any] = mask.take(self._rows, axis=-2, mode="clip").take(self._columns, axis=-1, mode="clip")
        found[..., self._rows < 0, :] = 0
        found[..., :, self._columns < 0] = 0
        return found


def _nearest(line: Ints, length: int) -> Ints:
    """torch's ``nearest``: the place is scaled in 32 bits and cut off."""
    if length == len(line):
        return line
    scale = np.float32(len(line)) / np.float32(length)
    at = np.floor(np.arange(length, dtype=np.float32) * scale).astype(np.int64)
    found: Ints = line[np.minimum(at, len(line) - 1)]
    return found


def _window(line: Ints, first: int, length: int, edges: tuple[int, int], mode: str) -> Ints:
    if mode != "constant" and any(edges):
        line, first = np.pad(line, edges, PADDING[mode]), first + edges[0]  # type: ignore[call-overload]
    at = np.arange(first, first + length)
    inside = (at >= 0) & (at < len(line))
    found: Ints = np.where(inside, line[np.clip(at, 0, len(line) - 1)], -1)
    return found
