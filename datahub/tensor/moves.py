"""Crops and flips of whole batches, each sample with draws of its own: `RandomCrop`, `RandomHorizontalFlip` ...

They have torchvision's arguments and distributions. A chain of them is worked out on offsets and flags first (`Moves`),
and the pixels are then moved once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from datahub.core.errors import BadArgument
from datahub.tensor import windows
from datahub.tensor.batched import BatchTransform, Images
from datahub.tensor.checks import listed, probability
from datahub.tensor.draws import Draws
from datahub.tensor.fused.moving import moved
from datahub.tensor.windows import Bools, Ints, Pixels

Edges = tuple[int, int, int, int]
"""Left, top, right, bottom."""


@dataclass(frozen=True, slots=True, eq=False)
class Moves:
    """What becomes of each image of a batch: a window of it, then mirrored and upended where the flags say so."""

    image: tuple[int, int]
    """Height and width of the images."""
    size: tuple[int, int]
    """Height and width of the windows."""
    top: Ints
    left: Ints
    """``(B,)``: the window's corner in the image; below 0 or near the far edge it reaches into the padding."""
    mirrored: Bools
    upended: Bools
    cropped: bool = False
    edges: Edges = (0, 0, 0, 0)
    mode: str = "constant"
    fill: Sequence[int] = (0,)

    @staticmethod
    def none(count: int, image: tuple[int, int]) -> Moves:
        zeros, no = np.zeros(count, np.int64), np.zeros(count, np.bool_)
        return Moves(image, image, zeros, zeros, no, no)

    def apply(self, pixels: Pixels, rows: Ints | None = None) -> Pixels:
        """The moved ``rows`` (None: all) of uint8 images ``(N, C, H, W)``, as an array of their own."""
        rows = np.arange(len(pixels)) if rows is None else rows
        if self.cropped:
            out = self._windows(pixels, rows)
            windows.mirror(out, self.mirrored)
        else:
            out = windows.take_mirrored(pixels, rows, self.mirrored)
        windows.upend(out, self.upended)
        return out

    def _windows(self, pixels: Pixels, rows: Ints) -> Pixels:
        channels = pixels.shape[1]
        if len(self.fill) not in (1, channels):
            raise BadArgument("fill", self.fill, f"has {len(self.fill)} values, the images {channels} channels")
        fill = np.broadcast_to(np.array(self.fill, np.int64), channels)
        fits = self.size[0] <= self.image[0] and self.size[1] <= self.image[1]
        if fits and (self.mode == "constant" or not any(self.edges)):
            return windows.windows(pixels, rows, self.top, self.left, self.size, fill)
        wider = windows.padded(windows.take_rows(pixels, rows), self.edges, self.mode, fill)
        top, left = self.top + self.edges[1], self.left + self.edges[0]
        return windows.windows(wider, np.arange(len(rows)), top, left, self.size, fill)


class Move(BatchTransform):
    """A transform that only moves pixels."""

    casts = False
    crops = False
    """Whether it takes windows; a chain that is worked out together holds one of these at most."""

    @abstractmethod
    def moved(self, moves: Moves, draws: Draws) -> Moves:
        """``moves``, and then this. Raises `BadArgument` where images of that size cannot be moved so."""

    def __call__(self, images: Images, dtype: torch.dtype | None = None, draws: Draws | None = None) -> Images:
        """uint8 images in the form they came in. Raises `BadArgument`."""
        check_dtype(dtype)
        return move((self,), images, draws)

    def of_rows(self, pixels: Pixels, rows: Ints, dtype: torch.dtype | None, draws: Draws | None) -> Images:
        check_dtype(dtype)
        return torch.from_numpy(chained((self,), len(rows), pixels.shape[2:], draws).apply(pixels, rows))


@dataclass(frozen=True)
class RandomHorizontalFlip(Move):
    """Left and right swapped with probability ``p``."""

    p: float = 0.5

    def __post_init__(self) -> None:
        probability(self.p)

    def moved(self, moves: Moves, draws: Draws) -> Moves:
        chosen = draws.uniform("RandomHorizontalFlip")[:, 0] < self.p
        return replace(moves, mirrored=moves.mirrored ^ chosen)


@dataclass(frozen=True)
class RandomVerticalFlip(Move):
    """Top and bottom swapped with probability ``p``."""

    p: float = 0.5

    def __post_init__(self) -> None:
        probability(self.p)

    def moved(self, moves: Moves, draws: Draws) -> Moves:
        chosen = draws.uniform("RandomVerticalFlip")[:, 0] < self.p
        return replace(moves, upended=moves.upended ^ chosen)


