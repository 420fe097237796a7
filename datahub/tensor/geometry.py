"""Where a transform puts what it is given, worked out from the same draws: for whatever has to follow the pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from datahub.core.errors import BadArgument
from datahub.tensor import checks
from datahub.tensor.affine import Affine
from datahub.tensor.batched import BatchTransform, Images
from datahub.tensor.compose import Compose, MoveChain
from datahub.tensor.crops import RandomResizedCrop, Resize
from datahub.tensor.draws import Draws
from datahub.tensor.frames import Frames, Framing
from datahub.tensor.moves import Edges, Move, Moves, chained
from datahub.tensor.policies import Policy
from datahub.tensor.warped import Warp

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """One step of a batch: of each image a box, scaled, of that a window, then mirrored and upended. See `Frames`."""

    box: Ints
    """Left, top, width, height."""
    scaled: Ints
    """Height, width."""
    window: Ints
    """Top, left, height, width."""
    mirrored: Bools
    upended: Bools
    cut: str = ""
    """What clips boxes to itself: the ``box``, the ``window``, or nothing."""
    edges: Edges = (0, 0, 0, 0)
    mode: str = "constant"
    """How a window that reaches beyond the image is filled: constant, or as `RandomCrop` says by its ``edges``."""

    @property
    def size(self) -> Ints:
        """Height and width of what comes out, ``(B, 2)``."""
        return self.window[:, 2:]


@dataclass(frozen=True)
class SanitizeBoundingBoxes(BatchTransform):
    """Takes out objects whose box is smaller than ``min_size`` or ``min_area``, or reaches out of the image.

    As torchvision's; their rows go from all fields that have a row an object. Images stay as they are.
    """

    min_size: float = 1.0
    min_area: float = 1.0
    casts = False
    still = True

    def __post_init__(self) -> None:
        for name in ("min_size", "min_area"):
            value = getattr(self, name)
            if checks.number(name, value) < 1:
                raise BadArgument(name, value, "must be a number of pixels, at least 1")

    def __call__(self, images: Images, dtype: torch.dtype | None = None, draws: Draws | None = None) -> Images:  # noqa: ARG002 - nothing is random
        return images


@dataclass(frozen=True)
class MaskFill(BatchTransform):
    """What masks of classes hold beyond the image, in place of 0: the ``value`` that a loss ignores, such as 255.

    Wherever it stands, it is said for the whole transform. Masks of objects hold 0 there. Images stay as they are.
    """

    value: int
    casts = False
    still = True

    def __post_init__(self) -> None:
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not 0 <= self.value <= 255:
            raise BadArgument("value", self.value, "is no class number from 0 to 255")

    def __call__(self, images: Images, dtype: torch.dtype | None = None, draws: Draws | None = None) -> Images:  # noqa: ARG002 - nothing is random
        return images


Stage = Placement | Warp | SanitizeBoundingBoxes | MaskFill


def unable(transform: BatchTransform) -> BatchTransform | None:
    """The part of a transform that annotations cannot follow, None where they can follow all of it."""
    able = (Framing, MoveChain, Move, Affine, Policy)
    return next((part for part in _parts(transform) if not part.still and not isinstance(part, able)), None)


def sanitizes(transform: object) -> bool:
    """Whether it takes objects out."""
    parts = _parts(transform) if isinstance(transform, BatchTransform) else ()
    return any(isinstance(part, SanitizeBoundingBoxes) for part in parts)


def stages(transform: BatchTransform, sizes: Ints, draws: Draws) -> list[Stage]:
    """What the transform does with these draws to images of heights and widths ``sizes``, ``(B, 2)``, step by step.

    Raises `BadArgument` as the transform does.
    """
    found: list[Stage] = []
    for number, part in enumerate(_parts(transform)):
        own = draws.again(number)
        if isinstance(part, SanitizeBoundingBoxes | MaskFill):
            found.append(part)
        elif isinstance(part, Affine | Policy):
            found += _warped(part, sizes, own)
        elif isinstance(part, Framing | MoveChain | Move):
            step = _framed(part, sizes, own) if isinstance(part, Framing) else _moved(part, sizes, own)
            found.append(step)
            sizes = step.size
    return found


def _parts(transform: BatchTransform) -> tuple[BatchTransform, ...]:
    return transform.parts if isinstance(transform, Compose) else (transform,)


def _framed(part: Framing, sizes: Ints, draws: Draws) -> Placement:
    frames = part.framed(Frames.whole(sizes), draws)
    cut = "box" if isinstance(part, RandomResizedCrop) else "" if isinstance(part, Resize) else "window"
    still = np.zeros(len(frames), np.bool_)
    return Placement(frames.box, frames.scaled, frames.window, frames.flip, still, cut)


def _warped(part: Affine | Policy, sizes: Ints, draws: Draws) -> list[Warp]:
    if len(sizes) and (sizes == sizes[0]).all():
        return part.warps(draws, (int(sizes[0, 0]), int(sizes[0, 1])))
    each = [
        part.warps(draws.take(slice(row, row + 1)), (height, width))
        for row, (height, width) in enumerate(sizes.tolist())
    ]
    return [Warp.joined(step) for step in zip(*each, strict=True)]


def _moved(part: MoveChain | Move, sizes: Ints, draws: Draws) -> Placement:
    steps = part.steps if isinstance(part, MoveChain) else (part,)
    if len(sizes) and (sizes == sizes[0]).all():
        return _placed([chained(steps, len(sizes), sizes[0].tolist(), draws)], sizes)
    each = [chained(steps, 1, size, draws.take(slice(row, row + 1))) for row, size in enumerate(sizes.tolist())]
    return _placed(each, sizes)


def _placed(moves: list[Moves], sizes: Ints) -> Placement:
    top, left, mirrored, upended = (
        np.concatenate(each) for each in zip(*((m.top, m.left, m.mirrored, m.upended) for m in moves), strict=True)
    )
    size = np.broadcast_to(np.array([m.size for m in moves], np.int64), (len(sizes), 2))
    window = np.concatenate([np.stack([top, left], axis=1), size], axis=1)
    first, box = moves[0], Frames.whole(sizes).box
    before, above, behind, below = (max(m.edges[side] for m in moves) for side in range(4))
    cut = "window" if first.cropped else ""
    return Placement(box, sizes, window, mirrored, upended, cut, (before, above, behind, below), first.mode)
