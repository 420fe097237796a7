"""Transforms by name: ``transform="mnist"``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from datahub.core.errors import BadArgument, NotYetSupported
from datahub.tensor.transforms import BatchTransform, Normalize

MNIST = ((0.1307,), (0.3081,))
"""Mean and standard deviation of MNIST's training images, as most published training scripts write them."""
LATER = ("imagenet_train", "imagenet_eval", "cifar_train")
"""Presets of the plan that crop or flip: they need the batched augmentations."""


class Moments(NamedTuple):
    """Per-channel mean and standard deviation of pixels scaled to [0, 1]."""

    mean: Sequence[float]
    std: Sequence[float]


def preset(name: str, moments: Callable[[], Moments | None]) -> BatchTransform:
    """The transform called ``name``; ``moments`` gives what the dataset's record says of its pixels.

    Raises `BadArgument` for a name that means nothing, `NotYetSupported` for one that will.
    """
    if name in LATER:
        instead = 'give a per-sample callable, such as a torchvision.transforms.v2 pipeline, or "normalize"'
        raise NotYetSupported("transform", name, instead)
    if name == "mnist":
        return Normalize(*MNIST)
    if name != "normalize":
        raise BadArgument("transform", name, "is not a preset", f"known: mnist, normalize, {', '.join(LATER)}")
    found = moments()
    if found is None:
        reason = "the dataset's record has no mean and standard deviation"
        raise BadArgument("transform", name, reason, "use datahub.transforms.Normalize(mean, std)")
    return Normalize(found.mean, [value or 1.0 for value in found.std])
