"""A packed variant, open: `Dataset`, its `Split`s, their `Sample`s."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datahub.core.errors import DamagedSample, UnknownSplit
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.store.find import find
from datahub.store.paths import key_of
from datahub.store.record import Record, SplitEntry

if TYPE_CHECKING:
    import pyarrow as pa

    from datahub.store.locate import Rows

Decode = Callable[[bytes], Any]


class Sample(Mapping[str, Any]):
    """One sample: ``image`` (decoded if a decoder was given, else bytes), ``label``, other scalars, and where it is from.

    Keys: ``image``, ``label`` where there is one, the split's other scalar fields, ``index``, ``key``, ``source``.
    """

    def __init__(self, split: Split, index: int) -> None:
        self._split, self.index = split, index

    @property
    def key(self) -> str:
        return key_of(self._split.name, self.index)

    @cached_property
    def encoded(self) -> bytes:
        """The image's bytes as they stand in the shard."""
        return self._split.read(self.index)

    @cached_property
    def _row(self) -> dict[str, Any]:
        return self._split.row(self.index)

    def __getitem__(self, name: str) -> Any:
        if name == "image":
            decode = self._split.dataset.decode
            return decode(self.encoded) if decode else self.encoded
        if name == "index":
            return self.index
        if name == "key":
            return self.key
        if name == "label" and "label" in self._split.dataset.record.fields:
            return int(self._split.locate[self.index]["label"])
        if name in self._names():
            return self._row[name]
        raise KeyError(name)

    def _names(self) -> list[str]:
        return [*self._split.dataset.record.fields, "index", "key", "source"]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __repr__(self) -> str:
        return f"Sample({self._split.dataset.ref}, {self.key})"


class Split:
    """The samples of one split, by index. Safe in threads, after fork, and through pickle."""

    def __init__(self, dataset: Dataset, name: str, entry: SplitEntry) -> None:
        self.dataset, self.name, self.entry = dataset, name, entry
        self._descriptors: dict[int, int] = {}

    def __len__(self) -> int:
        return self.entry.samples

    def __repr__(self) -> str:
        return f"Split({self.dataset.ref}, {self.name!r}, {len(self)} samples)"

    @property
    def fingerprint(self) -> str:
        return self.entry.fingerprint

    @property
    def block(self) -> int:
        """B of the order formula."""
        return self.entry.block

    @property
    def shards(self) -> tuple[Path, ...]:
        return tuple(self.dataset.path / each.path for each in self.entry.shards)

    @property
    def shard_samples(self) -> tuple[int, ...]:
        return tuple(each.samples for each in self.entry.shards)

    @cached_property
    def locate(self) -> Rows:
        """Rows of `datahub.store.locate.LOCATE`, mapped on first use."""
        from datahub.store.locate import open_rows

        return open_rows(self.dataset.path / self.entry.locate)

    def read(self, index: int) -> bytes:
        """The image's bytes; raises `DamagedSample` where the shard does not hold them."""
        row = self.locate[index]
        shard, offset, size = int(row["shard"]), int(row["offset"]), int(row["size"])
        path = self.shards[shard]
        try:
            if shard not in self._descriptors:
                self._descriptors[shard] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            data = os.pread(self._descriptors[shard], size, offset)
        except OSError as error:
            raise DamagedSample(path.name, key_of(self.name, index), offset, error.strerror or str(error)) from error
        if len(data) != size:
            raise DamagedSample(path.name, key_of(self.name, index), offset, f"the shard ends {size - len(data)} bytes early")
        return data

    def table(self, columns: list[str] | None = None, where: str | None = None) -> pa.Table:
        """The index as an Arrow table, ``columns`` of it; ``where`` is not yet a language of its own."""
        from datahub.store.index import read

        return read(self.dataset.path / self.entry.index, columns, where)

    def row(self, index: int) -> dict[str, Any]:
        """One row of the index, as plain values."""
        return {name: values[0] for name, values in self._index.slice(index, 1).to_pydict().items()}

    @cached_property
    def _index(self) -> pa.Table:
        return self.table()

    def __getitem__(self, index: int) -> Sample:
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"{self.name} has {len(self)} samples, not one at {index}")
        return Sample(self, position)

    def __iter__(self) -> Iterator[Sample]:
        return (Sample(self, index) for index in range(len(self)))

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "name": self.name, "entry": self.entry, "_descriptors": {}}

    def __del__(self) -> None:
        self.close()


class Dataset:
    """A packed variant. ``dataset["train"][7]`` is a sample; opening one reads nothing but the record."""

    def __init__(self, ref: Ref, path: Path, record: Record, decode: Decode | None = None) -> None:
        self.ref, self.path, self.record, self.decode = ref, path, record, decode
        self.splits: Mapping[str, Split] = {name: Split(self, name, entry) for name, entry in record.splits.items()}

    def __getitem__(self, split: str) -> Split:
        try:
            return self.splits[split]
        except KeyError:
            raise UnknownSplit(str(self.ref), split, list(self.splits)) from None

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {len(split)}" for name, split in self.splits.items())
        return f"Dataset({self.ref}, {sizes})"

    @property
    def classes(self) -> list[str]:
        return self.record.classes

    @property
    def class_to_idx(self) -> dict[str, int]:
        return {name: label for label, name in enumerate(self.classes)}

    @property
    def fingerprint(self) -> dict[str, str]:
        """Split name -> fingerprint."""
        return {name: entry.fingerprint for name, entry in self.record.splits.items()}

    @property
    def card(self) -> str:
        """The dataset card, Markdown with YAML front matter."""
        return (self.path / "README.md").read_text(encoding="utf-8")


def open_dataset(ref: Ref | str, settings: Settings, *, decode: Decode | None = None) -> Dataset:
    """Open a packed variant; raises `NotInStore`."""
    located = find(settings, Ref.parse(ref) if isinstance(ref, str) else ref)
    return Dataset(located.ref, located.path, located.record, decode)
