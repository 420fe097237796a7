"""Colours changed at random: `ColorJitter`, `RandomGrayscale`, `GaussianBlur`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from datahub.core.errors import BadArgument
from datahub.tensor import colour, tables
from datahub.tensor.checks import interval, number, odd_sides, probability
from datahub.tensor.drawn import Drawn, Plan
from datahub.tensor.draws import Draws
from datahub.tensor.pieces import in_pieces, on_rows
from datahub.tensor.stages import Operation, Staged

Range = tuple[float, float]

_OPERATIONS = {
    "brightness": Operation(tables.brightness, whole=True),
    "contrast": Operation(tables.contrast, whole=True),
    "saturation": Operation(colour.saturation),
    "hue": Operation(colour.hue),
}


@dataclass(frozen=True, init=False)
class ColorJitter(Staged):
    """Brightness, contrast, saturation and hue changed by uniform draws, in an order that is drawn as well.

    A number x stands for factors from max(0, 1 - x) to 1 + x (of hue: from -x to x, at most 0.5), a pair for itself.
    """

    brightness: Range | None
    contrast: Range | None
    saturation: Range | None
    hue: Range | None
    still = True

    def __init__(
        self,
        brightness: float | Sequence[float] | None = None,
        contrast: float | Sequence[float] | None = None,
        saturation: float | Sequence[float] | None = None,
        hue: float | Sequence[float] | None = None,
    ) -> None:
        for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            object.__setattr__(self, name, _jitter(name, value, 1.0, (0.0, float("inf"))))
        object.__setattr__(self, "hue", _jitter("hue", hue, 0.0, (-0.5, 0.5)))

    @property
    def operations(self) -> Sequence[Operation]:
        return [operation for name, operation in _OPERATIONS.items() if getattr(self, name) is not None]

    def plan(self, draws: Draws, image: tuple[int, int, int]) -> Plan:  # noqa: ARG002 - colours have no place
        bounds = np.array([getattr(self, name) for name in _OPERATIONS if getattr(self, name) is not None])
        if not len(bounds):
            return torch.empty((len(draws), 0), dtype=torch.int64), torch.empty((len(draws), 0, 1), dtype=torch.float64)
        low, high = bounds.T
        factors = low + draws.uniform("ColorJitter", len(bounds)) * (high - low)
        order = draws.uniform("ColorJitter order", len(bounds)).argsort(axis=1, kind="stable")
        return torch.from_numpy(order), torch.from_numpy(np.take_along_axis(factors, order, 1))[..., None]


@dataclass(frozen=True)
class RandomGrayscale(Drawn):
    """Every channel made the image's luminance with probability ``p``."""

    p: float = 0.1
    channels = (1, 3)
    still = True

    def __post_init__(self) -> None:
        probability(self.p)

    def plan(self, draws: Draws, image: tuple[int, int, int]) -> Plan:  # noqa: ARG002 - colours have no place
        return (torch.from_numpy(draws.uniform("RandomGrayscale")[:, 0] < self.p),)

    def apply(self, images: torch.Tensor, *plan: torch.Tensor) -> torch.Tensor:
        return torch.where(plan[0][:, None, None, None], colour.grayscale(images), images)

    def run(self, images: torch.Tensor, *plan: torch.Tensor) -> torch.Tensor:
        images = images.clone()
        on_rows(colour.grayscale, images, np.flatnonzero(plan[0].numpy()), (), whole=False)
        return images


@dataclass(frozen=True, init=False)
class GaussianBlur(Drawn):
    """Blurred by a Gaussian of ``kernel_size`` (odd; one side, or width and height) and a uniform draw of ``sigma``."""

    kernel_size: tuple[int, int]
    sigma: Range
    still = True

    def __init__(self, kernel_size: int | Sequence[int], sigma: float | Sequence[float] = (0.1, 2.0)) -> None:
        object.__setattr__(self, "kernel_size", odd_sides("kernel_size", kernel_size))
        found = interval("sigma", (sigma, sigma) if isinstance(sigma, int | float) else sigma)
        if found[0] <= 0:
            raise BadArgument("sigma", sigma, "must be positive")
        object.__setattr__(self, "sigma", found)

    def plan(self, draws: Draws, image: tuple[int, int, int]) -> Plan:
        across, down = self.kernel_size
        if across // 2 >= image[2] or down // 2 >= image[1]:
            reason = f"there is less than its half to mirror in images of {image[1]} x {image[2]}"
            raise BadArgument("kernel_size", self.kernel_size, reason, "use a smaller one")
        low, high = self.sigma
        sigma = low + draws.uniform("GaussianBlur") * (high - low)
        return torch.from_numpy(_gaussian(down, sigma)), torch.from_numpy(_gaussian(across, sigma))

    def apply(self, images: torch.Tensor, *plan: torch.Tensor) -> torch.Tensor:
        return in_pieces(colour.blur, images, plan)


def _gaussian(size: int, sigma: Any) -> Any:
    """float32 ``(B, size)``, each row's sum 1; sampled as torchvision samples it."""
    edge = (size - 1) / (2 * np.sqrt(2))
    weights = np.exp(-((np.linspace(-edge, edge, size) / sigma) ** 2))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _jitter(name: str, value: Any, center: float, bounds: Range) -> Range | None:
    """The range that ``value`` stands for; None where it leaves everything as it is."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        if number(name, value) < 0:
            raise BadArgument(name, value, "must not be negative")
        low, high = center - value, center + value
        low = max(low, 0.0) if center else low
    else:
        low, high = interval(name, value)
    if not bounds[0] <= low <= high <= bounds[1]:
        raise BadArgument(name, value, f"must give a range within {bounds[0]:g} to {bounds[1]:g}")
    return None if low == high == center else (float(low), float(high))
