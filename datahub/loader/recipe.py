"""What is done to samples, and what batches are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from datahub.loader import arguments, clips
from datahub.loader.counters import Counters
from datahub.loader.mixing import mixing_of
from datahub.loader.quarantine import SetsAside
from datahub.store.dataset import Split
from datahub.stream.source import ShardSource
from datahub.tensor.clips import Clip
from datahub.tensor.decoding import Decode
from datahub.tensor.mixing import Mixing
from datahub.tensor.presets import Moments
from datahub.tensor.transforms import BatchTransform

Transform = str | BatchTransform | Decode | Callable[[torch.Tensor], Any]


@dataclass(frozen=True)
class Recipe:
    """What is done to the samples. ``fields``: names for tuples, None for dicts."""

    fields: tuple[str, ...] | None = None
    transform: BatchTransform | Callable[[torch.Tensor], Any] | None = None
    batch_transform: Callable[[Any], Any] | None = None
    collate: Callable[[list[dict[str, Any]]], Any] | None = None
    map: Callable[[dict[str, Any]], Any] | None = None
    clip: Clip | None = None
    """What is shown of its ``field``, a video; see `clips.bound`."""
    dtype: torch.dtype | None = None
    channels_last: bool = False
    mixing: Mixing | None = None
    """Mixes the batch before ``batch_transform`` sees it."""
    orient: bool = False
    """Images are turned upright by their EXIF orientation."""


@dataclass(frozen=True)
class Supplies:
    """What batches are made of; without a ``quarantine`` a damaged sample is an error."""

    split: Split
    source: ShardSource
    recipe: Recipe
    counters: Counters
    seed: int = 0
    quarantine: SetsAside | None = None


def recipe_of(
    split: Split,
    *,
    fields: Sequence[str] | None,
    transform: Transform | None,
    batch_transform: Callable[[Any], Any] | Mixing | None,
    collate: Callable[[list[dict[str, Any]]], Any] | None,
    map: Callable[[dict[str, Any]], Any] | None,
    clip: Clip | None,
    dtype: torch.dtype | None,
    channels_last: bool,
) -> Recipe:
    """What a loader's arguments mean for ``split``. Raises `BadArgument`."""
    own, shown, decoding = split.dataset.record.fields, arguments.field_names(fields), Decode.of(transform)
    return Recipe(
        fields=shown,
        transform=arguments.image_transform(decoding.then, dtype, lambda: moments(split)),
        orient=decoding.orient,
        batch_transform=None if isinstance(batch_transform, Mixing) else batch_transform,
        mixing=mixing_of(batch_transform, shown, own, collate),
        collate=collate,
        map=map,
        clip=clips.bound(clip, own, shown),
        dtype=dtype,
        channels_last=bool(channels_last),
    )


def moments(split: Split) -> Moments | None:
    """The pixels' mean and deviation: those of ``train`` where there is one, so that splits are scaled alike."""
    splits = split.dataset.record.splits
    stats = splits["train" if "train" in splits else split.name].stats
    return Moments(stats.mean, stats.std) if stats is not None else None
