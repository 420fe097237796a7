"""The loaders of the reference job: what images become for training, and for evaluating."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from datahub.core.errors import BadArgument
from datahub.core.refs import Ref, is_shards
from datahub.core.settings import Settings
from datahub.loader.recipe import moments
from datahub.loader.streaming import StreamingLoader
from datahub.store.dataset import Dataset, Split
from datahub.tensor.presets import CIFAR10, GRAY, Moments, normalized_by, small_train
from datahub.tensor.transforms import (
    BatchTransform,
    CenterCrop,
    Compose,
    CutMix,
    Mixing,
    MixUp,
    Normalize,
    RandomHorizontalFlip,
    RandomMix,
    RandomResizedCrop,
    Resize,
)
from datahub.train.config import Job
from datahub.train.networks import Network

HELD_OUT = ("val", "validation", "test")
SMALL = 64
"""Pixels a side up to which images of one shape are trained on as they are."""


def training(job: Job, dataset: Dataset, settings: Settings) -> StreamingLoader:
    """Shuffled and augmented; the tail is dropped where there is a whole batch."""
    return StreamingLoader(
        _ref(job, dataset), job.split, global_batch_size=job.batch, shuffle=True, seed=job.seed,
        num_workers=job.workers, drop_last=len(dataset[job.split]) >= job.batch,
        transform=job.augment or _usual(dataset[job.split], learning=True),
        batch_transform=_mixing(job),
        settings=settings,
    )  # fmt: skip


def held_out(job: Job, dataset: Dataset, settings: Settings, network: Network) -> StreamingLoader:
    """Every sample once, in order. Published weights see what their publisher makes of an image."""
    split = job.held_out or next((name for name in HELD_OUT if name in dataset.splits), None)
    if split is None:
        known = ", ".join(dataset.splits)
        raise BadArgument("held_out", None, f"{dataset.ref} has no split to evaluate on", f"name one of {known}")
    transform: Any = _usual(dataset[split], learning=False)
    if network.evaluating is not None and not _small(dataset):
        transform = partial(_coloured, network.evaluating)
    return StreamingLoader(
        _ref(job, dataset), split, global_batch_size=job.batch, num_workers=job.workers, transform=transform,
        settings=settings,
    )  # fmt: skip


def _ref(job: Job, dataset: Dataset) -> Ref | str:
    """What was opened, exactly; shards are opened as they were asked for."""
    return job.ref if is_shards(job.ref) else dataset.ref


def _mixing(job: Job) -> Mixing | None:
    found: list[Mixing] = []
    if job.mixup is not None:
        found.append(MixUp(job.mixup))
    if job.cutmix is not None:
        found.append(CutMix(job.cutmix))
    return RandomMix(found) if len(found) > 1 else found[0] if found else None


def _usual(split: Split, *, learning: bool) -> str | BatchTransform:
    """What images become where nobody says it: by their size and channels."""
    shape = split.dataset.record.fields["image"].shape
    gray = shape is not None and shape[2] == 1
    if shape is None or not _small(split.dataset):
        if not gray:
            return "imagenet_train" if learning else "imagenet_eval"
        frame = [RandomResizedCrop(224), RandomHorizontalFlip()] if learning else [Resize(256), CenterCrop(224)]
        return Compose([*frame, Normalize(*GRAY)])
    found = moments(split) or Moments(*(GRAY if gray else CIFAR10))
    return normalized_by(found) if gray or not learning else small_train((shape[0], shape[1]), found)


def _coloured(evaluating: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """Publishers scale three channels."""
    return evaluating(image.expand(3, -1, -1) if image.shape[0] == 1 else image)


def _small(dataset: Dataset) -> bool:
    shape = dataset.record.fields["image"].shape
    return shape is not None and max(shape[:2]) <= SMALL
