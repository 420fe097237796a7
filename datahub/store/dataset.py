"""A packed variant, open: `Dataset`, its `Split`s, their `Sample`s.

Opening reads the record and nothing else; what a sample needs is mapped or opened when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from datahub.core.errors import DamagedSample, NotReadable, RecordInvalid, UnknownSplit, UsageError
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.store import members
from datahub.store.find import find
from datahub.store.paths import key_of
from datahub.store.record import Record, SplitEntry
from datahub.store.sample import SCALARS, Sample
from datahub.store.shards import OpenShards

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from numpy.typing import NDArray

    from datahub.store.index import RowReader
    from datahub.store.locate import Rows
    from datahub.store.where import Where

Decode = Callable[[bytes], Any]
Gather = Callable[["Split", list[int]], Sequence[Mapping[str, Any]]]
Changed = Callable[..., Any]


class Elsewhere(Protocol):
    """Where the files of a dataset are that is not whole on this disk. Safe in threads; picklable."""

    def file(self, name: str) -> Path:
        """The path here of a file that is no shard, fetched and verified if need be."""
        ...

    def read(self, shard: str, offset: int, size: int) -> bytes | memoryview:
        """Bytes of a shard, which the record names so."""
        ...


class Split:
    """The samples of one split, by index. Safe in threads, after fork, and through pickle."""

    def __init__(self, dataset: Dataset, name: str, entry: SplitEntry) -> None:
        self.dataset, self.name, self.entry = dataset, name, entry

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

    @cached_property
    def shards(self) -> tuple[Path, ...]:
        return tuple(self.dataset.path / each.path for each in self.entry.shards)

    @cached_property
    def _files(self) -> OpenShards:
        return OpenShards(self.shards)

    @property
    def shard_samples(self) -> tuple[int, ...]:
        return tuple(each.samples for each in self.entry.shards)

    @cached_property
    def locate(self) -> Rows:
        """Rows of `datahub.store.locate.LOCATE`, mapped on first use."""
        from datahub.store.locate import open_rows

        path = self.dataset.file(self.entry.locate)
        rows = open_rows(path)
        if len(rows) != len(self):
            raise RecordInvalid(str(path), f"has {len(rows)} rows, the record says {len(self)}")
        return rows

    @cached_property
    def beside(self) -> members.Places:
        """Where the members beside image and label are."""
        return members.Places(self)

    def read(self, index: int) -> bytes:
        """The image's bytes; raises `DamagedSample` where the shard does not hold all of them."""
        row = self.locate[index]
        return self._read(index, int(row["shard"]), int(row["offset"]), int(row["size"]))

    def member(self, index: int, stem: str) -> bytes:
        """The bytes of another member: ``json``, or a field that has one of its own. Raises `DamagedSample`."""
        offset, size = self.beside.of(stem)
        return self._read(index, int(self.locate[index]["shard"]), int(offset[index]), int(size[index]))

    def _read(self, index: int, shard: int, offset: int, size: int) -> bytes:
        if shard >= len(self.shards):
            raise DamagedSample(self.entry.locate, self.key(index), offset, f"there is no shard {shard}")
        path = self.shards[shard]
        if self.dataset.elsewhere is not None:
            return bytes(self.dataset.elsewhere.read(self.entry.shards[shard].path, offset, size))
        try:
            data = self._files.read(shard, size, offset)
        except OSError as error:
            raise DamagedSample(path.name, self.key(index), offset, error.strerror or str(error)) from error
        if len(data) != size:
            cause = f"the shard ends after {len(data)} of its {size} bytes"
            raise DamagedSample(path.name, self.key(index), offset, cause)
        return data

    def table(self, columns: list[str] | None = None, where: str | pc.Expression | None = None) -> pa.Table:
        """The index as an Arrow table: ``columns`` of it, and of the rows that meet ``where``.

        ``where`` is text, as a loader takes it, or an expression. Raises `BadArgument` for a column it does not have.
        """
        from datahub.store.index import read

        wanted = self._parsed(where).expression if isinstance(where, str) else where
        return read(self.dataset.file(self.entry.index), columns, wanted)

    def meets(self, where: str) -> NDArray[np.bool_]:
        """Which rows meet a filter, bool ``(n,)``; reads only the columns it names. Raises `BadArgument`."""
        from datahub.store.index import meets

        return meets(self.dataset.file(self.entry.index), self._parsed(where))

    def _parsed(self, where: str) -> Where:
        from datahub.store.index import schema
        from datahub.store.where import parse

        path = self.dataset.file(self.entry.index)
        return parse(where, schema(path), self.dataset.classes, self.dataset.words)

    def key(self, index: int) -> str:
        """The key of the sample in row ``index``."""
        return key_of(self.name, self.entry.number(index))

    def numbers(self) -> NDArray[np.int64]:
        """The number in the key of every sample."""
        import numpy as np

        rows = np.arange(len(self))
        gaps = np.array(self.entry.gaps, np.int64)
        return rows + np.searchsorted(gaps - np.arange(len(gaps)), rows, "right")

    def row(self, index: int) -> dict[str, Any]:
        """The sample's ``source`` and further fields, from the index."""
        return self._rows[index]

    def rows(self, indices: NDArray[np.int64], columns: list[str]) -> pa.Table:
        """Columns of the index at some rows that stand close together."""
        return self._rows.take(indices, columns)

    @cached_property
    def _rows(self) -> RowReader:
        from datahub.store.index import RowReader

        fields = self.dataset.record.fields
        scalars = [name for name, spec in fields.items() if name != "label" and spec.type in SCALARS]
        return RowReader(self.dataset.file(self.entry.index), ["source", *scalars])

    def __getitem__(self, index: int) -> Sample:
        return Sample(self, self.position(index))

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Mapping[str, Any]]:
        """The samples of a batch, which torch's DataLoader asks for at once: read together, decoded once."""
        found = [self.position(index) for index in indices]
        gather = self.dataset.gather
        return [Sample(self, index) for index in found] if gather is None or not found else gather(self, found)

    def with_transform(
        self, transform: Any, *, seed: int = 0, fields: Sequence[str] | None = None, dtype: Any = None
    ) -> Any:
        """The split map-style with a transform as `StreamingLoader` takes one; see `loader.mapped.Transformed`.

        Raises `BadArgument`; `UsageError` for a dataset that `datahub.open` has not opened.
        """
        if self.dataset.changed is None:
            raise UsageError("this dataset was opened to be read, not to be decoded", "open it with datahub.open(REF)")
        return self.dataset.changed(self, transform, seed=seed, fields=fields, dtype=dtype)

    def position(self, index: int) -> int:
        """``index``, which may count from the end, as a row. Raises ``IndexError``."""
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"{self.name} has {len(self)} samples, not one at {index}")
        return int(position)

    def __iter__(self) -> Iterator[Sample]:
        return (Sample(self, index) for index in range(len(self)))

    def close(self) -> None:
        """Give back descriptors; a later read opens them again. Not while another thread reads."""
        if "_files" in vars(self):
            self._files.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "name": self.name, "entry": self.entry}


