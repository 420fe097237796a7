"""Reads of a split's shards, whose files stay open."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

MAX_DESCRIPTORS = 256
"""Shards of a split kept open; the rest are opened for each read, so that no process limit is met."""


class OpenShards:
    """Safe in threads and after fork; each process that unpickles a split makes its own."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._descriptors: dict[int, int] = {}

    def read(self, shard: int, size: int, offset: int) -> bytes:
        """At most ``size`` bytes: fewer where the file ends. Raises ``OSError``."""
        descriptor = self._descriptors.get(shard)
        if descriptor is not None:
            return _read_at(descriptor, size, offset)
        descriptor = os.open(self._paths[shard], os.O_RDONLY | os.O_CLOEXEC)
        kept = False
        try:
            data = _read_at(descriptor, size, offset)
            if len(self._descriptors) < MAX_DESCRIPTORS:
                # Of two threads that open one shard, one keeps its descriptor: setdefault is atomic.
                kept = self._descriptors.setdefault(shard, descriptor) == descriptor
            return data
        finally:
            if not kept:
                os.close(descriptor)

    def close(self) -> None:
        """Give back descriptors; a later read opens them again. Not while another thread reads."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def __len__(self) -> int:
        """How many are open."""
        return len(self._descriptors)

    def __del__(self) -> None:
        self.close()


def _read_at(descriptor: int, size: int, offset: int) -> bytes:
    """``pread`` until ``size`` bytes are there or the file ends (one call gives at most 2 GiB)."""
    data = os.pread(descriptor, size, offset)
    while len(data) < size and (more := os.pread(descriptor, size - len(data), offset + len(data))):
        data += more
    return data
