"""Images that went through a transform, made visible again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def viewable(images: torch.Tensor | Sequence[torch.Tensor], transform: Any = None) -> list[torch.Tensor]:
    """Images as uint8 CHW tensors. What ``transform`` normalised is scaled back by its mean and deviation.

    Without those, numbers that are no uint8 are stretched from the batch's least to its greatest.
    """
    images = list(images)
    if all(image.dtype == torch.uint8 for image in images):
        return images
    floats = [image.to(torch.float32) for image in images]
    moments = _moments(transform)
    if moments is None:
        low = min(float(image.min()) for image in floats)
        high = max(float(image.max()) for image in floats)
        span = (high - low) or 1.0
        moments = torch.tensor(-low / span), torch.tensor(1 / span)
    mean, std = moments
    return [((image * std + mean) * 255).round().clamp(0, 255).to(torch.uint8) for image in floats]


def _moments(transform: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Mean and deviation, ``(C, 1, 1)``, of the last normalisation inside ``transform``."""
    for inner in reversed(getattr(transform, "transforms", ())):
        if (found := _moments(inner)) is not None:
            return found
    mean, std = getattr(transform, "mean", None), getattr(transform, "std", None)
    if mean is None or std is None:
        return None
    return torch.tensor(mean).reshape(-1, 1, 1), torch.tensor(std).reshape(-1, 1, 1)