class Dataset:
    """A packed variant. ``dataset["train"][7]`` is a sample.

    ``elsewhere``: where its files are, if they are not all in ``path``.
    """

    def __init__(
        self,
        ref: Ref,
        path: Path,
        record: Record,
        decode: Decode | None = None,
        *,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.ref, self.path, self.record, self.decode, self.elsewhere = ref, path, record, decode, elsewhere
        self.wrap: members.Wrap | None = None
        """Makes what samples show of boxes, masks and keypoints; None: arrays."""
        self.gather: Gather | None = None
        """Makes many samples at once; None: one by one."""
        self.changed: Changed | None = None
        """Makes what `Split.with_transform` returns; None: nothing here decodes."""
        self.splits: Mapping[str, Split] = {name: Split(self, name, entry) for name, entry in record.splits.items()}

    def __getitem__(self, split: str) -> Split:
        try:
            return self.splits[split]
        except KeyError:
            raise UnknownSplit(str(self.ref), split, list(self.splits)) from None

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {len(split)}" for name, split in self.splits.items())
        return f"Dataset({self.ref}, {sizes})"

    def file(self, name: str) -> Path:
        """The path of one of its files that is no shard, brought here first if need be."""
        return self.path / name if self.elsewhere is None else self.elsewhere.file(name)

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Names of a sample's fields: ``image`` first, then ``label``, then the rest."""
        first = [name for name in ("image", "label") if name in self.record.fields]
        return (*first, *(name for name in self.record.fields if name not in first))

    @property
    def classes(self) -> list[str]:
        return self.record.classes

    @property
    def words(self) -> list[str]:
        """What each class is called in words, where ``classes`` are identifiers; else empty."""
        return self.record.words

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
        path = self.file("README.md")
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            raise NotReadable(str(path), error.strerror or str(error)) from error


def open_dataset(ref: Ref | str, settings: Settings, *, decode: Decode | None = None) -> Dataset:
    """Open a packed variant; ``decode`` turns image bytes into what a sample's ``image`` gives.

    Raises `BadReference`, `NotInStore` or `RecordInvalid`.
    """
    located = find(settings, Ref.parse(ref) if isinstance(ref, str) else ref)
    return Dataset(located.ref, located.path, located.record, decode)
