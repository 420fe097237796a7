"""`Stored`: a packed variant as a source, for making another variant of it. Its order is kept as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datahub.core.refs import Ref
from datahub.pack.source import Chunk
from datahub.store import record as records
from datahub.store import typed
from datahub.store.dataset import Dataset
from datahub.store.record import FieldSpec, Record


class Stored:
    """Samples of a variant folder, in its own order. Pickles as the folder's name."""

    random_access = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._record: Record = records.read(folder)
        self._dataset = Dataset(Ref.parse(self._record.ref), folder, self._record)

    def __reduce__(self) -> tuple[Any, ...]:
        return Stored, (self._folder,)

    @property
    def permuted(self) -> bool:
        return all(split.permuted for split in self._record.splits.values())

    @property
    def inputs(self) -> list[str]:
        found: list[str] = self._record.packer.options.get("inputs", [])
        return found

    def splits(self) -> Mapping[str, int]:
        return {name: split.samples for name, split in self._record.splits.items()}

    def classes(self) -> list[str] | None:
        return self._record.classes

    def words(self) -> list[str]:
        return self._record.words

    def fields(self) -> Mapping[str, FieldSpec]:
        return self._record.fields

    def estimate(self, split: str) -> NDArray[np.int64]:
        return self._dataset[split].locate["size"].astype(np.int64)

    def read(self, split: str, indices: NDArray[np.int64]) -> Chunk:
        found = self._dataset[split]
        rows = found.locate[indices]
        kinds = typed.kinds(self._record.fields)
        further = [name for name, kind in kinds.items() if kind not in typed.MEMBERS]
        table = found.rows(indices, ["source", *further])
        return Chunk(
            images=[found.read(int(i)) for i in indices],
            labels=rows["label"].astype(np.int64) if "label" in self._record.fields else None,
            sources=table["source"].to_pylist(),
            scalars={name: table[name].to_pylist() for name in further},
            members={
                name: [found.member(int(i), name) for i in indices]
                for name, kind in kinds.items()
                if kind in typed.MEMBERS
            },
        )

    def facts(self) -> dict[str, Any]:
        """Those of the source the variant was packed from: by either way the same variant comes out."""
        options = self._record.packer.options
        facts: dict[str, Any] = dict(options.get("source", {"plan": self._record.plan}))
        if (recipe := options.get("recipe", {}).get("name", "published")) != "published":
            facts["via"] = recipe
        if left_out := {name: split.gaps for name, split in self._record.splits.items() if split.gaps}:
            facts["gaps"] = left_out
        return facts
