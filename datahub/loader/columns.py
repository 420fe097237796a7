"""The fields of a batch beside its image: label, index, valid, n_global; on request encoded, key, source, others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datahub.core.errors import BadArgument, NotYetSupported
from datahub.loader.schedule import Step
from datahub.store import typed
from datahub.store.dataset import Split
from datahub.store.joined import JoinedSplit

MADE = ("encoded", "index", "valid", "n_global", "key", "source")
"""Fields that every dataset has, beside its own."""
MEMBER = "dataset"
"""In a mixture: the number of the member that ``index`` is a row of."""


class Columns:
    """The fields of a split that a batch shows. ``wanted``: None for the usual ones. ``clip``: the video shown."""

    def __init__(self, split: Split, wanted: tuple[str, ...] | None, clip: str | None = None) -> None:
        self._split = split
        self._joined = split if isinstance(split, JoinedSplit) else None
        own = split.dataset.record.fields
        made = [*MADE, MEMBER] if self._joined else [*MADE]
        if wanted is not None:
            _check(wanted, own, made)
        member = [MEMBER] if self._joined else []
        label = ["label"] if "label" in own else []
        objects = [
            name
            for name, spec in own.items()
            if name == clip or (spec.type in typed.TYPES and spec.type not in ("bytes", "video"))
        ]
        usual = ("image", *label, *objects, *member, "index", "valid", "n_global")
        self.names = usual if wanted is None else wanted
        self._kinds = {name: own[name].type for name in self.names if name in own and own[name].type in READ}
        self._from_index = [*self._kinds, *(["source"] if "source" in self.names else [])]
        self._table: Any = None

    def of(
        self, step: Step, rows: NDArray[Any], images: Any, encoded: list[bytes], beside: dict[str, Any]
    ) -> dict[str, Any]:
        """The batch: int64 and bool tensors, lists of bytes and strings, and ``n_global``, an int.

        ``beside``: boxes, masks and the like, as lists.
        """
        values: dict[str, Any] = {
            **beside,
            "image": images,
            "encoded": encoded,
            "index": torch.from_numpy(step.index),
            "valid": torch.from_numpy(step.valid),
            "n_global": step.n_global,
        }
        if self._joined is not None:
            member, row = self._joined.places(step.index)
            values |= {MEMBER: torch.from_numpy(member), "index": torch.from_numpy(row)}
        if "label" in self.names:
            values["label"] = torch.from_numpy(rows["label"].astype(np.int64))
        if "key" in self.names:
            values["key"] = [self._split.key(index) for index in step.index.tolist()]
        if self._from_index:
            found = self._index().take(step.index)
            values |= {name: READ[kind](found[name]) for name, kind in self._kinds.items()}
            if "source" in self.names:
                values["source"] = found["source"].to_pylist()
        return {name: values[name] for name in self.names}

    def samples(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """The batch as one dict a sample, labels and other numbers as ints, without ``n_global``."""
        count = next(len(value) for name, value in batch.items() if name != "n_global")
        columns = {
            name: value.tolist() if isinstance(value, torch.Tensor) and value.dim() == 1 else value
            for name, value in batch.items()
            if name != "n_global"
        }
        return [{name: value[row] for name, value in columns.items()} for row in range(count)]

    def _index(self) -> Any:
        """The columns that only the index has, read when a batch first asks for one (threads may both read it)."""
        if self._table is None:
            self._table = self._split.table(columns=self._from_index)
        return self._table


def _json(column: Any) -> list[Any]:
    return [None if each is None else json.loads(each) for each in column.to_pylist()]


READ: dict[str, Callable[[Any], Any]] = {
    "int": lambda column: torch.from_numpy(column.to_numpy().astype(np.int64)),
    "float": lambda column: torch.from_numpy(column.to_numpy().astype(np.float64)),
    "text": lambda column: column.to_pylist(),
    "json": _json,
}
"""What a batch shows of a field, by its type: an int64 or float64 tensor, a list of strings, a list of values."""


def _check(wanted: tuple[str, ...], own: dict[str, Any], made: list[str]) -> None:
    for name in wanted:
        if name not in own and name not in made:
            known = ", ".join([*own, *made])
            raise BadArgument("fields", name, "is not a field of this dataset", f"it has {known}")
        if name in own and own[name].type not in ("image", "label", *READ, *typed.TYPES):
            raise NotYetSupported("fields", name, f"fields of type {own[name].type} are not streamed yet")
    if not wanted or set(wanted) == {"n_global"}:
        raise BadArgument("fields", wanted, "names no field of a sample", 'give for example ("image", "label")')
