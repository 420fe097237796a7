"""The seam between a loader and its bytes: `ShardSource`, with local files and an in-memory fake behind it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from datahub.core.errors import Problem, StoreDamaged

Span = tuple[int, int, int]
"""(shard number, byte offset, byte count)."""


class ShardSource(Protocol):
    """Reads ranges of a split's shards. Safe to call from many threads; picklable; usable after fork."""

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes; raises `StoreDamaged` naming the shard where they are not there."""
        ...

    def read_many(self, spans: Iterable[Span]) -> list[bytes]:
        """The bytes of each span, in the order given."""
        ...

    def close(self) -> None:
        """Give back descriptors; a later read opens them again."""
        ...


class LocalShards:
    """Shards on a local (or mounted) file system, read by ``pread`` through descriptors opened on first use."""

    def __init__(self, ref: str, paths: Sequence[Path]) -> None:
        self._ref, self._paths = ref, tuple(paths)
        self._descriptors: dict[int, int] = {}
        self._lock = threading.Lock()

    def read(self, shard: int, offset: int, size: int) -> bytes:
        try:
            data = os.pread(self._descriptor(shard), size, offset)
        except OSError as error:
            raise self._damaged(shard, error.strerror or str(error)) from error
        if len(data) != size:
            raise self._damaged(shard, f"ends at byte {offset + len(data)}, {offset + size} are needed")
        return data

    def read_many(self, spans: Iterable[Span]) -> list[bytes]:
        return [self.read(*span) for span in spans]

    def close(self) -> None:
        with self._lock:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors.clear()

    def _descriptor(self, shard: int) -> int:
        found = self._descriptors.get(shard)
        if found is not None:
            return found
        with self._lock:
            if shard not in self._descriptors:
                self._descriptors[shard] = os.open(self._paths[shard], os.O_RDONLY | os.O_CLOEXEC)
            return self._descriptors[shard]

    def _damaged(self, shard: int, reason: str) -> StoreDamaged:
        return StoreDamaged(self._ref, [Problem(self._paths[shard].name, reason)])

    def __reduce__(self) -> tuple[type[LocalShards], tuple[str, tuple[Path, ...]]]:
        return LocalShards, (self._ref, self._paths)

    def __del__(self) -> None:
        self.close()


class MemoryShards:
    """The fake: shards held as bytes. ``damaged`` names shards whose reads fail, for tests of what then happens."""

    def __init__(self, shards: Mapping[int, bytes] | Sequence[bytes], *, damaged: Iterable[int] = ()) -> None:
        self._shards = dict(shards) if isinstance(shards, Mapping) else dict(enumerate(shards))
        self.damaged = set(damaged)

    def read(self, shard: int, offset: int, size: int) -> bytes:
        data = b"" if shard in self.damaged else self._shards.get(shard, b"")[offset : offset + size]
        if len(data) != size:
            raise StoreDamaged("memory", [Problem(f"shard {shard}", f"does not hold bytes {offset} to {offset + size}")])
        return data

    def read_many(self, spans: Iterable[Span]) -> list[bytes]:
        return [self.read(*span) for span in spans]

    def close(self) -> None:
        """Nothing is held open."""
