"""Batched transforms of decoded images: ``datahub.transforms``.

A `BatchTransform` takes a whole batch, uint8 ``(B, C, H, W)`` or a list of uint8 ``(C, H, W)`` where sizes differ, and
runs once a batch in a worker thread. Any other callable given as ``transform=`` is called once a sample instead.
"""

from __future__ import annotations

from datahub.tensor.batched import DTYPES, BatchTransform, Images
from datahub.tensor.compose import Compose
from datahub.tensor.crops import CenterCrop, RandomResizedCrop, Resize
from datahub.tensor.decoding import Decode
from datahub.tensor.moves import RandomCrop, RandomHorizontalFlip, RandomVerticalFlip
from datahub.tensor.normalize import Normalize, Scale

__all__ = [
    "DTYPES",
    "BatchTransform",
    "CenterCrop",
    "Compose",
    "Decode",
    "Images",
    "Normalize",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomVerticalFlip",
    "Resize",
    "Scale",
]
