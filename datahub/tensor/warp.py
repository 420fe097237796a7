"""Images moved by an affine map, each by its own: what torchvision's ``affine`` and ``rotate`` do, without expanding.

A map is six numbers (a, b, c, d, e, f): the pixel at (x, y) of the result is the image's at (a x + b y + c,
d x + e y + f), x and y counted from the middle.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from datahub.tensor.pieces import moved, on_cpu

Floats = NDArray[np.float64]
Fill = tuple[float, ...] | None

INTERPOLATIONS = ("nearest", "bilinear")
COUNTED = 1 << 24
"""Pixels that a float32 counts one by one."""


def affine_maps(
    angle: Floats, translate: Floats, scale: Floats, shear: Floats, center: tuple[float, float] = (0.0, 0.0)
) -> Floats:
    """float64 ``(n, 6)``: turned by ``angle`` and sheared by ``shear`` ``(n, 2)``, both in degrees, scaled by ``scale``
    about ``center``, then moved by ``translate`` ``(n, 2)`` pixels; x comes first. Angles turn clockwise, as those of
    torchvision's ``affine``, not of its ``rotate``.
    """
    turn, (sx, sy) = np.radians(angle), np.radians(shear.T)
    a = np.cos(turn - sy) / np.cos(sy)
    b = -np.cos(turn - sy) * np.tan(sx) / np.cos(sy) - np.sin(turn)
    c = np.sin(turn - sy) / np.cos(sy)
    d = -np.sin(turn - sy) * np.tan(sx) / np.cos(sy) + np.cos(turn)
    linear = np.stack([d, -b, -c, a], axis=1) / scale[:, None]
    from_middle = -np.array(center) - translate
    across = center[0] + (linear[:, :2] * from_middle).sum(axis=1)
    down = center[1] + (linear[:, 2:] * from_middle).sum(axis=1)
    return np.column_stack([linear[:, :2], across, linear[:, 2:], down])


def warp(images: torch.Tensor, maps: torch.Tensor, *, bilinear: bool = False, fill: Fill = None) -> torch.Tensor:
    """uint8 images moved by ``maps``, float64 ``(n, 6)``. ``fill``: a value, or one a channel; None is black.

    As in torchvision, where pixels are mixed an edge with a fill is darker than one with None: it is weighed twice.
    """
    height, width = images.shape[2:]
    if bilinear:
        return _mixed(images, _grid(maps, height, width), fill)
    return _nearest(images, *_places(maps, height, width), fill)


def sources(maps: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Which pixel each of the result is by ``nearest``: its number, row by row, int64 ``(n, H, W)``; -1 is none."""
    inside, place = _rounded(*_places(maps, height, width))
    return torch.where(inside, place, -1)


def _places(maps: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Column and row, float32 ``(n, H, W)``, that each pixel of the result comes from."""
    maps = maps.float()
    x = torch.arange(width, device=maps.device) - (width - 1) * 0.5
    y = torch.arange(height, device=maps.device) - (height - 1) * 0.5
    a, b, c, d, e, f = maps[..., None].unbind(1)
    across = (a * x)[:, None, :] + (b * y + (c + (width - 1) * 0.5))[:, :, None]
    down = (d * x)[:, None, :] + (e * y + (f + (height - 1) * 0.5))[:, :, None]
    return across, down


def _grid(maps: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The same places as ``grid_sample`` takes them, ``(n, H, W, 2)``: -1 and 1 are the image's edges."""
    maps = maps.float()
    x = torch.arange(width, device=maps.device) - (width - 1) * 0.5
    y = torch.arange(height, device=maps.device) - (height - 1) * 0.5
    a, b, c, d, e, f = maps[..., None].unbind(1)
    across = (a * x * (2 / width))[:, None, :], ((b * y + c) * (2 / width))[:, :, None]
    down = (d * x * (2 / height))[:, None, :], ((e * y + f) * (2 / height))[:, :, None]
    if not on_cpu(maps):
        return torch.stack([torch.add(*across), torch.add(*down)], dim=-1)
    grid = torch.empty((len(maps), height, width, 2))
    torch.add(*across, out=grid[..., 0])
    torch.add(*down, out=grid[..., 1])
    return grid


def _nearest(images: torch.Tensor, across: torch.Tensor, down: torch.Tensor, fill: Fill) -> torch.Tensor:
    inside, place = _rounded(across, down)
    found = images.flatten(2).gather(2, place.flatten(1)[:, None].expand(-1, images.shape[1], -1)).view_as(images)
    if fill is None or not any(fill):
        return found.mul_(inside[:, None])
    return torch.where(inside[:, None], found, _filling(images, fill).to(torch.uint8))


def _rounded(across: torch.Tensor, down: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether the nearest pixel is one of the image, and the number of the one of the image that is nearest."""
    height, width = across.shape[1:]
    across, down = across.round_(), down.round_()
    inside = (across >= 0) & (across <= width - 1) & (down >= 0) & (down <= height - 1)
    across, down = across.clamp_(0, width - 1), down.clamp_(0, height - 1)
    if height * width > COUNTED:
        return inside, (down.long() * width).add_(across.long())
    return inside, (down * width).add_(across).long()


def _mixed(images: torch.Tensor, grid: torch.Tensor, fill: Fill) -> torch.Tensor:
    floats = images.float()
    if fill is not None:
        floats = torch.cat([floats, torch.ones_like(floats[:, :1])], dim=1)
    found = functional.grid_sample(floats, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if fill is not None and any(fill):
        filling = _filling(images, fill).float()
        found = (found[:, :-1] - filling) * found[:, -1:] + filling
    elif fill is not None:
        found = found[:, :-1] * found[:, -1:]
    return found.round_().to(torch.int16).to(torch.uint8)


def _filling(images: torch.Tensor, fill: tuple[float, ...]) -> torch.Tensor:
    return moved(torch.tensor(fill), images).view(1, -1, 1, 1)
