"""Crops and scaling that are decided before decoding: `RandomResizedCrop`, `Resize`, `CenterCrop`.

They give what torchvision's transforms of the same names give, with ``antialias=True``, draws for each image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from datahub.core.errors import BadArgument
from datahub.tensor.checks import listed, numbers
from datahub.tensor.draws import Draws
from datahub.tensor.frames import Frames, Framing, Ints

TRIES = 10
"""Boxes that are drawn before the image's middle is taken (torchvision's number)."""
SIDE_CAP = 1 << 15
"""Pixels of a side above which a wanted size is taken for a mistake."""


@dataclass(frozen=True, init=False)
class RandomResizedCrop(Framing):
    """A box of ``scale`` of the image's area and ``ratio`` of width to height, scaled to ``size``.

    Area is uniform, the ratio's logarithm too. As in torchvision, a box that does not fit is drawn again, and after ten
    the largest middle part whose ratio is allowed is taken. ``size``: a side, or height and width.
    """

    size: tuple[int, int]
    scale: tuple[float, float]
    ratio: tuple[float, float]
    first = True

    def __init__(
        self,
        size: int | Sequence[int],
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
    ) -> None:
        object.__setattr__(self, "size", height_and_width("size", size))
        object.__setattr__(self, "scale", _bounds("scale", scale))
        object.__setattr__(self, "ratio", _bounds("ratio", ratio))

    @property
    def output(self) -> tuple[int, int]:
        return self.size

    def framed(self, frames: Frames, draws: Draws | None) -> Frames:
        if draws is None:
            raise BadArgument("draws", None, "are needed for a random crop", "pass datahub's Draws, or use the loader")
        box = self.boxes(frames.source, draws)
        size = np.broadcast_to(np.array(self.size), (len(box), 2))
        return replace(frames, box=box, scaled=size, window=_from_corner(size))

    def boxes(self, source: Ints, draws: Draws) -> Ints:
        """Left, top, width and height of boxes in images of heights and widths ``source``, ``(B, 2)``."""
        height, width = source[:, :1], source[:, 1:]
        chance = draws.uniform("RandomResizedCrop", 2 * TRIES + 2)
        area = height * width * (self.scale[0] + chance[:, :TRIES] * (self.scale[1] - self.scale[0]))
        low, high = np.log(self.ratio)
        ratio = np.exp(low + chance[:, TRIES : 2 * TRIES] * (high - low))
        wide, tall = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
        chosen = np.arange(len(source)), fits.argmax(axis=1)
        inner = np.stack([tall[chosen], wide[chosen]], axis=1).astype(np.int64)
        place = (chance[:, 2 * TRIES :] * (source - inner + 1)).astype(np.int64)
        failed = ~fits.any(axis=1)
        inner[failed] = self._middle(source[failed])
        place[failed] = (source[failed] - inner[failed]) // 2
        return np.concatenate([place[:, ::-1], inner[:, ::-1]], axis=1)

    def _middle(self, source: Ints) -> Ints:
        """Height and width of the largest part whose ratio is allowed."""
        height, width = source.T
        ratio = width / height
        tall = np.where(ratio < self.ratio[0], np.rint(width / self.ratio[0]), height)
        wide = np.where(ratio > self.ratio[1], np.rint(height * self.ratio[1]), width)
        return np.stack([np.clip(tall, 1, height), np.clip(wide, 1, width)], axis=1).astype(np.int64)


@dataclass(frozen=True, init=False)
class Resize(Framing):
    """Scaled, antialiased, to ``size``: height and width, or the shorter side, the other in proportion."""

    size: tuple[int, ...]
    first = True

    def __init__(self, size: int | Sequence[int]) -> None:
        pair = height_and_width("size", size)
        object.__setattr__(self, "size", pair[:1] if isinstance(size, int) or len(size) == 1 else pair)

    @property
    def output(self) -> tuple[int, int] | None:
        return (self.size[0], self.size[1]) if len(self.size) == 2 else None

    def framed(self, frames: Frames, draws: Draws | None) -> Frames:  # noqa: ARG002 - nothing is random
        source = frames.source
        if len(self.size) == 2:
            scaled = np.broadcast_to(np.array(self.size), source.shape)
        else:
            # Truncated, as torchvision does.
            shorter = source.min(axis=1, keepdims=True)
            scaled = np.where(source == shorter, self.size[0], self.size[0] * source // shorter)
        return replace(frames, scaled=scaled, window=_from_corner(scaled))


@dataclass(frozen=True, init=False)
class CenterCrop(Framing):
    """The middle ``size`` (a side, or height and width); images that are smaller are set in black."""

    size: tuple[int, int]

    def __init__(self, size: int | Sequence[int]) -> None:
        object.__setattr__(self, "size", height_and_width("size", size))

    @property
    def output(self) -> tuple[int, int]:
        return self.size

    def framed(self, frames: Frames, draws: Draws | None) -> Frames:  # noqa: ARG002 - nothing is random
        wanted = np.array(self.size)
        room = frames.window[:, 2:] - wanted
        # Torchvision rounds halves to even, and puts the odd row or column of padding after the image.
        corner = np.where(room >= 0, np.rint(room / 2).astype(np.int64), -(-room // 2))
        window = np.concatenate([frames.window[:, :2] + corner, np.broadcast_to(wanted, room.shape)], axis=1)
        return replace(frames, window=window)


def height_and_width(name: str, size: Any) -> tuple[int, int]:
    """``size`` as a pair; raises `BadArgument` unless it is one or two positive whole numbers."""
    sides = (size,) if isinstance(size, int) else listed(size) or ()
    if len(sides) not in (1, 2) or any(isinstance(side, bool) or not isinstance(side, int) for side in sides):
        raise BadArgument(name, size, "must be a whole number, or a height and a width")
    if not all(0 < side <= SIDE_CAP for side in sides):
        raise BadArgument(name, size, f"must be from 1 to {SIDE_CAP} pixels")
    return sides[0], sides[-1]


def _bounds(name: str, bounds: Any) -> tuple[float, float]:
    low, high = numbers(name, bounds, 2)
    if not 0 < low <= high:
        raise BadArgument(name, bounds, "must be two positive numbers, the least and the most")
    return low, high


def _from_corner(size: Ints) -> Ints:
    return np.concatenate([np.zeros_like(size), size], axis=1)
