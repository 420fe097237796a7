"""Images turned, moved, scaled and sheared at random: `RandomRotation`, `RandomAffine`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from datahub.core.errors import BadArgument
from datahub.tensor.checks import fill_values, interval, number, numbers
from datahub.tensor.drawn import Drawn, Plan
from datahub.tensor.draws import Draws
from datahub.tensor.pieces import in_pieces
from datahub.tensor.warp import INTERPOLATIONS, Fill, Floats, affine_maps, warp
from datahub.tensor.warped import Warp

Range = tuple[float, float]
Center = tuple[float, float] | None


@dataclass(frozen=True, init=False)
class Affine(Drawn):
    """What draws affine maps. ``interpolation``: ``nearest`` or ``bilinear``; ``fill``: a value or one a channel."""

    interpolation: str
    fill: Fill
    center: Center
    """Column and row about which it turns, from the corner; None: the middle."""

    def _hold(self, interpolation: Any, fill: Any, center: Any) -> None:
        held = {"interpolation": interpolation_mode(interpolation), "fill": fill_values(fill), "center": None}
        if center is not None:
            held["center"] = numbers("center", center, 2)
        for name, value in held.items():
            object.__setattr__(self, name, value)

    def from_middle(self, image: tuple[int, int, int]) -> tuple[float, float]:
        """The point about which images of that size turn, counted from their middle."""
        if self.center is None:
            return 0.0, 0.0
        return self.center[0] - image[2] * 0.5, self.center[1] - image[1] * 0.5

    def maps(self, draws: Draws, image: tuple[int, int, int]) -> Floats:
        """float64 ``(B, 6)``, as `datahub.tensor.warp` takes them."""
        raise NotImplementedError

    def warps(self, draws: Draws, size: tuple[int, int]) -> list[Warp]:
        """What annotations of images of that height and width follow."""
        count = len(draws)
        return [Warp(self.maps(draws, (1, *size)), np.ones(count, np.bool_), np.tile(np.array(size), (count, 1)))]

    def plan(self, draws: Draws, image: tuple[int, int, int]) -> Plan:
        check_fill(self.fill, image[0])
        return (torch.from_numpy(self.maps(draws, image)),)

    def apply(self, images: torch.Tensor, *plan: torch.Tensor) -> torch.Tensor:
        return in_pieces(partial(warp, bilinear=self.interpolation == "bilinear", fill=self.fill), images, plan)


@dataclass(frozen=True, init=False)
class RandomRotation(Affine):
    """Turned counter-clockwise by a uniform draw of ``degrees``: from -x to x, or of a pair. The size stays."""

    degrees: Range

    def __init__(
        self,
        degrees: float | Sequence[float],
        interpolation: str = "nearest",
        center: Sequence[float] | None = None,
        fill: float | Sequence[float] | None = 0,
    ) -> None:
        object.__setattr__(self, "degrees", _degrees("degrees", degrees))
        self._hold(interpolation, fill, center)

    def maps(self, draws: Draws, image: tuple[int, int, int]) -> Floats:
        angle = _uniform(draws.uniform("RandomRotation")[:, 0], self.degrees)
        none = np.zeros((len(draws), 2))
        return affine_maps(-angle, none, np.ones(len(draws)), none, self.from_middle(image))


@dataclass(frozen=True, init=False)
class RandomAffine(Affine):
    """Turned clockwise by ``degrees``, moved by up to the shares ``translate`` of width and height, in whole pixels,
    scaled by ``scale``, sheared by ``shear`` degrees: (along x) or (along x, along x, along y, along y).
    """

    degrees: Range
    translate: Range | None
    scale: Range | None
    shear: tuple[float, ...] | None

    def __init__(
        self,
        degrees: float | Sequence[float],
        translate: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
        shear: float | Sequence[float] | None = None,
        interpolation: str = "nearest",
        fill: float | Sequence[float] | None = 0,
        center: Sequence[float] | None = None,
    ) -> None:
        object.__setattr__(self, "degrees", _degrees("degrees", degrees))
        object.__setattr__(self, "translate", None if translate is None else _shares(translate))
        object.__setattr__(self, "scale", None if scale is None else _scales(scale))
        object.__setattr__(self, "shear", None if shear is None else _shear(shear))
        self._hold(interpolation, fill, center)

    def maps(self, draws: Draws, image: tuple[int, int, int]) -> Floats:
        chance = draws.uniform("RandomAffine", 6)
        angle = _uniform(chance[:, 0], self.degrees)
        move = np.zeros((len(draws), 2))
        if self.translate is not None:
            most = np.array(self.translate) * [image[2], image[1]]
            move = np.rint(most * (2 * chance[:, 1:3] - 1))
        scale = np.ones(len(draws)) if self.scale is None else _uniform(chance[:, 3], self.scale)
        bounds = (*(self.shear or ()), 0.0, 0.0, 0.0, 0.0)[:4]
        shear = np.stack([_uniform(chance[:, 4], bounds[:2]), _uniform(chance[:, 5], bounds[2:])], axis=1)
        return affine_maps(angle, move, scale, shear, self.from_middle(image))


def interpolation_mode(value: Any) -> str:
    """The name of a mode, or torchvision's constant for it."""
    name = getattr(value, "value", value)
    if not isinstance(name, str) or name not in INTERPOLATIONS:
        raise BadArgument("interpolation", value, f"use one of {', '.join(INTERPOLATIONS)}")
    return str(name)


def check_fill(fill: Fill, channels: int) -> None:
    if fill is not None and len(fill) not in (1, channels):
        raise BadArgument("fill", fill, f"has {len(fill)} values, the images {channels} channels")


def _uniform(chance: Floats, bounds: Sequence[float]) -> Floats:
    return bounds[0] + chance * (bounds[1] - bounds[0])


def _degrees(name: str, value: Any) -> Range:
    if isinstance(value, int | float):
        most = number(name, value)
        if most < 0:
            raise BadArgument(name, value, "must not be negative", "give a pair for a range of your own")
        return -most, most
    return interval(name, value)


def _shares(values: Any) -> Range:
    across, down = numbers("translate", values, 2)
    if not (0 <= across <= 1 and 0 <= down <= 1):
        raise BadArgument("translate", values, "must be shares, 0 to 1, of the width and the height")
    return across, down


def _scales(values: Any) -> Range:
    low, high = interval("scale", values)
    if low <= 0:
        raise BadArgument("scale", values, "must be positive")
    return low, high


def _shear(value: Any) -> tuple[float, ...]:
    if isinstance(value, int | float):
        return _degrees("shear", value)
    found = numbers("shear", value, 2, 4)
    for pair in (found[:2], found[2:]):
        if pair:
            interval("shear", pair)
    return found
