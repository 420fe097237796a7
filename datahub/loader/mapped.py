"""A split as a map-style dataset in torch's DataLoader: a batch is read together, and each image decoded once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from datahub.core.errors import DatahubError
from datahub.loader.assemble import Assembler
from datahub.loader.counters import Counters
from datahub.loader.recipe import Recipe, Supplies
from datahub.loader.schedule import Step
from datahub.loader.sources import shard_source
from datahub.loader.torch_dataset import Seat
from datahub.order.formula import OrderOptions
from datahub.store.dataset import Split


class Gather:
    """What `Split.__getitems__` calls. Safe after fork; pickles as nothing, for every process opens its own."""

    def __init__(self) -> None:
        self._made: dict[str, Assembler] = {}
        self._process = os.getpid()

    def __call__(self, split: Split, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The samples as dicts of all their fields. Raises `DamagedSample`, in a worker its family."""
        index = np.asarray(indices, np.int64)
        count = len(index)
        step = Step(0, 0, count, index, np.ones(count, np.bool_), np.arange(count), count)
        try:
            found: list[dict[str, Any]] = self._assembler(split).make(step)
        except DatahubError as error:
            raise Seat.here().told(error) from error
        return found

    def _assembler(self, split: Split) -> Assembler:
        if self._process != os.getpid():
            self.__init__()  # type: ignore[misc]
        found = self._made.get(split.name)
        if found is None:
            fields = (*split.dataset.fields, "index", "key", "source")
            source = shard_source(split, os.environ, OrderOptions(), shuffle=True)
            found = Assembler(Supplies(split, source, Recipe(fields=fields, collate=list), Counters()))
            self._made[split.name] = found
        return found

    def __reduce__(self) -> tuple[type[Gather], tuple[()]]:
        return Gather, ()
