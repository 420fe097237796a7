"""`CachedShards`: shards at a remote origin, read through the block cache of this machine."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any

from datahub.core.digests import BLOCK
from datahub.core.errors import OriginStalled, Problem, StoreDamaged
from datahub.store.blocks import WIDTH
from datahub.store.cache.block import Block
from datahub.store.cache.blockcache import BlockCache
from datahub.stream.ahead import Ahead
from datahub.stream.fetcher import Fetcher
from datahub.stream.origin import CONNECTIONS, Files
from datahub.stream.patience import read_range
from datahub.stream.spans import Data, Spans

AHEAD = 8 << 30
"""Bytes announced ahead at most, where the cache has no limit."""
SHARE = 0.75
"""Part of the cache that announced blocks may take; the rest is what others read without announcing."""
UNWANTED = 16
"""Blocks that are said to be unwanted at once."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard at its origin; ``raw`` holds its blocks' digests end to end, as `blocks.bin` does."""

    path: str
    size: int
    raw: bytes = b""
    mark: str = ""
    """Without digests: what tells these bytes from others that were at the same place."""

    def block(self, number: int, files: Files, tag: str) -> Block:
        size = min(BLOCK, self.size - number * BLOCK)
        name = f"{files.name(self.path)} block {number}"
        if self.raw:
            digest = self.raw[number * WIDTH : (number + 1) * WIDTH]
            return Block(digest.hex(), size, digest, name, tag)
        key = sha256(f"{files.name(self.path)} {self.size} {self.mark} {number}".encode()).hexdigest()
        return Block(key, size, None, name, tag)


@dataclass(slots=True)
class _Part:
    """Bytes ``[start, end)`` of a block that a row needs."""

    row: int
    start: int
    end: int
    data: Data = b""


@dataclass(frozen=True, slots=True)
class _Wanted:
    block: Block
    shard: Shard
    number: int
    parts: list[_Part] = field(default_factory=list)

    def fill_in(self, found: Sequence[Data]) -> None:
        for part, data in zip(self.parts, found, strict=True):
            part.data = data


