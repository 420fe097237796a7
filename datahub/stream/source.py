"""The seam between a loader and its bytes: `ShardSource`, with local files and an in-memory fake behind it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from datahub.core.errors import Problem, StoreDamaged

OPEN_SHARDS = 256
"""Descriptors kept open by one source; shards beyond that are opened for each read."""
GAP = 16 << 10
"""Unwanted bytes between two samples that cost less than a second system call."""
RUN = 8 << 20
"""Most bytes read in one call."""

Data = bytes | memoryview


class Spans(NamedTuple):
    """Where n samples are: integer arrays ``(n,)``."""

    shard: NDArray[Any]
    offset: NDArray[Any]
    size: NDArray[Any]

    def __getitem__(self, rows: Any) -> Any:
        """Field by number as in any tuple, or the spans of a slice or array of rows."""
        if isinstance(rows, int):
            return tuple.__getitem__(self, rows)
        return Spans(*(tuple.__getitem__(self, i)[rows] for i in range(3)))


class ShardSource(Protocol):
    """Reads ranges of a split's shards. Safe to call from many threads; picklable; usable after fork."""

    def read(self, shard: int, offset: int, size: int) -> Data:
        """Exactly ``size`` bytes; raises `StoreDamaged` naming the shard where they are not there."""
        ...

    def read_many(self, spans: Spans) -> Sequence[Data]:
        """The bytes of each span, in the order given."""
        ...

    def close(self) -> None:
        """Give back descriptors; a later read opens them again."""
        ...
