"""Parts of images blanked at random: `RandomErasing`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from datahub.core.errors import BadArgument
from datahub.tensor.checks import interval, number, numbers, probability
from datahub.tensor.drawn import Drawn, Plan
from datahub.tensor.draws import Draws
from datahub.tensor.pieces import moved

TRIES = 10
"""Boxes that are drawn before an image is left as it is (torchvision's number)."""


@dataclass(frozen=True, init=False)
class RandomErasing(Drawn):
    """With probability ``p`` a box of ``scale`` of the area and ``ratio`` of height to width becomes ``value``.

    ``value``: one, or one a channel, in the images' own units: before Normalize 0 to 255, after it 0 is the mean.
    Boxes and masks stay, also those of what cannot be seen any more (as with torchvision's).
    """

    p: float
    scale: tuple[float, float]
    ratio: tuple[float, float]
    value: tuple[float, ...]
    floats = True
    still = True

    def __init__(
        self,
        p: float = 0.5,
        scale: Sequence[float] = (0.02, 0.33),
        ratio: Sequence[float] = (0.3, 3.3),
        value: float | Sequence[float] = 0,
    ) -> None:
        object.__setattr__(self, "p", probability(p))
        object.__setattr__(self, "scale", interval("scale", scale))
        object.__setattr__(self, "ratio", interval("ratio", ratio))
        object.__setattr__(self, "value", _values(value))
        if not 0 <= self.scale[0] <= self.scale[1] <= 1:
            raise BadArgument("scale", scale, "must be shares, 0 to 1, of the area")
        if self.ratio[0] <= 0:
            raise BadArgument("ratio", ratio, "must be positive")

    def plan(self, draws: Draws, image: tuple[int, int, int]) -> Plan:
        """Top, left, height and width, int64 ``(B, 4)``: nothing high where nothing is erased."""
        if len(self.value) not in (1, image[0]):
            raise BadArgument("value", self.value, f"has {len(self.value)} values, the images {image[0]} channels")
        size = np.array(image[1:])
        chance = draws.uniform("RandomErasing", 2 * TRIES + 3)
        area = size.prod() * (self.scale[0] + chance[:, :TRIES] * (self.scale[1] - self.scale[0]))
        low, high = np.log(self.ratio)
        ratio = np.exp(low + chance[:, TRIES : 2 * TRIES] * (high - low))
        tall, wide = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        fits = (tall < size[0]) & (wide < size[1])
        chosen = np.arange(len(draws)), fits.argmax(axis=1)
        inner = np.stack([tall[chosen], wide[chosen]], axis=1).astype(np.int64)
        inner[~fits.any(axis=1) | (chance[:, -1] >= self.p)] = 0
        corner = (chance[:, 2 * TRIES : -1] * (size - inner + 1)).astype(np.int64)
        return (torch.from_numpy(np.concatenate([corner, inner], axis=1)),)

    def apply(self, images: torch.Tensor, *plan: torch.Tensor) -> torch.Tensor:
        top, left, tall, wide = plan[0][:, :, None].unbind(1)
        row = torch.arange(images.shape[2], device=images.device)
        column = torch.arange(images.shape[3], device=images.device)
        down, across = (row >= top) & (row < top + tall), (column >= left) & (column < left + wide)
        inside = (down[:, :, None] & across[:, None, :])[:, None]
        return torch.where(inside, self._blank(images), images)

    def run(self, images: torch.Tensor, *plan: torch.Tensor) -> torch.Tensor:
        out, blank = images.clone(), self._blank(images)[0]
        for row, (top, left, tall, wide) in enumerate(plan[0].tolist()):
            if tall and wide:
                out[row, :, top : top + tall, left : left + wide] = blank
        return out

    def _blank(self, images: torch.Tensor) -> torch.Tensor:
        values = self.value if images.is_floating_point() else [min(max(round(each), 0), 255) for each in self.value]
        return moved(torch.tensor(values, dtype=images.dtype), images).view(1, -1, 1, 1)


def _values(value: Any) -> tuple[float, ...]:
    if isinstance(value, str) and value == "random":
        raise BadArgument("value", value, "noise is not drawn", "give a number, or one a channel")
    return (number("value", value),) if isinstance(value, int | float) else numbers("value", value)
