"""Batched transforms of decoded images: ``datahub.transforms``.

A `BatchTransform` takes a whole batch, uint8 ``(B, C, H, W)`` or a list of uint8 ``(C, H, W)`` where sizes differ, and
runs once a batch in a worker thread. Crops, flips, colours and warps take both and give uint8 in the form it came in:
a list's images keep their own sizes until `Resize` (two sides), `RandomResizedCrop` or `CenterCrop` makes one tensor
of them. `Normalize` and `Scale` make floats; of the others only `RandomErasing` takes those. Any other callable given
as ``transform=`` is called once a sample instead.
"""

from __future__ import annotations

from datahub.tensor.affine import RandomAffine, RandomRotation
from datahub.tensor.batched import DTYPES, BatchTransform, Images
from datahub.tensor.clips import Clip
from datahub.tensor.compose import Compose
from datahub.tensor.crops import CenterCrop, RandomResizedCrop, Resize
from datahub.tensor.decoding import Decode
from datahub.tensor.erasing import RandomErasing
from datahub.tensor.geometry import MaskFill, SanitizeBoundingBoxes
from datahub.tensor.jitter import ColorJitter, GaussianBlur, RandomGrayscale
from datahub.tensor.mixing import CutMix, Mixing, MixUp, RandomMix
from datahub.tensor.moves import RandomCrop, RandomHorizontalFlip, RandomVerticalFlip
from datahub.tensor.normalize import Normalize, Scale
from datahub.tensor.planned import Planned
from datahub.tensor.policies import RandAugment, TrivialAugmentWide

__all__ = [
    "DTYPES",
    "BatchTransform",
    "CenterCrop",
    "Clip",
    "ColorJitter",
    "Compose",
    "CutMix",
    "Decode",
    "GaussianBlur",
    "Images",
    "MaskFill",
    "MixUp",
    "Mixing",
    "Normalize",
    "Planned",
    "RandAugment",
    "RandomAffine",
    "RandomCrop",
    "RandomErasing",
    "RandomGrayscale",
    "RandomHorizontalFlip",
    "RandomMix",
    "RandomResizedCrop",
    "RandomRotation",
    "RandomVerticalFlip",
    "Resize",
    "SanitizeBoundingBoxes",
    "Scale",
    "TrivialAugmentWide",
]
