"""A sample's key as a number that never changes: what cuts a split into parts and takes the first so many of it.

The key is ``<split>-<number>``, so the hash is of the split's name and the number, computed for all numbers at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from datahub.order.permutation import derive
from datahub.order.varied import mixed

Words = NDArray[np.uint64]
Bool = NDArray[np.bool_]
Int = NDArray[np.int64]

PIECE = 1 << 16
"""Numbers hashed at a time: the working arrays stay in the processor's cache."""
_STEPS = 2.0**53


def hashes(numbers: Int, *key: str) -> Words:
    """A 64-bit hash of each number, keyed."""
    first = np.uint64(derive("key", *key))
    found = np.empty(len(numbers), np.uint64)
    for place in _pieces(len(numbers)):
        found[place] = mixed(mixed(numbers[place].astype(np.uint64) ^ first))
    return found


def within(numbers: Int, split: str, ranges: Sequence[tuple[float, float]]) -> Bool:
    """Which samples lie in one of the ``ranges`` of [0, 1), by their keys.

    Ranges that meet in a number share no sample and leave none out, whatever else is asked.
    """
    kept = np.zeros(len(numbers), np.bool_)
    steps = hashes(numbers, "part", split) >> np.uint64(11)
    for low, high in ranges:
        kept |= (steps >= np.uint64(int(low * _STEPS))) & (steps < np.uint64(int(high * _STEPS)))
    return kept


def first(numbers: Int, split: str, count: int) -> Int:
    """Places of the ``count`` samples with the smallest hashes (all, where there are fewer), ascending.

    A larger count holds a smaller one's samples. The hash is not that of `within`: neither biases the other.
    """
    if count >= len(numbers):
        return np.arange(len(numbers))
    found = hashes(numbers, "first", split)
    last = np.partition(found, count - 1)[count - 1]
    ties = np.flatnonzero(found == last)[: count - int((found < last).sum())]
    return np.sort(np.concatenate([np.flatnonzero(found < last), ties]))


def _pieces(count: int) -> Iterator[slice]:
    return (slice(start, start + PIECE) for start in range(0, count, PIECE))
