"""A split as a map-style dataset in torch's DataLoader: a batch is read together, and each image decoded once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from datahub.core.errors import BadArgument, DatahubError
from datahub.loader import arguments
from datahub.loader.assemble import Assembler
from datahub.loader.counters import Counters
from datahub.loader.recipe import Recipe, Supplies, Transform, recipe_of
from datahub.loader.schedule import Step
from datahub.loader.sources import shard_source
from datahub.loader.torch_dataset import Seat
from datahub.order.formula import OrderOptions
from datahub.store.dataset import Split
from datahub.tensor.mixing import Mixing


class ByIndex:
    """Makes samples of a split as dicts, with draws keyed (seed, epoch, index). Every process opens its own shards."""

    def __init__(self, split: Split, recipe: Recipe, seed: int = 0) -> None:
        """``recipe``: its ``fields`` are named, and its ``collate`` is ``list``."""
        self._split, self._recipe, self._seed = split, recipe, seed
        self._made: Assembler | None = None
        self._process = 0

    def __call__(self, indices: Sequence[int], epoch: int = 0) -> list[dict[str, Any]]:
        """Raises `DamagedSample`, in a DataLoader's worker its family."""
        index = np.asarray(indices, np.int64)
        count = len(index)
        step = Step(epoch, 0, count, index, np.ones(count, np.bool_), index, count)
        try:
            found: list[dict[str, Any]] = self.assembler().make(step)
        except DatahubError as error:
            raise Seat.here().told(error) from error
        return found

    def assembler(self) -> Assembler:
        """This process's own. Raises `BadArgument` where the recipe cannot be one of the split."""
        if self._made is None or self._process != os.getpid():
            source = shard_source(self._split, os.environ, OrderOptions(), shuffle=True)
            self._made = Assembler(Supplies(self._split, source, self._recipe, Counters(), self._seed))
            self._process = os.getpid()
        return self._made

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None}


class Gather:
    """What `Split.__getitems__` calls: samples as dicts of all their fields. Pickles as nothing."""

    def __init__(self) -> None:
        self._made: dict[str, ByIndex] = {}

    def __call__(self, split: Split, indices: Sequence[int]) -> list[dict[str, Any]]:
        found = self._made.get(split.name)
        if found is None:
            found = self._made[split.name] = ByIndex(split, Recipe(fields=every_field(split), collate=list))
        return found(indices)

    def __reduce__(self) -> tuple[type[Gather], tuple[()]]:
        return Gather, ()


class Transformed(Dataset[Any]):
    """A split by index with a transform: what `Split.with_transform` makes.

    What is random is drawn by (seed, epoch, index): a sample looks the same whichever sampler, batch or worker asks for
    it, twice in one epoch too, and differs from epoch to epoch as `set_epoch` says. Samples are dicts of all fields, or
    the tuples that ``fields`` asks for.
    """

    def __init__(
        self,
        split: Split,
        transform: Transform | Mixing | None = None,
        *,
        seed: int = 0,
        fields: Sequence[str] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Raises `BadArgument`."""
        if isinstance(transform, Mixing):
            hint = "use StreamingLoader(batch_transform=...), or mix in collate_fn"
            raise BadArgument("transform", type(transform).__name__, "mixes the samples of a batch", hint)
        self.split, self._tuples = split, fields is not None
        shown = _of_samples(arguments.field_names(fields) or every_field(split))
        recipe = recipe_of(
            split,
            fields=shown,
            transform=transform,
            batch_transform=None,
            collate=list,
            map=None,
            clip=None,
            dtype=dtype,
            channels_last=False,
        )
        self._make = ByIndex(split, recipe, arguments.integer("seed", seed))
        self._make.assembler()  # says what is wrong with the recipe here, not in a worker
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """The samples of a batch, which torch's DataLoader asks for at once. Raises ``IndexError``, `DamagedSample`."""
        found = [self.split.position(index) for index in indices]
        samples = self._make(found, self.epoch) if found else []
        return [tuple(sample.values()) for sample in samples] if self._tuples else samples

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """What is drawn from now on; call it between loops. Workers of a DataLoader see it, persistent ones too."""
        self._epoch.fill_(arguments.whole("epoch", epoch, least=0))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._epoch.share_memory_()

    def __repr__(self) -> str:
        return f"Transformed({self.split!r})"


def every_field(split: Split) -> tuple[str, ...]:
    return (*split.dataset.fields, "index", "key", "source")


def _of_samples(fields: tuple[str, ...]) -> tuple[str, ...]:
    wrong = next((name for name in fields if name in ("valid", "n_global")), None)
    if wrong is not None:
        raise BadArgument("fields", wrong, "says something of a batch's rows, not of a sample", "leave it out")
    return fields
