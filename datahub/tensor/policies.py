"""Automatic augmentation: `RandAugment` and `TrivialAugmentWide`, an operation and a strength drawn for each image.

The operations, their order and their strengths are torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import torch

from datahub.core.errors import BadArgument
from datahub.tensor import colour, tables
from datahub.tensor.affine import check_fill, interpolation_mode
from datahub.tensor.checks import fill_values, whole
from datahub.tensor.drawn import Plan
from datahub.tensor.draws import Draws
from datahub.tensor.stages import Operation, Staged
from datahub.tensor.warp import Fill, Floats, affine_maps, warp

Size = tuple[int, int]
NUMBERS = 6
"""Of an operation at most: those of an affine map."""


class Strength(NamedTuple):
    """Strengths ``(bins,)`` by their number and the images' height and width, and whether their sign is drawn."""

    of: Callable[[int, Size], Floats]
    signed: bool = True


def _up_to(most: float) -> Strength:
    return Strength(lambda bins, size: _line(0.0, most, bins))  # noqa: ARG005 - all but moves are the same for any size


def _bits(fewer: int) -> Strength:
    return Strength(lambda bins, size: np.rint(8 - np.arange(bins) / ((bins - 1) / fewer)), signed=False)  # noqa: ARG005


_FALLING = Strength(lambda bins, size: _line(1.0, 0.0, bins), signed=False)  # noqa: ARG005
_NONE = Strength(lambda bins, size: np.zeros(bins), signed=False)  # noqa: ARG005
NAMES = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
    "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip
_COLOURS = ("Brightness", "Color", "Contrast", "Sharpness")
_PLAIN = {"Identity": _NONE, "Solarize": _FALLING, "AutoContrast": _NONE, "Equalize": _NONE}
RANDAUGMENT: Mapping[str, Strength] = {
    **_PLAIN,
    **dict.fromkeys(_COLOURS, _up_to(0.9)),
    **dict.fromkeys(("ShearX", "ShearY"), _up_to(0.3)),
    "TranslateX": Strength(lambda bins, size: _line(0.0, 150.0 / 331.0 * size[1], bins)),
    "TranslateY": Strength(lambda bins, size: _line(0.0, 150.0 / 331.0 * size[0], bins)),
    "Rotate": _up_to(30.0),
    "Posterize": _bits(4),
}
TRIVIAL: Mapping[str, Strength] = {
    **_PLAIN,
    **dict.fromkeys(_COLOURS, _up_to(0.99)),
    **dict.fromkeys(("ShearX", "ShearY"), _up_to(0.99)),
    **dict.fromkeys(("TranslateX", "TranslateY"), _up_to(32.0)),
    "Rotate": _up_to(135.0),
    "Posterize": _bits(6),
}


class Policy(Staged):
    """Stages of operations; each has torchvision's numbers at the strength that is drawn or given for it."""

    interpolation: str
    fill: Fill

    @cached_property
    def operations(self) -> Sequence[Operation]:
        """One for each of `NAMES`."""
        move = Operation(partial(warp, bilinear=self.interpolation == "bilinear", fill=self.fill), NUMBERS)
        others = {
            "Identity": Operation(_same, 0, whole=True),
            "Brightness": Operation(tables.brightness, whole=True),
            "Color": Operation(colour.saturation),
            "Contrast": Operation(tables.contrast, whole=True),
            "Sharpness": Operation(colour.sharpness),
            "Posterize": Operation(tables.posterize, whole=True),
            "Solarize": Operation(tables.solarize, whole=True),
            "AutoContrast": Operation(tables.autocontrast, 0, whole=True),
            "Equalize": Operation(tables.equalize, 0, whole=True),
        }
        return [others.get(name, move) for name in NAMES]

    def planned(self, draws: Draws, image: tuple[int, int, int], chosen: list[tuple[np.ndarray, Floats]]) -> Plan:
        """The plan of stages of (operations' numbers ``(B,)``, their strengths ``(B,)``)."""
        check_fill(self.fill, image[0])
        found = np.zeros((len(draws), len(chosen), NUMBERS))
        for stage, (choice, strength) in enumerate(chosen):
            for number in np.unique(choice).tolist():
                rows = choice == number
                numbers = _numbers(NAMES[number], strength[rows], image[1:])
                found[rows, stage, : numbers.shape[1]] = numbers
        identity = NAMES.index("Identity")
        choices = [np.where(choice == identity, -1, choice) for choice, _ in chosen]
        choice = np.stack(choices, axis=1) if choices else np.zeros((len(draws), 0), np.int64)
        return torch.from_numpy(choice), torch.from_numpy(found)


