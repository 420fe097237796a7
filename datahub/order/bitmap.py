"""Which samples a filter keeps: a bitmap, and the k-th kept one in constant time (rank and select with popcounts)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Int = NDArray[np.int64]

CHUNK = 16
"""Bytes between two stored counts: half the bitmap's own size is spent on them, and a question reads so many."""
PIECE = 1 << 14
"""Questions answered at a time: each looks at a chunk of bytes."""

_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
_POPCOUNT = _BITS.sum(1, dtype=np.uint8)
_SELECT = np.argsort(1 - _BITS, axis=1, kind="stable").astype(np.uint8)
"""``[byte, k]``: the place of the byte's k-th set bit."""


class Bitmap:
    """Of n samples those that are ``kept`` (bool ``(n,)``). Immutable: 3/16 of a byte a sample."""

    def __init__(self, kept: NDArray[np.bool_]) -> None:
        self.samples = len(kept)
        bits = np.packbits(kept, bitorder="little")
        self._bits = np.concatenate([bits, np.zeros(-len(bits) % CHUNK + CHUNK, np.uint8)]).reshape(-1, CHUNK)
        counts = _POPCOUNT[self._bits].sum(1, dtype=np.int64)
        self._before = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])

    def __len__(self) -> int:
        """How many are kept."""
        return int(self._before[-1])

    def before(self, edges: ArrayLike) -> Int:
        """How many of the samples before each edge (0 to n) are kept."""
        return _in_pieces(self._rank, np.asarray(edges, np.int64))

    def rows(self, numbers: ArrayLike) -> Int:
        """The sample that is kept as number k (from 0), for each k; the inverse of `before`."""
        return _in_pieces(self._select, np.asarray(numbers, np.int64))

    def _rank(self, edge: Int) -> Int:
        byte, bit = edge // 8, edge % 8
        chunk, place = byte // CHUNK, byte % CHUNK
        counts = _POPCOUNT[self._bits[chunk]]
        whole = np.where(np.arange(CHUNK) < place[:, None], counts, 0).sum(1, dtype=np.int64)
        part = _POPCOUNT[self._bits[chunk, place] & ((1 << bit) - 1).astype(np.uint8)]
        found: Int = self._before[chunk] + whole + part
        return found

    def _select(self, number: Int) -> Int:
        chunk = np.searchsorted(self._before, number, "right") - 1
        bits = self._bits[chunk]
        left = number - self._before[chunk]
        upto = np.cumsum(_POPCOUNT[bits], axis=1, dtype=np.int16)
        byte = (upto > left[:, None]).argmax(1)
        row = np.arange(len(number))
        counted = upto[row, byte] - _POPCOUNT[bits[row, byte]]
        found: Int = (chunk * CHUNK + byte) * 8 + _SELECT[bits[row, byte], left - counted]
        return found


def _in_pieces(answer: Callable[[Int], Int], questions: Int) -> Int:
    flat = questions.ravel()
    found = [answer(flat[start : start + PIECE]) for start in range(0, len(flat), PIECE)]
    return np.concatenate([np.zeros(0, np.int64), *found]).reshape(questions.shape)
