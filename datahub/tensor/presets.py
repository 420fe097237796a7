"""Transforms by name: ``transform="mnist"``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from datahub.core.errors import BadArgument
from datahub.tensor.transforms import (
    BatchTransform,
    CenterCrop,
    Compose,
    Normalize,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    TrivialAugmentWide,
)

MNIST = ((0.1307,), (0.3081,))
"""Mean and standard deviation of MNIST's training images, as most published training scripts write them."""
CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
"""The same of CIFAR-10's, for ``cifar_train`` where the dataset's record has none of its own."""
CIFAR_SIZE = 32
PADDED = 8
"""A small image is padded by one of so many parts of its side, CIFAR's by 4."""
GRAY = ((0.449,), (0.226,))
"""ImageNet's, of one channel: the means over its three."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's training images, as torchvision's reference scripts write them."""
FIXED: Mapping[str, Callable[[], BatchTransform]] = {
    "mnist": lambda: Normalize(*MNIST),
    "imagenet_train": lambda: Compose([RandomResizedCrop(224), RandomHorizontalFlip(), Normalize(*IMAGENET)]),
    "imagenet_train_strong": lambda: Compose(
        [
            RandomResizedCrop(224),
            RandomHorizontalFlip(),
            TrivialAugmentWide(),
            Normalize(*IMAGENET),
            RandomErasing(0.1),
        ]
    ),
    "imagenet_eval": lambda: Compose([Resize(256), CenterCrop(224), Normalize(*IMAGENET)]),
}
"""Presets that need nothing of the dataset. Those of ImageNet are torchvision's classification references, the
strong one that of its newer weights."""

OWN = ("cifar_train", "cifar_train_strong", "normalize")
"""Presets that scale pixels by the dataset's own mean and deviation."""


class Moments(NamedTuple):
    """Per-channel mean and standard deviation of pixels scaled to [0, 1]."""

    mean: Sequence[float]
    std: Sequence[float]


def preset(name: str, moments: Callable[[], Moments | None]) -> BatchTransform:
    """The transform called ``name``; ``moments`` gives what the dataset's record says of its pixels.

    Raises `BadArgument` for a name that means nothing.
    """
    if name in FIXED:
        return FIXED[name]()
    if name not in OWN:
        raise BadArgument("transform", name, "is not a preset", f"known: {', '.join([*OWN, *FIXED])}")
    found = moments()
    if name != "normalize":
        return small_train((CIFAR_SIZE, CIFAR_SIZE), found or Moments(*CIFAR10), strong=name == "cifar_train_strong")
    if found is None:
        reason = "the dataset's record has no mean and standard deviation"
        raise BadArgument("transform", name, reason, "use datahub.transforms.Normalize(mean, std)")
    return normalized_by(found)


def normalized_by(moments: Moments) -> Normalize:
    """What the preset ``normalize`` does."""
    return Normalize(moments.mean, [value or 1.0 for value in moments.std])


def small_train(size: tuple[int, int], moments: Moments, *, strong: bool = False) -> BatchTransform:
    """Padded, cropped to ``size`` again, flipped, normalised: what nearly all published CIFAR recipes begin with."""
    moves = [RandomCrop(size, max(size) // PADDED), RandomHorizontalFlip()]
    return Compose([*moves, *([TrivialAugmentWide()] if strong else []), normalized_by(moments)])
