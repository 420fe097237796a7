"""Samples of a batch mixed with each other, their labels with them: `MixUp`, `CutMix`, `RandomMix`.

A sample's partner is the one before it in its group: ``mix_group`` consecutive slots of the global batch, whatever the
ranks, so that a batch is mixed the same on any world size that does not cut a group. Each sample draws its own share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from datahub.core.errors import BadArgument
from datahub.tensor.checks import number, numbers, whole
from datahub.tensor.draws import Draws
from datahub.tensor.pieces import images_a_piece, moved, on_cpu, parts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

GROUP = 2
"""The usual ``mix_group``: any even share of slots a rank holds whole groups."""
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes of a value -> the integers that are moved in its place."""
_STEPS = 1 << 14
"""Places at which the beta distribution is integrated."""


class Mixture(NamedTuple):
    """What becomes of each row: tensors of a row a sample, which mean the same for images of any size."""

    partner: torch.Tensor
    """int64: the row that it is mixed with, or itself."""
    ratio: torch.Tensor
    """float32: its own part of every pixel outside the box."""
    half: torch.Tensor
    """float64: half a side of the box that is wholly the partner's, as a part of the image's."""
    middle: torch.Tensor
    """float64 ``(B, 2)``: column and row of the box's middle, as parts of the width and the height."""

    def boxes(self, width: int, height: int) -> torch.Tensor:
        """int64 ``(B, 4)``: left, top, right and bottom, within the image."""
        size = moved(torch.tensor([width, height]), self.half)
        half, middle = (self.half[:, None] * size).long(), (self.middle * size).long()
        return torch.cat([(middle - half).clamp(min=0), torch.minimum(middle + half, size)], dim=1)


