"""`index-<split>.parquet`: one row a sample, for queries and people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datahub.core import atomic
from datahub.core.errors import BadArgument, NotYetSupported, RecordInvalid

STRINGS = ("key", "source", "format", "sha256")


def write(path: Path, columns: Mapping[str, Any]) -> None:
    """Write columns (arrays or lists of equal length). Equal columns give equal bytes: no time or library default decides."""
    arrays = {name: pa.array(values, _type(name)) for name, values in columns.items()}
    table = pa.table(arrays)
    with atomic.writing(path) as handle:
        pq.write_table(
            table,
            handle,
            version="2.6",
            compression="zstd",
            compression_level=3,
            use_dictionary=["format", "label"],
            row_group_size=131_072,
            store_schema=False,
        )


def _type(name: str) -> pa.DataType:
    if name in STRINGS:
        return pa.string()
    return pa.int32() if name in ("shard", "width", "height") else pa.int64()


def read(path: Path, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
    """The index, or ``columns`` of it. Raises `BadArgument` for a column it does not have."""
    if where is not None:
        raise NotYetSupported("where", where, "filter the table that comes back")
    try:
        parquet = pq.ParquetFile(path)
        unknown = [name for name in columns or () if name not in parquet.schema_arrow.names]
        if unknown:
            raise BadArgument("columns", unknown[0], "is not in the index", f"it has {', '.join(parquet.schema_arrow.names)}")
        return parquet.read(columns=list(columns) if columns else None)
    except (OSError, pa.ArrowException) as error:
        raise RecordInvalid(str(path), f"cannot be read: {error}") from error
