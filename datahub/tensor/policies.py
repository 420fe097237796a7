"""Automatic augmentation: `RandAugment` and `TrivialAugmentWide`, an operation and a strength drawn for each image.

The operations, their order and their strengths are torchvision's.
"""

from __future__ import annotations

from abc import abstractmethod
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
from datahub.tensor.warped import Warp

Size = tuple[int, int]
Chosen = list[tuple[np.ndarray, Floats]]
"""Of each stage, the operations' numbers ``(B,)`` and their strengths ``(B,)``."""
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
_WARPS = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
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

    @abstractmethod
    def chosen(self, draws: Draws, size: Size) -> Chosen:
        """What each sample draws, for images of that height and width."""

    def plan(self, draws: Draws, image: tuple[int, int, int]) -> Plan:
        return self.planned(draws, image, self.chosen(draws, image[1:]))

    def planned(self, draws: Draws, image: tuple[int, int, int], chosen: Chosen) -> Plan:
        """The plan of what was chosen."""
        check_fill(self.fill, image[0])
        found = np.zeros((len(draws), len(chosen), NUMBERS))
        for stage, each in enumerate(chosen):
            found[:, stage] = _of_each(*each, image[1:])
        identity = NAMES.index("Identity")
        choices = [np.where(choice == identity, -1, choice) for choice, _ in chosen]
        choice = np.stack(choices, axis=1) if choices else np.zeros((len(draws), 0), np.int64)
        return torch.from_numpy(choice), torch.from_numpy(found)

    def warps(self, draws: Draws, size: Size) -> list[Warp]:
        """What annotations of images of that height and width follow: colours leave them where they are."""
        sizes, warps = np.tile(np.array(size), (len(draws), 1)), [NAMES.index(name) for name in _WARPS]
        each = self.chosen(draws, size)
        return [Warp(_of_each(choice, strength, size), np.isin(choice, warps), sizes) for choice, strength in each]


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

    def chosen(self, draws: Draws, size: Size) -> Chosen:
        choice = draws.integers("RandAugment", len(NAMES), self.num_ops)
        sign = draws.uniform("RandAugment sign", self.num_ops)
        scale = _scale(RANDAUGMENT, self.num_magnitude_bins, size)[:, self.magnitude]
        stages = range(self.num_ops)
        strengths = [_signed(RANDAUGMENT, choice[:, at], scale[choice[:, at]], sign[:, at]) for at in stages]
        return [(choice[:, at], strengths[at]) for at in stages]


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

    def chosen(self, draws: Draws, size: Size) -> Chosen:
        choice = draws.integers("TrivialAugmentWide", len(NAMES))[:, 0]
        at = draws.integers("TrivialAugmentWide strength", self.num_magnitude_bins)[:, 0]
        scale = _scale(TRIVIAL, self.num_magnitude_bins, size)
        strength = _signed(TRIVIAL, choice, scale[choice, at], draws.uniform("TrivialAugmentWide sign")[:, 0])
        return [(choice, strength)]


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


def _of_each(choice: np.ndarray, strength: Floats, size: Size) -> Floats:
    """What each row's operation takes, ``(B, NUMBERS)``."""
    found = np.zeros((len(choice), NUMBERS))
    for number in np.unique(choice).tolist():
        rows = choice == number
        numbers = _numbers(NAMES[number], strength[rows], size)
        found[rows, : numbers.shape[1]] = numbers
    return found


def _numbers(name: str, strength: Floats, size: Size) -> Floats:
    """What the operation's kernel takes, ``(n, 1)`` or an affine map ``(n, 6)``."""
    if name in _COLOURS:
        return 1.0 + strength[:, None]
    if name == "Solarize":
        return 255.0 * strength[:, None]
    if name not in _WARPS:
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