class Mixing(ABC):
    """What a loader takes as ``batch_transform=`` for mixing; labels become float32 ``(B, num_classes)``."""

    num_classes: int | None
    mix_group: int

    @abstractmethod
    def plan(self, draws: Draws, partner: Ints) -> Mixture:
        """What each row draws, on the host; a row that is its own partner stays as it is."""

    @abstractmethod
    def bound(self, classes: int) -> Self:
        """The same with ``num_classes``, where it had none."""

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, mixture: Mixture
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images ``(B, C, H, W)``, uint8 (rounded) or floats, and labels int64 ``(B,)``, mixed; on any device."""
        assert self.num_classes is not None
        boxes = mixture.boxes(images.shape[3], images.shape[2])
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1) / (images.shape[2] * images.shape[3])
        share = (mixture.ratio * (1 - area)).float()
        mixed = mixed_images(images, mixture.partner, mixture.ratio, boxes)
        return mixed, mixed_labels(labels, mixture.partner, share, self.num_classes)


@dataclass(frozen=True)
class _Drawn(Mixing):
    """A mixing whose share is drawn of Beta(alpha, alpha).

    ``num_classes``: None for those of the dataset. See `datahub.tensor.mixing` for ``mix_group``.
    """

    alpha: float = 1.0
    num_classes: int | None = None
    mix_group: int = GROUP

    def __post_init__(self) -> None:
        _check(self.alpha, self.num_classes, self.mix_group)

    def bound(self, classes: int) -> Self:
        return self if self.num_classes is not None else replace(self, num_classes=classes)


@dataclass(frozen=True)
class MixUp(_Drawn):
    """Every pixel and the label a weighted mean with the partner's; the own weight is drawn of Beta(alpha, alpha).

    ``num_classes``: None for those of the dataset. See `datahub.tensor.mixing` for ``mix_group``.
    """

    def plan(self, draws: Draws, partner: Ints) -> Mixture:
        own = np.where(_alone(partner), 1.0, beta(self.alpha, draws.uniform("MixUp")[:, 0]))
        return _mixture(partner, own, np.zeros(len(partner)), np.zeros((len(partner), 2)))


@dataclass(frozen=True)
class CutMix(_Drawn):
    """A box of the partner's pixels, its sides in the images' proportion, and as much of the partner's label.

    The box's area is 1 less a draw of Beta(alpha, alpha), less what of it falls outside the image. ``num_classes`` and
    ``mix_group`` as for `MixUp`.
    """

    def plan(self, draws: Draws, partner: Ints) -> Mixture:
        chance = draws.uniform("CutMix", 3)
        half = np.where(_alone(partner), 0.0, 0.5 * np.sqrt(1 - beta(self.alpha, chance[:, 0])))
        return _mixture(partner, np.ones(len(partner)), half, chance[:, 1:])


@dataclass(frozen=True, init=False)
class RandomMix(Mixing):
    """One of several mixings, drawn for each sample; ``p``: how often each, evenly by default."""

    mixings: tuple[Mixing, ...]
    p: tuple[float, ...]

    def __init__(self, mixings: Sequence[Mixing], p: Sequence[float] | None = None) -> None:
        if not isinstance(mixings, Sequence) or not mixings or not all(isinstance(m, Mixing) for m in mixings):
            raise BadArgument("mixings", mixings, "is not a list of mixings", "write [MixUp(), CutMix()]")
        weights = (1.0,) * len(mixings) if p is None else numbers("p", p)
        if len(weights) != len(mixings) or min(weights) < 0 or sum(weights) <= 0:
            raise BadArgument("p", p, "must be a weight for each mixing, none negative, not all 0")
        for name in ("mix_group", "num_classes"):
            if len({getattr(each, name) for each in mixings}) > 1:
                raise BadArgument(name, [getattr(each, name) for each in mixings], "must be the same for all mixings")
        object.__setattr__(self, "mixings", tuple(mixings))
        object.__setattr__(self, "p", tuple(each / sum(weights) for each in weights))

    @property
    def mix_group(self) -> int:  # type: ignore[override]
        return self.mixings[0].mix_group

    @property
    def num_classes(self) -> int | None:  # type: ignore[override]
        return self.mixings[0].num_classes

    def bound(self, classes: int) -> Self:
        return type(self)([each.bound(classes) for each in self.mixings], self.p)

    def plan(self, draws: Draws, partner: Ints) -> Mixture:
        made = [each.plan(draws.again(number), partner) for number, each in enumerate(self.mixings)]
        chosen = np.searchsorted(np.cumsum(self.p)[:-1], draws.uniform("RandomMix")[:, 0], side="right")
        rows = torch.arange(len(partner))
        pick = torch.from_numpy(chosen)
        return Mixture(*(torch.stack(each)[pick, rows] for each in zip(*made, strict=True)))


def partners(slots: Ints, valid: Bools, mix_group: int) -> Ints:
    """The row each row is mixed with: the valid one before it in its group, its last for the first.

    ``slots`` rise; a row that is not valid, or is alone in its group, is its own partner.
    """
    found = np.arange(len(slots))
    rows = np.flatnonzero(valid)
    if not len(rows):
        return found
    group = slots[rows] // mix_group
    first = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    last = np.concatenate([first[1:], [len(rows)]]) - 1
    before = np.concatenate([rows[:1], rows[:-1]])
    before[first] = rows[last]
    found[rows] = before
    return found


def mixed_images(images: torch.Tensor, partner: torch.Tensor, ratio: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Outside its box ``ratio`` of each image and the rest of its partner, inside it the partner alone."""
    if not on_cpu(images):
        return _mixed(images, images[partner], ratio, boxes)
    out = torch.empty_like(images)
    blended, boxed = ratio < 1, (boxes[:, 2:] > boxes[:, :2]).all(1)
    for part in parts(len(images), images_a_piece(images)):
        if bool(blended[part].any()):
            others = images.index_select(0, partner[part])
            if images.dtype == torch.float32:
                torch.lerp(others, images[part], ratio[part, None, None, None], out=out[part])
            else:
                out[part] = _blended(images[part], others, ratio[part])
        else:
            out[part] = images[part]
    # Through numpy, whose slices cost a fifth of torch's: there are as many as small images.
    bits = _BITS[images.dtype.itemsize]
    found, given = out.view(bits).numpy(), images.view(bits).numpy()
    rows = torch.nonzero(boxed)[:, 0]
    for row, other, (left, top, right, bottom) in zip(
        rows.tolist(), partner[rows].tolist(), boxes[rows].tolist(), strict=True
    ):
        found[row, :, top:bottom, left:right] = given[other, :, top:bottom, left:right]
    return out


