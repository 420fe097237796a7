"""Boxes, masks and keypoints as ``torchvision.tv_tensors``, and everything else of a sample as what it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from datahub.store import typed
from datahub.store.record import FieldSpec

Size = tuple[int, int]
"""Height and width."""


def wrap(spec: FieldSpec, value: Any, size: Size) -> Any:
    """What a sample shows of a field; ``size`` is the image's.

    ``BoundingBoxes``, ``Mask`` and ``KeyPoints`` (a plain tensor where torchvision is older than 0.23); tensors of the
    other numbers; bytes as they are.
    """
    if not isinstance(value, np.ndarray):
        return value
    tensor = torch.from_numpy(value)
    if spec.type not in typed.PLACES:
        return tensor
    from torchvision import tv_tensors  # costs more than all the rest, and most datasets need none of it

    if spec.type == "boxes":
        return tv_tensors.BoundingBoxes(tensor, format=str(spec.format).upper(), canvas_size=size)
    if spec.type == "keypoints":
        kind = getattr(tv_tensors, "KeyPoints", None)
        return tensor if kind is None else kind(tensor, canvas_size=size)
    return tv_tensors.Mask(tensor)


def alike(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """``tensor`` as the kind of ``other``: boxes that have moved to another memory are boxes still."""
    if type(other) is torch.Tensor:
        return tensor
    from torchvision import tv_tensors

    return tv_tensors.wrap(tensor, like=other) if isinstance(other, tv_tensors.TVTensor) else tensor


def apart(tensor: torch.Tensor) -> bool:
    """Whether it is of one sample, and never part of a larger tensor: boxes, masks, keypoints."""
    if type(tensor) is torch.Tensor:
        return False
    from torchvision import tv_tensors

    return isinstance(tensor, tv_tensors.TVTensor) and not isinstance(tensor, tv_tensors.Image | tv_tensors.Video)


def nothing(spec: FieldSpec, size: Size) -> Any:
    """What stands in a row that has no sample: no object, no class anywhere, no bytes."""
    if spec.type in ("bytes", "video"):
        return b""
    if spec.type == "mask":
        return np.zeros(size, np.uint8)
    if spec.type == "masks":
        return np.zeros((0, *size), np.uint8)
    return typed.array(spec, [])