class CachedShards:
    """A `ShardSource` of remote shards. Blocks that are missing are fetched side by side, several threads at once.

    ``seconds`` is what one read may take before the origin is reported. ``ranks``: how many processes of this machine
    share the cache for the same job.
    """

    def __init__(
        self, ref: str, files: Files, shards: Sequence[Shard], cache: BlockCache, seconds: float, *, ranks: int = 1
    ) -> None:
        self._ref, self._files, self._shards = ref, files, tuple(shards)
        self._cache, self._seconds, self._ranks = cache, seconds, ranks
        self._fetcher = Fetcher(CONNECTIONS)
        whole = cache.limit * SHARE if cache.limit is not None else AHEAD
        self._budget = int(whole / ranks)
        self._begin()

    def _begin(self) -> None:
        self._process, self._lock = os.getpid(), threading.Lock()
        self._ahead, self._done = Ahead(), list[str]()

    def read(self, shard: int, offset: int, size: int) -> Data:
        return self._read([(shard, offset, size)])[0]

    def read_many(self, spans: Spans) -> list[Data]:
        return self._read(list(spans.rows()))

    def ahead(self, spans: Spans | None) -> bool:
        """Begin to fetch the blocks of ``spans`` and keep them until they were read; False: that is enough for now."""
        self._after_fork()
        if spans is None:
            self._fetcher.drop()
            with self._lock:
                had = bool(self._ahead.bytes)
                self._ahead.clear()
            if had:
                self._cache.unwant()
            return True
        wanted = self._wanted(list(spans.rows()))
        with self._lock:
            new = self._ahead.announce((each.block, len(each.parts)) for each in wanted)
            enough = self._ahead.bytes >= self._budget
        if new:
            self._cache.want([block.key for block in new])
        keys = {block.key for block in new}
        for each in wanted:
            if each.block.key in keys and not self._cache.has(each.block):
                self._ask(each, urgent=False)
        return not enough

    def close(self) -> None:
        self._fetcher.close()
        self._cache.close()
        self._files.close()

    def _read(self, rows: list[tuple[int, int, int]]) -> list[Data]:
        self._after_fork()
        deadline = time.monotonic() + self._seconds
        wanted = self._wanted(rows)
        missing: list[tuple[_Wanted, Future[Any]]] = []
        for each in wanted:
            found = self._cache.read(each.block, [(part.start, part.end) for part in each.parts])
            if found is None:
                missing.append((each, self._ask(each, urgent=True)))
            else:
                each.fill_in(found)
        for each, future in missing:
            whole = memoryview(self._awaited(each, future, deadline))
            each.fill_in([whole[part.start : part.end] for part in each.parts])
        self._consume(wanted)
        return _joined(rows, wanted)

    def _wanted(self, rows: list[tuple[int, int, int]]) -> list[_Wanted]:
        """The blocks that rows of (shard, offset, size) touch, each with its parts in the order of the rows."""
        found: dict[tuple[int, int], _Wanted] = {}
        for row, (shard, offset, size) in enumerate(rows):
            self._check(shard, offset + size)
            for number, start, end in _cuts(offset, size):
                place = (shard, number)
                if place not in found:
                    owner = self._shards[shard]
                    found[place] = _Wanted(owner.block(number, self._files, self._ref), owner, number)
                found[place].parts.append(_Part(row, start, end))
        return list(found.values())

    def _check(self, shard: int, end: int) -> None:
        if shard >= len(self._shards):
            raise StoreDamaged(self._ref, [Problem(f"shard {shard}", "is not in the record")])
        if end > self._shards[shard].size:
            reason = f"ends at byte {self._shards[shard].size}, {end} are needed"
            raise StoreDamaged(self._ref, [Problem(self._shards[shard].path, reason)])

    def _ask(self, wanted: _Wanted, *, urgent: bool) -> Future[Any]:
        work = partial(self._fill, wanted.block, wanted.shard, wanted.number)
        return self._fetcher.ask(wanted.block.key, work, urgent=urgent)

    def _fill(self, block: Block, shard: Shard, number: int, urgent: bool) -> Data | None:
        def fetch(seconds: float) -> Data:
            start = number * BLOCK
            return read_range(self._files, shard.path, start, start + block.size, seconds)

        return self._cache.fill(block, fetch, seconds=self._seconds, through=urgent)

    def _awaited(self, wanted: _Wanted, future: Future[Any], deadline: float) -> Data:
        """A block's bytes; asked for again where it was only being fetched ahead, and that was given up."""
        while True:
            try:
                found: Data | None = future.result(max(0.0, deadline - time.monotonic()))
            except CancelledError:
                found = None
            except TimeoutError as error:
                raise OriginStalled(wanted.block.name, self._seconds) from error
            if found is not None:
                return found
            future = self._ask(wanted, urgent=True)

    def _consume(self, wanted: list[_Wanted]) -> None:
        reads = {each.block.key: len(each.parts) for each in wanted}
        with self._lock:
            self._done += self._ahead.consume(reads)
            done = self._done if len(self._done) >= UNWANTED else []
            if done:
                self._done = []
        if done:
            self._cache.unwant(done)

    def _after_fork(self) -> None:
        if self._process != os.getpid():
            self._begin()

    def __reduce__(self) -> tuple[Any, ...]:
        build = partial(CachedShards, ranks=self._ranks)
        return build, (self._ref, self._files, self._shards, self._cache, self._seconds)


def _cuts(offset: int, size: int) -> Iterator[tuple[int, int, int]]:
    """(block, start, end within it) of each block that a span touches."""
    end = offset + size
    for number in range(offset // BLOCK, -(-end // BLOCK) if size else 0):
        base = number * BLOCK
        yield number, max(offset - base, 0), min(end - base, BLOCK)


def _joined(rows: list[tuple[int, int, int]], wanted: list[_Wanted]) -> list[Data]:
    """Each row's bytes; a row that crosses from one block into the next is put together."""
    pieces: list[list[Data]] = [[] for _ in rows]
    for each in sorted(wanted, key=lambda each: each.number):
        for part in each.parts:
            pieces[part.row].append(part.data)
    return [found[0] if len(found) == 1 else b"".join(found) for found in pieces]
