"""Annotations drawn into images, by ``torchvision.utils``: boxes with names, masks, keypoints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F
from torchvision.utils import draw_bounding_boxes, draw_keypoints, draw_segmentation_masks

COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#fabed4")
"""Objects and classes take them in turn: Trubetskoy's list of simple, distinct colours."""
ALPHA = 0.5
NOTHING = (0, 255)
"""Classes of a mask that are not drawn: the background, and what is commonly left out of losses."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Marks:
    """What is known of an image's places, of its own size; everything with a row an object has as many."""

    boxes: tv_tensors.BoundingBoxes | None = None
    names: Sequence[str] | None = None
    """Of the objects."""
    masks: torch.Tensor | None = None
    """``(N, H, W)``, not 0 where the object is."""
    classes: torch.Tensor | None = None
    """``(H, W)``: a class number a pixel."""
    points: torch.Tensor | None = None
    """``(N, K, 2)``."""
    visible: torch.Tensor | None = None
    """bool ``(N, K)``."""


def marked(image: torch.Tensor, marks: Marks, size: int) -> torch.Tensor:
    """The uint8 CHW image as RGB, its longer side ``size``, and the marks drawn at that size."""
    height, width = image.shape[-2:]
    scale = size / max(height, width)
    fitted = [max(1, round(height * scale)), max(1, round(width * scale))]
    rgb = image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
    out: torch.Tensor = F.resize(rgb, fitted, antialias=True)
    out = _masked(out, marks, fitted)
    out = _boxed(out, marks, fitted)
    return _pointed(out, marks, (height, width), fitted)


def _planes(marks: Marks) -> tuple[torch.Tensor | None, list[str]]:
    """One plane an object or a class that is not drawn over by nothing, and its colour: a class has one everywhere."""
    if marks.masks is not None and len(marks.masks):
        return marks.masks != 0, _colours(range(len(marks.masks)))
    if marks.classes is None:
        return None, []
    found = [each for each in torch.unique(marks.classes).tolist() if each not in NOTHING]
    planes = torch.stack([marks.classes == each for each in found]) if found else None
    return planes, _colours(each - 1 for each in found)


def _masked(image: torch.Tensor, marks: Marks, fitted: list[int]) -> torch.Tensor:
    planes, colours = _planes(marks)
    if planes is None:
        return image
    planes = F.resize(tv_tensors.Mask(planes.to(torch.uint8)), fitted).bool().as_subclass(torch.Tensor)
    drawn: torch.Tensor = draw_segmentation_masks(image, planes, ALPHA, colours)
    return drawn


def _boxed(image: torch.Tensor, marks: Marks, fitted: list[int]) -> torch.Tensor:
    if marks.boxes is None or not len(marks.boxes):
        return image
    corners = F.convert_bounding_box_format(F.resize(marks.boxes, fitted), new_format="XYXY")
    corners = F.clamp_bounding_boxes(corners).as_subclass(torch.Tensor)
    near, far = corners[:, :2].minimum(corners[:, 2:]), corners[:, :2].maximum(corners[:, 2:])
    seen = (far > near).all(1)  # what a crop has cut off has no area
    if not seen.any():
        return image
    names = None if marks.names is None else [name for name, here in zip(marks.names, seen, strict=True) if here]
    colours = [colour for colour, here in zip(_colours(range(len(seen))), seen, strict=True) if here]
    drawn: torch.Tensor = draw_bounding_boxes(image, torch.cat([near, far], 1)[seen], names, colours, width=2)
    return drawn


def _pointed(image: torch.Tensor, marks: Marks, size: tuple[int, int], fitted: list[int]) -> torch.Tensor:
    if marks.points is None or not marks.points.numel():
        return image
    points = marks.points.as_subclass(torch.Tensor) * torch.tensor([fitted[1] / size[1], fitted[0] / size[0]])
    inside = ((points >= 0) & (points < torch.tensor([fitted[1], fitted[0]]))).all(-1)
    shown = inside if marks.visible is None else inside & marks.visible
    for row, colour in enumerate(_colours(range(len(points)))):
        if shown[row].any():
            image = draw_keypoints(image, points[row][shown[row]][None], colors=colour, radius=2)
    return image


def _colours(numbers: Iterable[int]) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in numbers]
