"""Sources side by side: the shards of several splits, numbered through."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from datahub.stream.source import ShardSource
from datahub.stream.spans import Data, Spans


class JoinedShards:
    """A `ShardSource` over others: shard ``bases[m] + k`` is shard k of source m, which has ``counts[m]``."""

    def __init__(self, sources: Sequence[ShardSource], counts: Sequence[int]) -> None:
        self._sources, self._counts = tuple(sources), tuple(counts)
        self._bases = np.array([0, *accumulate(counts)], np.int64)

    def read(self, shard: int, offset: int, size: int) -> Data:
        member = int(np.searchsorted(self._bases, shard, "right")) - 1
        return self._sources[member].read(shard - int(self._bases[member]), offset, size)

    def read_many(self, spans: Spans) -> list[Data]:
        shard = spans.shard.astype(np.int64)
        member = np.searchsorted(self._bases, shard, "right") - 1
        data: list[Data] = [b""] * len(spans)
        for number in np.unique(member).tolist():
            rows = np.flatnonzero(member == number)
            mine = Spans(shard[rows] - self._bases[number], spans.offset[rows], spans.size[rows])
            for row, found in zip(rows.tolist(), self._sources[number].read_many(mine), strict=True):
                data[row] = found
        return data

    def close(self) -> None:
        for each in self._sources:
            each.close()
