"""The seam between a loader and its bytes: `ShardSource`, with local files and an in-memory fake behind it."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from datahub.core.errors import SCARCE, Problem, ShardCut, StoreDamaged, from_oserror
from datahub.stream.spans import Data, Spans, runs

OPEN_SHARDS = 256
"""Descriptors kept open by one source; shards beyond that are opened for each read."""


class ShardSource(Protocol):
    """Reads ranges of a split's shards. Safe to call from many threads; picklable; usable after fork."""

    def read(self, shard: int, offset: int, size: int) -> Data:
        """Exactly ``size`` bytes; raises `StoreDamaged` naming the shard where they are not there, and `NotReadable`
        where this process has no more descriptors or memory.

        `ShardCut` is raised of a shard that can be read but ends too early.
        """
        ...

    def read_many(self, spans: Spans) -> Sequence[Data]:
        """The bytes of each span, in the order given; neighbours may share one read. Raises as `read`."""
        ...

    def ahead(self, spans: Spans | None) -> bool:
        """These will be read next, after what was said before; None: nothing of that holds any more.

        True: say more; False: that is enough until some of it was read. Only a hint, and free where it is no use.
        """
        ...

    def close(self) -> None:
        """Give back descriptors; a later read opens them again."""
        ...


class LocalShards:
    """Shards on a local (or mounted) file system, read by ``pread`` through descriptors opened on first use.

    Not mapped: a file cut short under a mapping kills the process, a short ``pread`` is an error with a name.
    """

    def __init__(self, ref: str, paths: Sequence[Path]) -> None:
        self._ref, self._paths = ref, tuple(paths)
        self._descriptors: dict[int, int] = {}
        weakref.finalize(self, _close_all, self._descriptors)

    def read(self, shard: int, offset: int, size: int) -> bytes:
        try:
            descriptor = self._descriptors.get(shard)
            data = os.pread(descriptor, size, offset) if descriptor is not None else self._opened(shard, offset, size)
            end = offset + len(data) if data else self._paths[shard].stat().st_size
        except OSError as error:
            if error.errno in SCARCE:
                raise from_oserror(error, self._paths[shard]) from error
            raise StoreDamaged(*self._problem(shard, f"cannot be read: {error.strerror or error}")) from error
        if len(data) != size:
            reason = f"ends at byte {end}, {offset + size} are needed"
            raise ShardCut(*self._problem(shard, reason))
        return data

    def read_many(self, spans: Spans) -> list[Data]:
        found = runs(spans)
        if found is None:
            return self._scattered(spans)
        data: list[Data] = [b""] * len(spans)
        for run in found:
            whole = memoryview(self.read(run.shard, run.start, run.end - run.start))
            for row, start, end in run.members:
                data[row] = whole[start:end]
        return data

    def _scattered(self, spans: Spans) -> list[Data]:
        """One ``pread`` a span. For small samples Python's own share counts, so the checks are made in bulk."""
        shards, offsets, sizes = spans.shard.tolist(), spans.offset.tolist(), spans.size.tolist()
        for shard in set(shards).difference(self._descriptors):
            self.read(shard, 0, 0)
        descriptors, pread = self._descriptors, os.pread
        try:
            data: list[Data] = [
                pread(descriptors[shard], size, offset)
                for shard, size, offset in zip(shards, sizes, offsets, strict=True)
            ]
        except (KeyError, OSError):
            return [self.read(*span) for span in spans.rows()]  # says which, or reads shards that are not kept open
        if list(map(len, data)) != sizes:
            return [self.read(*span) for span in spans.rows()]
        return data

    def ahead(self, spans: Spans | None) -> bool:  # noqa: ARG002
        """The kernel reads ahead."""
        return False

    def close(self) -> None:
        _close_all(self._descriptors)

    def _opened(self, shard: int, offset: int, size: int) -> bytes:
        """Read through a new descriptor, and keep it where there is room and no other thread was first."""
        descriptor = os.open(self._paths[shard], os.O_RDONLY | os.O_CLOEXEC)
        kept = -1
        try:
            self._look(shard, descriptor)
            if len(self._descriptors) < OPEN_SHARDS:
                kept = self._descriptors.setdefault(shard, descriptor)
            return os.pread(descriptor, size, offset)
        finally:
            if kept != descriptor:
                os.close(descriptor)

    def _look(self, shard: int, descriptor: int) -> None:
        """What is to be seen of a shard that was just opened; the record's are what they are."""

    def _problem(self, shard: int, reason: str) -> tuple[str, list[Problem], str]:
        return self._ref, [Problem(self._paths[shard].name, reason)], ""

    def __reduce__(self) -> tuple[type[LocalShards], tuple[Any, ...]]:
        return LocalShards, (self._ref, self._paths)


def _close_all(descriptors: dict[int, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])


class MemoryShards:
    """The fake: shards held as bytes. ``damaged`` names shards whose reads fail, for tests of what then happens."""

    def __init__(self, shards: Mapping[int, bytes] | Sequence[bytes], *, damaged: Iterable[int] = ()) -> None:
        self._shards = dict(shards) if isinstance(shards, Mapping) else dict(enumerate(shards))
        self.damaged = set(damaged)

    def read(self, shard: int, offset: int, size: int) -> bytes:
        data = b"" if shard in self.damaged else self._shards.get(shard, b"")[offset : offset + size]
        if len(data) != size:
            reason = f"does not hold bytes {offset} to {offset + size}"
            kind = StoreDamaged if shard in self.damaged or shard not in self._shards else ShardCut
            raise kind("memory", [Problem(f"shard {shard}", reason)])
        return data

    def read_many(self, spans: Spans) -> list[bytes]:
        return [self.read(*span) for span in spans.rows()]

    def ahead(self, spans: Spans | None) -> bool:  # noqa: ARG002
        """Everything is there already."""
        return False

    def close(self) -> None:
        """Nothing is held open."""