def mixed_labels(labels: torch.Tensor, partner: torch.Tensor, share: torch.Tensor, classes: int) -> torch.Tensor:
    """float32 ``(B, classes)``: ``share`` of each sample's class and the rest of its partner's."""
    out = torch.zeros((len(labels), classes), device=labels.device)
    out.scatter_(1, labels[:, None], share[:, None])
    return out.scatter_add_(1, labels[partner][:, None], 1 - share[:, None])


def _mixed(images: torch.Tensor, others: torch.Tensor, ratio: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    left, top, right, bottom = boxes[:, :, None].unbind(1)
    row = torch.arange(images.shape[2], device=images.device)
    column = torch.arange(images.shape[3], device=images.device)
    down, across = (row >= top) & (row < bottom), (column >= left) & (column < right)
    return torch.where((down[:, :, None] & across[:, None, :])[:, None], others, _blended(images, others, ratio))


def _blended(images: torch.Tensor, others: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
    wide = torch.promote_types(images.dtype, torch.float32)
    blend = torch.lerp(others.to(wide), images.to(wide), ratio[:, None, None, None].to(wide))
    return (blend.round_() if images.dtype == torch.uint8 else blend).to(images.dtype)


def _alone(partner: Ints) -> Bools:
    return np.asarray(partner == np.arange(len(partner)))


def _mixture(partner: Ints, ratio: Floats, half: Floats, middle: Floats) -> Mixture:
    weights = torch.from_numpy(ratio.astype(np.float32))
    return Mixture(torch.from_numpy(partner), weights, torch.from_numpy(half), torch.from_numpy(np.array(middle)))


def beta(alpha: float, chance: Floats) -> Floats:
    """Draws of Beta(alpha, alpha) for uniform ones: the inverse of its distribution, by a table.

    Rounded to 1/65536, so that processors whose powers differ in the last bit mix alike.
    """
    places, levels = _distribution(alpha)
    low = np.interp(np.minimum(chance, 1 - chance), levels, places)
    found: Floats = np.rint(np.where(chance < 0.5, low, 1 - low) * 65536) / 65536
    return found


@lru_cache(maxsize=16)
def _distribution(alpha: float) -> tuple[Floats, Floats]:
    """Places from 0 to 1/2, and the distribution there.

    The density x ** (alpha - 1) (1 - x) ** (alpha - 1) is not finite at 0 for alpha below 1. With t = x ** alpha it
    becomes (1 - x) ** (alpha - 1) dt / alpha, which is. For alpha above 1 it is scaled to 1 in the middle, so that
    large ones do not vanish.
    """
    power = min(alpha, 1.0)
    t = np.linspace(0, 0.5**power, _STEPS)
    places = np.minimum(t ** (1 / power), 0.5)
    density = (1 - places) ** (alpha - 1) if alpha < 1 else (4 * places * (1 - places)) ** (alpha - 1)
    levels = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) * np.diff(t))])
    return places, 0.5 * levels / levels[-1]


def _check(alpha: Any, num_classes: Any, mix_group: Any) -> None:
    if number("alpha", alpha) <= 0:
        raise BadArgument("alpha", alpha, "must be positive")
    if num_classes is not None:
        whole("num_classes", num_classes, 1)
    whole("mix_group", mix_group, 1)
