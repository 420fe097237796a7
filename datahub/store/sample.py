"""One sample of a packed split, read when it is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from datahub.core.errors import DamagedImage, DamagedSample
from datahub.store import members

if TYPE_CHECKING:
    from datahub.store.dataset import Split

SCALARS = ("int", "float", "text", "json")
"""Types of fields whose values the index has."""


class Sample(Mapping[str, Any]):
    """One sample: ``image`` (decoded if the dataset has a decoder, else bytes), ``label``, other fields, its origin.

    Keys: the dataset's fields, then ``index`` (the row in the split), ``key``, ``source`` (the original name).
    """

    def __init__(self, split: Split, index: int) -> None:
        self._split, self.index = split, index

    @property
    def key(self) -> str:
        return self._split.key(self.index)

    @cached_property
    def encoded(self) -> bytes:
        """The image's bytes as they stand in the shard."""
        return self._split.read(self.index)

    @cached_property
    def _row(self) -> dict[str, Any]:
        return self._split.row(self.index)

    def __getitem__(self, name: str) -> Any:
        if name == "image":
            return self._image
        if name in ("index", "key"):
            return getattr(self, name)
        if name not in self._names():
            raise KeyError(name)
        return int(self._split.locate[self.index]["label"]) if name == "label" else self._further(name)

    def _further(self, name: str) -> Any:
        spec = self._split.dataset.record.fields.get(name)
        if spec is not None and spec.type not in SCALARS:
            return self._typed(name)
        return self._row[name] if spec is None else members.plain(spec, self._row[name])

    def _typed(self, name: str) -> Any:
        """Read once: an annotation is looked at as often as one likes."""
        if name not in self._values:
            self._values[name] = members.value(self._split, self.index, name)
        return self._values[name]

    @cached_property
    def _values(self) -> dict[str, Any]:
        return {}

    @cached_property
    def _image(self) -> Any:
        decode = self._split.dataset.decode
        if decode is None:
            return self.encoded
        try:
            return decode(self.encoded)
        except DamagedImage as damage:
            row = self._split.locate[self.index]
            shard = self._split.shards[int(row["shard"])].name
            raise DamagedSample(shard, self.key, int(row["offset"]), damage.cause) from damage

    def _names(self) -> list[str]:
        return [*self._split.dataset.fields, "index", "key", "source"]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __repr__(self) -> str:
        return f"Sample({self._split.dataset.ref}, {self.key})"
