"""Decoding a whole split, once, into a file of pixels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from datahub.core.errors import DamagedImage
from datahub.store.dataset import Split
from datahub.stream.held import read_what_is_there
from datahub.stream.source import ShardSource
from datahub.stream.spans import Data, Spans
from datahub.tensor.decode import decode_rows

Shape = tuple[int, int, int]
"""(C, H, W)."""
PIECE = 4 << 20
"""About as many bytes of pixels are decoded, written and hashed at a time."""


def decode_split(
    split: Split, source: ShardSource, shape: Shape, file: BinaryIO, workers: int
) -> tuple[str, list[int]]:
    """Write an ``.npy`` of the split's pixels, uint8 (N, C, H, W), into an empty ``file``.

    Returns the digest of its pieces and the rows that cannot be read or decoded, which are written black. The space is
    taken before anything is decoded. Raises ``OSError`` where the file cannot be written, `StoreDamaged` where shards
    cannot be read.
    """
    samples = len(split)
    header = {"descr": "|u1", "fortran_order": False, "shape": (samples, *shape)}
    np.lib.format.write_array_header_1_0(file, header)
    file.flush()
    start = file.tell()
    row_bytes = int(np.prod(shape))
    if hasattr(os, "posix_fallocate") and samples * row_bytes:
        os.posix_fallocate(file.fileno(), start, samples * row_bytes)

    def piece(rows: range) -> tuple[bytes, list[int]]:
        out = np.empty((len(rows), *shape), np.uint8)
        where = split.locate[rows.start : rows.stop]
        read = read_what_is_there(source, Spans(where["shard"], where["offset"], where["size"]))
        encoded = [data or b"" for data in read]  # what is not there does not decode
        damaged = _decode(encoded, out)
        _write_at(file.fileno(), out, start + rows.start * row_bytes)
        return hashlib.blake2b(out.data).digest(), [rows.start + row for row in damaged]

    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="datahub-resident")
    try:
        found = list(pool.map(piece, pieces(samples, row_bytes)))
    finally:
        pool.shutdown(cancel_futures=True)
    return _combined(digest for digest, _ in found), [row for _, damaged in found for row in damaged]


def digest_of(path: Path, shape: tuple[int, ...]) -> str:
    """What `decode_split` said of the pixels it wrote, from the file that holds them. Raises ``OSError``."""
    row_bytes = int(np.prod(shape[1:]))
    start = path.stat().st_size - shape[0] * row_bytes

    def piece(rows: range) -> bytes:
        with path.open("rb") as file:
            file.seek(start + rows.start * row_bytes)
            return hashlib.blake2b(file.read(len(rows) * row_bytes)).digest()

    with ThreadPoolExecutor(2, thread_name_prefix="datahub-resident") as pool:
        return _combined(pool.map(piece, pieces(shape[0], row_bytes)))


def pieces(samples: int, row_bytes: int) -> list[range]:
    """The rows of each piece: a function of the sizes alone, for the digest hangs on it."""
    step = max(1, PIECE // max(1, row_bytes))
    return [range(first, min(first + step, samples)) for first in range(0, samples, step)]


def _combined(digests: Iterable[bytes]) -> str:
    return "blake2b:" + hashlib.blake2b(b"".join(digests)).hexdigest()


def _decode(encoded: Sequence[Data], out: NDArray[np.uint8]) -> list[int]:
    """Decode into the rows of ``out``; the rows that are damaged are black and returned."""
    try:
        decode_rows(encoded, out)
        return []
    except DamagedImage:
        damaged = []
    for row, data in enumerate(encoded):
        try:
            decode_rows([data], out[row : row + 1])
        except DamagedImage:
            out[row] = 0
            damaged.append(row)
    return damaged


def _write_at(descriptor: int, data: NDArray[np.uint8], offset: int) -> None:
    view = data.reshape(-1).data
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
