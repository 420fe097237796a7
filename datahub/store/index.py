"""`index-<split>.parquet`: one row a sample, for queries and people."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datahub.core import atomic
from datahub.core.errors import BadArgument, NotYetSupported, RecordInvalid
from datahub.store.arrow import array
from datahub.store.where import Where

STRINGS = ("key", "source", "format", "sha256")
"""``format`` is ``png``, ``jpeg``, ...; ``sha256`` is of the image's bytes, in hex."""
NARROW = ("shard", "width", "height")
"""int32; every other number is int64."""
ROW_GROUP = 16_384
"""Rows read for the sake of one."""


LISTS: Mapping[str, pa.DataType] = {
    "boxes": pa.list_(pa.list_(pa.float32())),
    "labels": pa.list_(pa.int64()),
    "ints": pa.list_(pa.int64()),
    "floats": pa.list_(pa.float64()),
    "keypoints": pa.list_(pa.list_(pa.list_(pa.float32()))),
    "visibility": pa.list_(pa.list_(pa.int64())),
}
"""Columns of the fields that have a row an object, by type."""


def columns(scalars: Sequence[str], labelled: bool, stems: Sequence[str] = ()) -> list[str]:
    """The columns of a split's index, in order. Offsets are of data, not of tar headers.

    ``stems``: further members whose places it knows.
    """
    label = ["label_offset", "label_size", "label"] if labelled else []
    image = ["image_offset", "image_size"]
    return ["key", "source", "shard", *image, *label, *places(stems), *scalars, "width", "height", "format", "sha256"]


def places(stems: Sequence[str]) -> list[str]:
    """The columns that say where members are."""
    return [f"{stem}_{what}" for stem in stems for what in ("offset", "size")]


def encode(columns: Mapping[str, Any], kinds: Mapping[str, str] | None = None) -> bytes:
    """A Parquet file of columns (arrays or lists of equal length). ``kinds``: the type of each further field, as the
    record calls it. Equal columns give equal bytes: no time decides any of them.
    """
    arrays = [_array(values, _type(name, kinds or {})) for name, values in columns.items()]
    table = pa.Table.from_arrays(arrays, names=list(columns))
    buffer = pa.BufferOutputStream()
    pq.write_table(
        table,
        buffer,
        version="2.6",
        compression="zstd",
        compression_level=3,
        use_dictionary=["format", "label"],
        row_group_size=ROW_GROUP,
        store_schema=False,
    )
    found: bytes = buffer.getvalue().to_pybytes()
    return found


def write(path: Path, columns: Mapping[str, Any], kinds: Mapping[str, str] | None = None) -> None:
    """`encode`, into a file."""
    atomic.write_bytes(path, encode(columns, kinds))


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):  # one array, so that how rows were gathered does not show in the bytes
        return values.cast(kind).combine_chunks()
    return array(values, kind)


def _type(name: str, kinds: Mapping[str, str]) -> pa.DataType:
    if name in STRINGS or kinds.get(name) in ("text", "json"):
        return pa.string()
    if kinds.get(name) in LISTS:
        return LISTS[kinds[name]]
    if kinds.get(name) == "float":
        return pa.float64()
    return pa.int32() if name in NARROW else pa.int64()


def decode(data: bytes) -> pa.Table:
    """The table of `encode`."""
    return pq.ParquetFile(pa.BufferReader(data)).read()


def read(path: Path, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
    """The index, or ``columns`` of it, or the rows that meet ``where`` (``pyarrow.compute.field("label") == 3``).

    Raises `BadArgument` for a column it does not have, `RecordInvalid` where the file is not an index.
    """
    if where is not None and not isinstance(where, pc.Expression):
        raise NotYetSupported("where", where, 'write it as an expression, pyarrow.compute.field("label") == 3')
    try:
        with pq.ParquetFile(path) as parquet:
            known = parquet.schema_arrow.names
            for name in columns or ():
                if name not in known:
                    raise BadArgument("columns", name, "is not in the index", f"it has {', '.join(known)}")
            if where is None:
                return parquet.read(columns=None if columns is None else list(columns))
        table = pq.read_table(path, columns=None if columns is None else list(columns), filters=where)
    except pa.ArrowInvalid as error:
        if where is not None and "FieldRef" in str(error):
            reason = "names a column the index does not have"
            raise BadArgument("where", str(where), reason, f"it has {', '.join(known)}") from error
        raise RecordInvalid(str(path), f"cannot be read: {error}") from error
    except (OSError, pa.ArrowException) as error:
        raise RecordInvalid(str(path), f"cannot be read: {error}") from error
    return table


def schema(path: Path) -> pa.Schema:
    """The columns of an index and their types. Raises `RecordInvalid`."""
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise RecordInvalid(str(path), f"cannot be read: {error}") from error


def meets(path: Path, where: Where) -> NDArray[np.bool_]:
    """Which rows meet a filter, bool ``(n,)``.

    Row groups whose statistics rule it out are not read, and of the others only the columns it names.
    """
    import pyarrow.dataset as ds  # costs more than reading an index does

    try:
        (fragment,) = ds.dataset(path, format="parquet").get_fragments()
        counts = [fragment.metadata.row_group(n).num_rows for n in range(fragment.num_row_groups)]
        possible = fragment.subset(where.expression)
        places = [group.id for group in possible.row_groups]
        table = possible.to_table(columns={"kept": where.expression}) if places else None
    except (OSError, pa.ArrowException) as error:
        raise RecordInvalid(str(path), f"cannot be read: {error}") from error
    kept = np.zeros(sum(counts), np.bool_)
    if table is None:
        return kept
    found = pc.fill_null(table["kept"], False).to_numpy()
    starts, at = [0, *accumulate(counts)], 0
    for group in places:
        kept[starts[group] : starts[group + 1]] = found[at : at + counts[group]]
        at += counts[group]
    return kept


class RowReader:
    """Single rows of an index as plain values; keeps the row group it read last."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path, self._columns = path, list(columns)
        try:
            self._parquet = pq.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise RecordInvalid(str(path), f"cannot be read: {error}") from error
        metadata = self._parquet.metadata
        counts = (metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))
        self._starts = [0, *accumulate(counts)]
        self._last: tuple[int, pa.Table] | None = None

    def take(self, indices: NDArray[np.int64], columns: list[str]) -> pa.Table:
        """``columns`` of some rows, in the asked order; cheap where they stand close together."""
        first, last = int(indices.min()), int(indices.max())
        groups = list(range(bisect_right(self._starts, first) - 1, bisect_right(self._starts, last)))
        try:
            table = self._parquet.read_row_groups(groups, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise RecordInvalid(str(self._path), f"cannot be read: {error}") from error
        return table.take(array(indices - self._starts[groups[0]], pa.int64()))

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self._starts[-1]:
            raise RecordInvalid(str(self._path), f"has {self._starts[-1]} rows, row {index} is needed")
        group = bisect_right(self._starts, index) - 1
        last = self._last
        if last is None or last[0] != group:
            try:
                last = (group, self._parquet.read_row_group(group, columns=self._columns))
            except (OSError, pa.ArrowException) as error:
                raise RecordInvalid(str(self._path), f"cannot be read: {error}") from error
            self._last = last
        row = last[1].slice(index - self._starts[group], 1)
        return {name: values[0] for name, values in row.to_pydict().items()}