@dataclass(frozen=True, init=False)
class RandomCrop(Move):
    """A window of ``size`` anywhere in the image and its ``padding``: one number, (left/right, top/bottom), or four.

    ``padding_mode``: ``constant`` (``fill``, one value or one a channel), ``edge``, ``reflect`` or ``symmetric``.
    """

    size: tuple[int, int]
    padding: Edges
    fill: tuple[int, ...]
    padding_mode: str
    crops = True

    def __init__(
        self,
        size: int | Sequence[int],
        padding: int | Sequence[int] = 0,
        fill: int | Sequence[int] = 0,
        padding_mode: str = "constant",
    ) -> None:
        if not isinstance(padding_mode, str) or padding_mode not in windows.PADDING:
            raise BadArgument("padding_mode", padding_mode, f"use one of {', '.join(windows.PADDING)}")
        object.__setattr__(self, "size", _size(size))
        object.__setattr__(self, "padding", _edges(padding))
        object.__setattr__(self, "fill", _fill(fill))
        object.__setattr__(self, "padding_mode", padding_mode)

    def moved(self, moves: Moves, draws: Draws) -> Moves:
        left, top, right, bottom = self.padding
        height, width = moves.image
        room = top + height + bottom - self.size[0], left + width + right - self.size[1]
        if min(room) < 0:
            reason = f"is larger than the padded image of {height + top + bottom} x {width + left + right}"
            raise BadArgument("size", self.size, reason, "use more padding, or a smaller crop")
        self._check_reflection(height, width)
        chance = draws.uniform("RandomCrop", 2)
        down = (chance[:, 0] * (room[0] + 1)).astype(np.int64) - top
        across = (chance[:, 1] * (room[1] + 1)).astype(np.int64) - left
        # A window of a flipped image is a flipped window, as far from the other edge.
        down = np.where(moves.upended, height - self.size[0] - down, down)
        across = np.where(moves.mirrored, width - self.size[1] - across, across)
        edges = self._both_ways() if moves.mirrored.any() or moves.upended.any() else self.padding
        moves = replace(moves, edges=edges, mode=self.padding_mode, fill=self.fill)
        return replace(moves, size=self.size, top=down, left=across, cropped=True)

    def _both_ways(self) -> Edges:
        """Edges wide enough for a flipped image's window, too."""
        left, top, right, bottom = self.padding
        return (max(left, right), max(top, bottom), max(left, right), max(top, bottom))

    def _check_reflection(self, height: int, width: int) -> None:
        """torchvision, too, refuses to mirror more than there is."""
        least = {"reflect": 1, "symmetric": 0}.get(self.padding_mode)
        left, top, right, bottom = self._both_ways()
        if least is not None and (max(top, bottom) > height - least or max(left, right) > width - least):
            reason = f"there is less than that to mirror in images of {height} x {width}"
            raise BadArgument("padding", self.padding, reason, 'use padding_mode="constant" or "edge"')


def move(moves: Sequence[Move], images: Images, draws: Draws | None) -> Images:
    """Images after a chain of moves with one crop at most; lists are of images of any sizes."""
    if isinstance(images, torch.Tensor):
        if images.dtype != torch.uint8:
            raise BadArgument("images", str(images.dtype), "only uint8 images can be moved", "put Normalize last")
        total = chained(moves, len(images), images.shape[2:], draws)
        if images.device.type != "cpu":
            return moved(images.contiguous(), None, total)
        return torch.from_numpy(total.apply(images.contiguous().numpy()))
    if draws is None:
        raise _no_draws()
    found = []
    for row, image in enumerate(images):
        single = move(moves, image[None], draws.take(slice(row, row + 1)))
        found.append(single[0])
    return found


def chained(moves: Sequence[Move], count: int, image: Sequence[int], draws: Draws | None) -> Moves:
    """What a chain of moves with one crop at most makes of ``count`` images of ``image`` height and width.

    The k-th of equal transforms draws from a stream of its own.
    """
    if draws is None:
        raise _no_draws()
    total, seen = Moves.none(count, (image[0], image[1])), dict[type, int]()
    for step in moves:
        before = seen[type(step)] = seen.get(type(step), -1) + 1
        total = step.moved(total, draws.again(before))
    return total


def check_dtype(dtype: torch.dtype | None) -> None:
    if dtype not in (None, torch.uint8):
        raise BadArgument("dtype", str(dtype), "crops and flips give uint8", "put Normalize or Scale behind them")


def _no_draws() -> BadArgument:
    return BadArgument("draws", None, "are needed for what is random", "pass datahub's Draws, or use the loader")


def _is_count(value: Any, least: int, most: int = 1 << 16) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _size(size: Any) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else listed(size) or ()
    pair = pair * 2 if len(pair) == 1 else pair
    if len(pair) != 2 or not all(_is_count(each, 1) for each in pair):
        raise BadArgument("size", size, "is neither a positive side nor (height, width)")
    return pair


def _edges(padding: Any) -> Edges:
    given = (padding,) if isinstance(padding, int) else listed(padding) or ()
    four = {1: given * 4, 2: given * 2, 4: given}.get(len(given), ())
    if not four or not all(_is_count(each, 0) for each in four):
        reason = "is neither a number of pixels, nor (left and right, top and bottom), nor (left, top, right, bottom)"
        raise BadArgument("padding", padding, reason)
    return four


def _fill(fill: Any) -> tuple[int, ...]:
    given = (fill,) if isinstance(fill, int) else listed(fill) or ()
    if not given or not all(_is_count(each, 0, 255) for each in given):
        raise BadArgument("fill", fill, "is neither a value from 0 to 255 nor one a channel")
    return given
