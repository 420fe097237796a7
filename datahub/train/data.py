"""The loaders of the reference job: what images become for training, and for evaluating."""

from __future__ import annotations

from typing import Any

from datahub.core.errors import BadArgument
from datahub.core.refs import Ref, is_shards
from datahub.core.settings import Settings
from datahub.loader.streaming import StreamingLoader
from datahub.store.dataset import Dataset
from datahub.tensor.transforms import CutMix, Mixing, MixUp, RandomMix
from datahub.train.config import Job
from datahub.train.networks import Network

HELD_OUT = ("val", "validation", "test")
SMALL = 64
"""Pixels a side up to which images of one shape are trained on as they are."""


def training(job: Job, dataset: Dataset, settings: Settings) -> StreamingLoader:
    """Shuffled and augmented; the tail is dropped where there is a whole batch."""
    shape = dataset.record.fields["image"].shape
    usual = "imagenet_train" if not _small(dataset) else "cifar_train" if shape and shape[2] == 3 else "normalize"
    return StreamingLoader(
        _ref(job, dataset), job.split, global_batch_size=job.batch, shuffle=True, seed=job.seed,
        num_workers=job.workers, drop_last=len(dataset[job.split]) >= job.batch, transform=job.augment or usual,
        batch_transform=_mixing(job),
        settings=settings,
    )  # fmt: skip


def held_out(job: Job, dataset: Dataset, settings: Settings, network: Network) -> StreamingLoader:
    """Every sample once, in order. Published weights see what their publisher makes of an image."""
    split = job.held_out or next((name for name in HELD_OUT if name in dataset.splits), None)
    if split is None:
        known = ", ".join(dataset.splits)
        raise BadArgument("held_out", None, f"{dataset.ref} has no split to evaluate on", f"name one of {known}")
    transform: Any = "normalize" if _small(dataset) else network.evaluating or "imagenet_eval"
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


def _small(dataset: Dataset) -> bool:
    shape = dataset.record.fields["image"].shape
    return shape is not None and max(shape[:2]) <= SMALL
