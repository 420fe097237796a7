"""`StreamingLoader`: batches of a packed split, in an order that is a formula, resumable at any batch."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from types import TracebackType
from typing import Any, Literal, Self

import torch

from datahub.core.errors import BadArgument, NotInStore, NotYetSupported
from datahub.core.refs import Ref
from datahub.core.settings import Settings, resolve
from datahub.loader import arguments
from datahub.loader.assemble import Assembler, Recipe
from datahub.loader.batch import state_of, with_state
from datahub.loader.counters import Counters
from datahub.loader.explain import explanation
from datahub.loader.iteration import Iteration
from datahub.loader.opening import open_dataset
from datahub.loader.schedule import Plan, Schedule
from datahub.loader.topology import Topology, resolve_topology
from datahub.loader.workers import default_workers
from datahub.order.formula import OrderOptions
from datahub.store.dataset import Dataset
from datahub.stream.source import LocalShards
from datahub.stream.state import OrderParameters, State, restore
from datahub.tensor.presets import Moments
from datahub.tensor.transforms import BatchTransform

Transform = str | BatchTransform | Callable[[torch.Tensor], Any]


class StreamingLoader:
    """Iterate over batches of ``split`` of ``ref``. Every sample comes exactly once an epoch, on any world size.

    A batch is a dict: ``image`` uint8 (B, C, H, W) where the dataset's images have one shape, else a list of B tensors
    (C, H, W); ``label`` and ``index`` int64 (B,); ``valid`` bool (B,); ``n_global``, an int. ``fields`` gives tuples of
    the named fields instead, among them ``key``, ``source`` and the dataset's int scalars (int64).

    ``transform`` is a preset's name, a transform of `datahub.transforms` (once a batch), or a callable that takes one
    uint8 (C, H, W) tensor; ``collate`` takes the list of sample dicts in place of what stacks them; ``batch_transform``
    takes the batch. All three run in worker threads.

    Each ``for`` runs the current epoch from the current position and leaves the loader at the next epoch; a loop that
    was left early is over, and the next ``for`` begins the epoch after it. Only one loop runs at a time: a newer one
    ends the older. The topology is resolved when it is first needed (the first loop, ``len`` or state).

    Raises `NotInStore`, `UnknownSplit`, `BadArgument`, `NotYetSupported`; loops raise `DamagedSample`, `StoreDamaged`,
    `WorkerDied`, and what the callables raise.
    """

    def __init__(
        self,
        ref: str | Ref,
        split: str = "train",
        *,
        batch_size: int | None = None,
        global_batch_size: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        static_shapes: bool = False,
        transform: Transform | None = None,
        batch_transform: Callable[[Any], Any] | None = None,
        collate: Callable[[list[dict[str, Any]]], Any] | None = None,
        fields: Sequence[str] | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        channels_last: bool = False,
        num_workers: int | None = None,
        workers: Literal["thread"] = "thread",
        prefetch: int = 2,
        where: None = None,
        part: tuple[float, float] = (0.0, 1.0),
        max_samples: None = None,
        source: None = None,
        cache_dir: None = None,
        cache_limit: None = None,
        download: bool = False,
        residency: Literal["auto", "stream"] = "auto",
        order: OrderOptions | None = None,
        on_error: Literal["raise"] = "raise",
        topology: Topology | None = None,
        timeout: float = 600,
        settings: Settings | None = None,
    ) -> None:
        arguments.refuse_later(device=str(device), workers=workers, where=where, part=tuple(part))
        arguments.refuse_later(max_samples=max_samples, source=source, cache_dir=cache_dir, cache_limit=cache_limit)
        arguments.refuse_later(residency=residency, on_error=on_error)
        arguments.batch_sizes(batch_size, global_batch_size)
        arguments.callables(batch_transform=batch_transform, collate=collate)
        self._batch_size, self._global_batch_size = batch_size, global_batch_size
        self._shuffle, self._seed = bool(shuffle), arguments.integer("seed", seed)
        self._drop_last, self._static_shapes = bool(drop_last), bool(static_shapes)
        self._options = arguments.order_options(order)
        self._given_topology = topology
        self._timeout = arguments.seconds("timeout", timeout)
        self._prefetch = arguments.whole("prefetch", prefetch, least=1)
        workers_here = default_workers(os.environ) if num_workers is None else num_workers
        self._workers = arguments.whole("num_workers", workers_here, least=0)
        self.dataset = _open(ref, resolve() if settings is None else settings, download)
        self.split = self.dataset[split]
        recipe = Recipe(
            fields=arguments.field_names(fields),
            transform=arguments.image_transform(transform, dtype, self._moments),
            batch_transform=batch_transform,
            collate=collate,
            dtype=dtype,
            channels_last=bool(channels_last),
        )
        self._counters = Counters()
        self._source = LocalShards(str(self.dataset.ref), self.split.shards)
        self._assembler = Assembler(self.split, self._source, recipe, self._counters)
        self._epoch, self._position, self._begun = 0, 0, False
        self._loop: weakref.ref[Iteration] | None = None

    # -- iterating ------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Batches of a whole epoch, the same on every rank."""
        return len(self._schedule)

    def __iter__(self) -> Iterator[Any]:
        self._retire("this loop was ended by a newer one over the same loader")
        if self._begun:
            self._epoch, self._position = self._epoch + 1, 0
        self._begun = True
        loop = Iteration(
            self._schedule,
            self._assembler,
            self._epoch,
            self._position,
            workers=self._workers,
            prefetch=self._prefetch,
            timeout=self._timeout,
        )
        self._loop = weakref.ref(loop)
        return self._batches(loop)

    def _batches(self, loop: Iteration) -> Iterator[Any]:
        try:
            while True:
                with self._counters.timing("wait"):
                    found = next(loop, None)
                if found is None:
                    break
                batch, self._position = found
                yield with_state(batch, self._state())
        finally:
            loop.close()
        if self._loop is not None and self._loop() is loop:
            self._epoch, self._position, self._begun = self._epoch + 1, 0, False