@dataclass(frozen=True, init=False)
class RandAugment(Policy):
    """``num_ops`` operations after each other, each drawn of fourteen, at ``magnitude`` of ``num_magnitude_bins``."""

    num_ops: int
    magnitude: int
    num_magnitude_bins: int
    interpolation: str
    fill: Fill

    def __init__(
        self,
        num_ops: int = 2,
        magnitude: int = 9,
        num_magnitude_bins: int = 31,
        interpolation: str = "nearest",
        fill: float | Sequence[float] | None = None,
    ) -> None:
        held = {
            "num_ops": whole("num_ops", num_ops, 0),
            "magnitude": whole("magnitude", magnitude, 0),
            "num_magnitude_bins": whole("num_magnitude_bins", num_magnitude_bins, 2),
            "interpolation": interpolation_mode(interpolation),
            "fill": fill_values(fill),
        }
        if magnitude >= num_magnitude_bins:
            raise BadArgument("magnitude", magnitude, f"must be below num_magnitude_bins={num_magnitude_bins}")
        for name, value in held.items():
            object.__setattr__(self, name, value)

    def plan(self, draws: Draws, image: tuple[int, int, int]) -> Plan:
        choice = draws.integers("RandAugment", len(NAMES), self.num_ops)
        sign = draws.uniform("RandAugment sign", self.num_ops)
        scale = _scale(RANDAUGMENT, self.num_magnitude_bins, image[1:])[:, self.magnitude]
        stages = range(self.num_ops)
        strengths = [_signed(RANDAUGMENT, choice[:, at], scale[choice[:, at]], sign[:, at]) for at in stages]
        return self.planned(draws, image, [(choice[:, at], strengths[at]) for at in stages])


@dataclass(frozen=True, init=False)
class TrivialAugmentWide(Policy):
    """One operation, drawn of fourteen, at a strength drawn of ``num_magnitude_bins``."""

    num_magnitude_bins: int
    interpolation: str
    fill: Fill

    def __init__(
        self,
        num_magnitude_bins: int = 31,
        interpolation: str = "nearest",
        fill: float | Sequence[float] | None = None,
    ) -> None:
        object.__setattr__(self, "num_magnitude_bins", whole("num_magnitude_bins", num_magnitude_bins, 2))
        object.__setattr__(self, "interpolation", interpolation_mode(interpolation))
        object.__setattr__(self, "fill", fill_values(fill))

    def plan(self, draws: Draws, image: tuple[int, int, int]) -> Plan:
        choice = draws.integers("TrivialAugmentWide", len(NAMES))[:, 0]
        at = draws.integers("TrivialAugmentWide strength", self.num_magnitude_bins)[:, 0]
        scale = _scale(TRIVIAL, self.num_magnitude_bins, image[1:])
        strength = _signed(TRIVIAL, choice, scale[choice, at], draws.uniform("TrivialAugmentWide sign")[:, 0])
        return self.planned(draws, image, [(choice, strength)])


def _same(images: torch.Tensor) -> torch.Tensor:
    return images


def _scale(space: Mapping[str, Strength], bins: int, size: Size) -> Floats:
    """``(operations, bins)``."""
    return np.stack([space[name].of(bins, size) for name in NAMES])


def _signed(space: Mapping[str, Strength], choice: np.ndarray, strength: Floats, chance: Floats) -> Floats:
    signed = np.array([space[name].signed for name in NAMES])[choice]
    return np.where(signed & (chance < 0.5), -strength, strength)


def _line(first: float, last: float, bins: int) -> Floats:
    """torch's float32 line: a bin's strength is torchvision's to the last bit."""
    found: Floats = torch.linspace(first, last, bins).double().numpy()
    return found


def _numbers(name: str, strength: Floats, size: Size) -> Floats:
    """What the operation's kernel takes, ``(n, 1)`` or an affine map ``(n, 6)``."""
    if name in _COLOURS:
        return 1.0 + strength[:, None]
    if name == "Solarize":
        return 255.0 * strength[:, None]
    if name not in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"):
        return strength[:, None]
    none, one = np.zeros(len(strength)), np.ones(len(strength))
    flat = np.stack([none, none], axis=1)
    if name == "Rotate":
        return affine_maps(-strength, flat, one, flat)
    axis = 0 if name.endswith("X") else 1
    if name.startswith("Translate"):
        flat[:, axis] = np.trunc(strength)
        return affine_maps(none, flat, one, np.zeros_like(flat))
    shear = flat.copy()
    shear[:, axis] = np.degrees(np.arctan(strength))
    return affine_maps(none, flat, one, shear, (-size[1] * 0.5, -size[0] * 0.5))
