"""A transform whose draws are made beforehand: `Planned`, for ``torch.compile`` and for steps of a caller's own."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from datahub.core.errors import BadArgument
from datahub.tensor.batched import BatchTransform
from datahub.tensor.checks import listed, whole
from datahub.tensor.compose import Compose, MoveChain
from datahub.tensor.drawn import Drawn, Plan
from datahub.tensor.draws import Draws
from datahub.tensor.moves import Move, Moves, chained
from datahub.tensor.normalize import Normalize
from datahub.tensor.pieces import moved

Image = tuple[int, int, int]
"""Channels, height, width."""


class _Window(NamedTuple):
    """How a chain of moves cuts, which is the same for every image."""

    size: tuple[int, int]
    cropped: bool
    mode: str
    fill: tuple[int, ...]


class Planned:
    """``plan`` draws, on the host, what ``apply`` then does with torch alone, on any device and in float32.

    ``apply`` neither branches nor shapes by a value, so ``torch.compile(planned.apply, fullgraph=True)`` takes it;
    where every image has an operation of its own, all of them are computed of every image. What it gives is what the
    transform gives of the same draws. Raises `BadArgument` for what is decided before decoding (crops that scale).
    """

    def __init__(self, transform: BatchTransform, image: Image) -> None:
        """``image``: channels, height and width of the images to come."""
        image = _image(image)
        self._parts = transform.parts if isinstance(transform, Compose) else (transform,)
        self._images, self._windows = [image], list[_Window | None]()
        for part in self._parts:
            if not isinstance(part, Drawn | Move | MoveChain | Normalize):
                hint = "plan what follows it"
                raise BadArgument("transform", type(part).__name__, "is decided before images are decoded", hint)
            window = None
            if isinstance(part, Move | MoveChain):
                window = _window(_moves(part, Draws.none(1), self._images[-1]), image[0])
            self._windows.append(window)
            self._images.append(self._images[-1] if window is None else (image[0], *window.size))

    def plan(self, draws: Draws) -> tuple[Plan, ...]:
        """Tensors of a row a sample, for each part of the transform."""
        found: list[Plan] = []
        for number, (part, image) in enumerate(zip(self._parts, self._images, strict=False)):
            own = draws.again(number)
            if isinstance(part, Drawn):
                found.append(part.plan(own, image))
            elif isinstance(part, Move | MoveChain):
                moves = _moves(part, own, image)
                columns = (moves.top, moves.left, moves.upended, moves.mirrored)
                found.append(tuple(map(torch.from_numpy, columns)))
            else:
                found.append(())
        return tuple(found)

    def apply(self, images: torch.Tensor, plans: tuple[Plan, ...]) -> torch.Tensor:
        """The transform of ``images`` by ``plans``, whose tensors are on the images' device."""
        for part, window, plan in zip(self._parts, self._windows, plans, strict=True):
            if isinstance(part, Drawn):
                images = part.apply(images, *plan)
            elif isinstance(part, Normalize):
                images = _normalized(part, images)
            else:
                assert window is not None
                images = _moved(window, images, *plan)
        return images


def _image(image: Any) -> Image:
    sides = listed(image) or ()
    if len(sides) != 3:
        raise BadArgument("image", image, "must be a number of channels, a height and a width")
    channels, height, width = (whole("image", each, 1) for each in sides)
    return channels, height, width


def _moves(part: BatchTransform, draws: Draws, image: Image) -> Moves:
    assert isinstance(part, Move | MoveChain)
    return chained(part.steps if isinstance(part, MoveChain) else (part,), len(draws), image[1:], draws)


def _window(moves: Moves, channels: int) -> _Window:
    fill = tuple(moves.fill)
    if len(fill) not in (1, channels):
        raise BadArgument("fill", fill, f"has {len(fill)} values, the images {channels} channels")
    return _Window(moves.size, moves.cropped, moves.mode, fill)


def _moved(
    window: _Window,
    images: torch.Tensor,
    top: torch.Tensor,
    left: torch.Tensor,
    upended: torch.Tensor,
    mirrored: torch.Tensor,
) -> torch.Tensor:
    (tall, wide), (channels, height, width) = window.size, images.shape[1:]
    rows, columns = _places(top, upended, tall), _places(left, mirrored, wide)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    rows, columns = _folded(rows, height, window.mode), _folded(columns, width, window.mode)
    found = images.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width))
    found = found.gather(3, columns[:, None, None, :].expand(-1, channels, tall, -1))
    if not window.cropped or window.mode != "constant":
        return found
    fill = moved(torch.tensor(window.fill, dtype=images.dtype), images).view(1, -1, 1, 1)
    return torch.where(inside[:, None], found, fill)


def _places(first: torch.Tensor, turned: torch.Tensor, length: int) -> torch.Tensor:
    """int64 ``(B, length)``: the image's row or column that each of a window shows."""
    line = torch.arange(length, device=first.device)
    return first[:, None] + torch.where(turned[:, None], length - 1 - line, line)


def _folded(places: torch.Tensor, length: int, mode: str) -> torch.Tensor:
    """Places brought into ``range(length)``, as padding does."""
    if mode == "reflect" and length > 1:
        around = places.remainder(2 * (length - 1))
        return torch.minimum(around, 2 * (length - 1) - around)
    if mode == "symmetric":
        around = places.remainder(2 * length)
        return torch.minimum(around, 2 * length - 1 - around)
    return places.clamp(0, length - 1)


def _normalized(part: Normalize, images: torch.Tensor) -> torch.Tensor:
    mean, std = (moved(torch.tensor(each), images).view(1, -1, 1, 1) for each in (part.mean, part.std))
    return (images.float().mul(1 / 255) - mean) / std
