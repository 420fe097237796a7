"""Where samples lie in their shards, and which of them are near enough to be read together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

GAP = 16 << 10
"""Unwanted bytes between two samples that cost less than a second system call."""
LARGE = 32 << 10
"""Spans of this size on average are read one by one: a call costs less than what a longer read costs in memory."""
RUN = 8 << 20
"""Reads are cut at multiples of this offset, so that one never grows without bound."""

Data = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Spans:
    """Byte ranges of n samples: integer arrays ``(n,)``."""

    shard: NDArray[Any]
    offset: NDArray[Any]
    size: NDArray[Any]

    def __len__(self) -> int:
        return len(self.shard)

    def rows(self) -> Iterator[tuple[int, int, int]]:
        """(shard, offset, size) of each, as plain ints."""
        return zip(self.shard.tolist(), self.offset.tolist(), self.size.tolist(), strict=True)

    @staticmethod
    def joined(parts: Sequence[Spans]) -> Spans:
        """The spans of all parts, int64."""
        none = [np.zeros(0, np.int64)]
        columns = ([getattr(each, name).astype(np.int64) for each in parts] for name in ("shard", "offset", "size"))
        return Spans(*(np.concatenate(none + column) for column in columns))

    def take(self, rows: slice | NDArray[Any]) -> Spans:
        return Spans(self.shard[rows], self.offset[rows], self.size[rows])


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes ``[start, end)`` of a shard, and the spans inside: (row, start and end within the run)."""

    shard: int
    start: int
    end: int
    members: list[tuple[int, int, int]]


def runs(spans: Spans) -> list[Run] | None:
    """Neighbouring spans joined into runs, by shard and offset; None where too few are near to be worth it."""
    if int(spans.size.sum()) >= LARGE * len(spans):
        return None
    order = np.lexsort((spans.offset, spans.shard))
    shard, start = spans.shard[order], spans.offset[order].astype(np.int64)
    end = start + spans.size[order]
    near = (shard[1:] == shard[:-1]) & (start[1:] - end[:-1] <= GAP) & (start[1:] // RUN == start[:-1] // RUN)
    if not len(order) or 2 * np.count_nonzero(near) < len(order):
        return None
    edges = [0, *(np.flatnonzero(~near) + 1).tolist(), len(order)]
    row, where, begin, stop = order.tolist(), shard.tolist(), start.tolist(), end.tolist()
    found = []
    for first, last in pairwise(edges):
        base = begin[first]
        members = [(row[i], begin[i] - base, stop[i] - base) for i in range(first, last)]
        found.append(Run(where[first], base, max(stop[first:last]), members))
    return found
