"""Sources side by side: the shards of several splits, numbered through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from datahub.stream.source import ShardSource
from datahub.stream.spans import Data, Spans


class JoinedShards:
    """A `ShardSource` over others: shard ``bases[m] + k`` is shard k of source m, which has ``counts[m]``."""

    def __init__(self, sources: Sequence[ShardSource], counts: Sequence[int]) -> None:
        self.sources, self._counts = tuple(sources), tuple(counts)
        self._bases = np.array([0, *accumulate(counts)], np.int64)
        self._eager: set[int] = set()
        """Sources that have asked for more hints: those that never do are local."""

    def read(self, shard: int, offset: int, size: int) -> Data:
        member = int(np.searchsorted(self._bases, shard, "right")) - 1
        return self.sources[member].read(shard - int(self._bases[member]), offset, size)

    def read_many(self, spans: Spans) -> list[Data]:
        data: list[Data] = [b""] * len(spans)
        for number, rows, mine in self._parts(spans):
            for row, found in zip(rows.tolist(), self.sources[number].read_many(mine), strict=True):
                data[row] = found
        return data

    def ahead(self, spans: Spans | None) -> bool:
        """More is wanted until one of the sources that make use of it has enough: it must not be told too much."""
        if spans is None:
            useful = [each.ahead(None) for each in self.sources]  # every one must hear it
            return any(useful)
        wants = {number: self.sources[number].ahead(mine) for number, _, mine in self._parts(spans)}
        self._eager |= {number for number, more in wants.items() if more}
        return bool(self._eager) and all(more for number, more in wants.items() if number in self._eager)

    def _parts(self, spans: Spans) -> Iterator[tuple[int, NDArray[np.int64], Spans]]:
        """(source, rows of ``spans`` that are its own, those as it numbers its shards)."""
        shard = spans.shard.astype(np.int64)
        member = np.searchsorted(self._bases, shard, "right") - 1
        for number in np.unique(member).tolist():
            rows = np.flatnonzero(member == number)
            yield number, rows, Spans(shard[rows] - self._bases[number], spans.offset[rows], spans.size[rows])

    def close(self) -> None:
        for each in self.sources:
            each.close()
