"""What a job's ``where=`` leaves of a split, worked out here from the index, as its loader does it.

The filter is parsed and never evaluated as code. It costs what the columns it names hold, of which there are bounds; a
filter beyond them, or over columns that are not there, leaves its job unforeseen.
"""

from __future__ import annotations

import asyncio
import io
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datahub.core.errors import DatahubError
from datahub.serve.engine import Engine
from datahub.serve.library import Blob, Variant

MOST_ROWS, MOST_BYTES = 1 << 23, 64 << 20
"""Samples of the split, and bytes of the columns that a filter names, at most."""
ROWS = 1 << 16
"""Samples that are looked at together."""
KEPT = 32
"""Filters whose rows are remembered."""
SECONDS = 120.0
"""For one read of the index."""
Mask = NDArray[np.bool_]


class Filters:
    """Belongs to one event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._found: OrderedDict[tuple[str, str, str], Mask | None] = OrderedDict()

    def knows(self, variant: Variant, split: str, where: str) -> bool:
        return (variant.etag, split, where) in self._found

    async def rows(self, variant: Variant, split: str, where: str) -> Mask | None:
        """Which samples meet the filter, bool ``(n,)``; None where that is not worked out. Raises `OriginError`s."""
        key = (variant.etag, split, where)
        if key not in self._found:
            self._found[key] = await self._worked(variant, split, where)
        self._found.move_to_end(key)
        while len(self._found) > KEPT:
            self._found.popitem(last=False)
        return self._found[key]

    async def _worked(self, variant: Variant, split: str, where: str) -> Mask | None:
        entry = variant.record.splits[split]
        blob = variant.blobs.get(entry.index)
        if blob is None or entry.samples > MOST_ROWS:
            return None
        loop = asyncio.get_running_loop()

        def read(start: int, end: int) -> bytes:
            return asyncio.run_coroutine_threadsafe(self._engine.read(blob, start, end), loop).result(SECONDS)

        mask = await asyncio.to_thread(_meets, _Blob(blob, read), variant, where)
        return mask if mask is not None and len(mask) == entry.samples else None


class _Blob(io.RawIOBase):
    """A blob as a file, for a thread."""

    def __init__(self, blob: Blob, read: Callable[[int, int], bytes]) -> None:
        self._size, self._read, self._at = blob.size, read, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._read(self._at, min(self._at + len(buffer), self._size)) if self._at < self._size else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _meets(file: _Blob, variant: Variant, where: str) -> Mask | None:
    """In a thread, with pyarrow, which few servers need."""
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    from datahub.store.where import parse

    try:
        with pq.ParquetFile(pa.PythonFile(file, mode="r")) as parquet:
            asked = parse(where, parquet.schema_arrow, variant.record.classes, variant.record.words)
            # Of what the columns take nothing is asked before: metadata that lie can end the process.
            found, size = [], 0
            for each in parquet.iter_batches(ROWS, columns=list(asked.columns)):
                size += each.nbytes
                if size > MOST_BYTES:
                    return None
                some = ds.dataset(pa.Table.from_batches([each]))
                found.append(some.to_table(columns={"met": asked.expression})["met"])
    except TimeoutError:
        raise
    except DatahubError as error:
        if error.retryable:
            raise
        return None
    except (pa.ArrowException, OSError, ValueError):  # what is no index, or no filter of it
        return None
    return np.concatenate([np.zeros(0, np.bool_), *(each.fill_null(False).to_numpy() for each in found)])
