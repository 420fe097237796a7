"""Boxes, keypoints and masks following the pixels: the same crop, scale, flip and warp, as torchvision's functionals.

Boxes are clipped to what is left of the image, keypoints are not; objects that are left outside stay, as boxes without
area, until `SanitizeBoundingBoxes` takes them out. Masks are read at the nearest pixel; what reaches beyond the image
is 0, the class that `MaskFill` says, or mirrored, where the crop's padding is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datahub.store import typed
from datahub.store.record import FieldSpec
from datahub.tensor import warped
from datahub.tensor.corners import clipped, to_corners
from datahub.tensor.geometry import Ints, MaskFill, Placement, SanitizeBoundingBoxes, Stage
from datahub.tensor.tracing import Trace
from datahub.tensor.warped import Warp

Floats = NDArray[np.float32]
Values = dict[str, Any]


def follow(specs: Mapping[str, FieldSpec], values: Sequence[Values], sizes: Ints, steps: Sequence[Stage]) -> Ints:
    """Change the ``values`` of a batch, one dict a sample, as the steps say; returns the sizes at the end, ``(B, 2)``.

    ``sizes``: heights and widths of the images that the values are of.
    """
    first = sizes
    for step in steps:
        if isinstance(step, SanitizeBoundingBoxes):
            _sanitize(specs, values, sizes, step)
        elif isinstance(step, Placement | Warp):
            _places(specs, values, step)
            sizes = step.size
    if any(isinstance(step, Placement | Warp) for step in steps):
        _masks(specs, values, first, steps)
    return sizes


def _masks(specs: Mapping[str, FieldSpec], values: Sequence[Values], sizes: Ints, steps: Sequence[Stage]) -> None:
    """Masks after all steps, image by image: a trace through a warp takes eight bytes a pixel."""
    names = [name for name, spec in specs.items() if spec.type in ("mask", "masks")]
    fill = next((step.value for step in reversed(steps) if isinstance(step, MaskFill)), 0)
    for row, (height, width) in enumerate(sizes.tolist() if names else ()):
        trace = Trace(height, width)
        for step in steps:
            trace.go(step, row)
        for name in names:
            values[row][name] = trace.taken(values[row][name], fill if specs[name].type == "mask" else 0)


def _places(specs: Mapping[str, FieldSpec], values: Sequence[Values], step: Placement | Warp) -> None:
    """Boxes and keypoints after a step."""
    for name, spec in specs.items():
        if spec.type == "boxes":
            _each(values, name, 4, lambda rows, of, form=str(spec.format): boxes(rows, form, of, step))
        elif spec.type == "keypoints":
            _each(values, name, 2, lambda rows, of: points(rows, of, step))


def boxes(rows: Floats, form: str, of: Ints, step: Placement | Warp) -> Floats:
    """Boxes ``(M, 4)`` of images ``of`` the batch, after a step."""
    if isinstance(step, Warp):
        return warped.boxes(rows, form, of, step)
    box, scaled, window = step.box[of], step.scaled[of], step.window[of]
    found = _shifted(rows, form, box[:, :2])
    if step.cut == "box":
        found = clipped(found, form, box[:, 2:])
    ratio = (scaled[:, ::-1] / box[:, 2:]).astype(np.float32)
    found = found * np.concatenate([ratio, ratio], axis=1)
    if step.cut == "window":
        found = clipped(_shifted(found, form, window[:, 1::-1]), form, window[:, :1:-1])
    found = _flipped(found, form, step.mirrored[of], window[:, 3], 0)
    return _flipped(found, form, step.upended[of], window[:, 2], 1)


def points(rows: Floats, of: Ints, step: Placement | Warp) -> Floats:
    """Points ``(M, 2)`` of images ``of`` the batch, after a step: flipped, the far edge of W pixels is pixel W - 1."""
    if isinstance(step, Warp):
        return warped.points(rows, of, step)
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


def _shifted(rows: Floats, form: str, by: Ints) -> Floats:
    near = by.astype(np.float32)
    found: Floats = rows - np.concatenate([near, near if form == "xyxy" else np.zeros_like(near)], axis=1)
    return found


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
