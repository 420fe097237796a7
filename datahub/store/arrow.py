"""Arrow arrays from and to numpy and Python without pyarrow's own conversions, which import pandas where it is there:
a tenth of a second and forty megabytes in every worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

WIDTHS = {
    "uint8": np.uint8,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "int32": np.int32,
    "int64": np.int64,
    "double": np.float64,
}
"""Arrow's names of the types that are plain numbers in memory."""


def numbers(column: Any) -> NDArray[Any]:
    """The values of a column (or array) of numbers without nulls."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(whole, pa.ChunkedArray):  # what combining no chunks at all gives
        return np.zeros(0, WIDTHS[str(column.type)])
    found: NDArray[Any] = np.frombuffer(whole.buffers()[1] or b"", WIDTHS[str(whole.type)])
    return found[whole.offset : whole.offset + len(whole)]


def array(values: Sequence[Any] | NDArray[Any], kind: pa.DataType) -> pa.Array:
    """The values as an Arrow array; None is null."""
    if str(kind) in WIDTHS:
        if isinstance(values, np.ndarray) or None not in values:
            plain = np.ascontiguousarray(values, WIDTHS[str(kind)])
            return pa.Array.from_buffers(kind, len(plain), [None, pa.py_buffer(plain)])
    elif kind in (pa.string(), pa.binary()) and not isinstance(values, np.ndarray):
        return _texts(values, kind)
    return pa.array(values, kind)


def _texts(values: Sequence[str | bytes | None], kind: pa.DataType) -> pa.Array:
    there = [each.encode() if isinstance(each, str) else each for each in values]
    offsets = np.zeros(len(there) + 1, np.int64)
    np.cumsum([len(each) if each is not None else 0 for each in there], out=offsets[1:])
    if offsets[-1] >= 1 << 31:  # more than Arrow's 32-bit offsets hold
        return pa.array(values, kind)
    validity = None
    if None in there:
        bits = np.packbits([each is not None for each in there], bitorder="little")
        validity = pa.py_buffer(bits)
    data = pa.py_buffer(b"".join(each for each in there if each is not None))
    return pa.Array.from_buffers(kind, len(there), [validity, pa.py_buffer(offsets.astype(np.int32)), data])
