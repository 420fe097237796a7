"""`locate-<split>.npy`: fixed-width rows that say where each sample is. The hot path, memory-mapped."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datahub.core import atomic
from datahub.core.errors import RecordInvalid

LOCATE = np.dtype(
    [("offset", "<u8"), ("size", "<u4"), ("shard", "<u4"), ("label", "<i4"), ("width", "<u4"), ("height", "<u4")]
)
"""``offset`` and ``size`` are of the image's bytes, not of its tar header; ``label`` is -1 where there is none."""

Rows = NDArray[Any]
"""One-dimensional, of dtype `LOCATE`."""


def encode(rows: Rows) -> bytes:
    """The file of rows of dtype `LOCATE`, in sample order."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(rows, LOCATE), allow_pickle=False)
    return buffer.getvalue()


def write(path: Path, rows: Rows) -> None:
    """`encode`, into a file."""
    atomic.write_bytes(path, encode(rows))


def open_rows(path: Path) -> Rows:
    """Map the rows read-only; raises `RecordInvalid` where the file is not what `write` made."""
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RecordInvalid(str(path), f"cannot be mapped: {error}") from error
    if not isinstance(rows, np.ndarray) or rows.dtype != LOCATE or rows.ndim != 1:
        raise RecordInvalid(str(path), "does not hold locate rows")
    # A plain view: np.memmap's own indexing is several times slower, and this is read once a sample.
    return rows.view(np.ndarray)
