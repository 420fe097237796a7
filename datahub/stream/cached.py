"""`CachedShards`: shards at a remote origin, read through the block cache of this machine."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any

from datahub.core.digests import BLOCK
from datahub.core.errors import OriginStalled, Problem, StoreDamaged
from datahub.store.blocks import WIDTH
from datahub.store.cache.block import HINT
from datahub.store.cache.blockcache import BlockCache
from datahub.stream.ahead import Ahead
from datahub.stream.fetcher import Fetcher
from datahub.stream.origin import CONNECTIONS, Files, ManyFiles, doubt
from datahub.stream.patience import ATTEMPT, read_range
from datahub.stream.pieces import Part, Shard, Wanted, cuts, joined, rows_of
from datahub.stream.samples import Coming, Singles, Span, Vouchers
from datahub.stream.spans import Data, Spans
from datahub.wire.ranges import Range

AHEAD = 8 << 30
"""Bytes announced ahead at most, where the cache has no limit."""
SHARE = 0.75
"""Part of the cache that announced blocks may take; the rest is what others read without announcing."""
FILLS = 2
"""Blocks that are fetched for later while samples are read by themselves."""
FULL = 60.0
"""Seconds until it is looked again whether a full cache has room."""
UNWANTED = 16
"""Blocks that are said to be unwanted at once; of a small cache, an eighth of those that may be wanted."""


class CachedShards:
    """A `ShardSource` of remote shards. Blocks that are missing are fetched side by side, several threads at once.

    ``seconds`` is what one read may take before the origin is reported. ``ranks``: how many processes of this machine
    share the cache for the same job. ``vouchers``: reads are so scattered that a block would be evicted before its
    other samples are read. Then the cache is filled once, and what is not in it is read sample by sample.
    """

    def __init__(
        self,
        ref: str,
        files: Files,
        shards: Sequence[Shard],
        cache: BlockCache,
        seconds: float,
        *,
        ranks: int = 1,
        vouchers: Vouchers | None = None,
    ) -> None:
        self._ref, self._files, self._shards = ref, files, tuple(shards)
        self._cache, self._seconds, self._ranks, self._vouchers = cache, seconds, ranks, vouchers
        self._fetcher = Fetcher(CONNECTIONS)
        whole = cache.limit * SHARE if cache.limit is not None else AHEAD
        self._budget = int(whole / ranks)
        # What was read but is still wanted must leave room for what is: else blocks pass through, again and again.
        self._unwanted = max(1, min(UNWANTED, self._budget // BLOCK // 8))
        self._begin()

    def _begin(self) -> None:
        self._process, self._lock = os.getpid(), threading.Lock()
        self._ahead, self._done = Ahead(), list[str]()
        self._names: dict[int, str] = {}
        self._singles: Singles | None = None
        self._filling, self._full_until = 0, 0.0
        if self._vouchers is not None:
            hint = self._shards[0].hint if self._shards else HINT
            many = partial(self._ranges, self._files) if isinstance(self._files, ManyFiles) else None
            self._singles = Singles(
                self._vouchers,
                self._fetcher,
                self._range,
                self._name,
                hint,
                fetch_many=many,
                wrong=partial(doubt, self._files),
            )

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
            if self._singles is not None:
                self._singles.clear()
            return True
        rows = list(spans.rows())
        wanted = self._wanted(rows)
        if self._singles is not None:
            absent = [each for each in wanted if not self._cache.has(each.block)]
            self._fill_up(absent)
            return self._singles.ahead(rows[row] for row in rows_of(absent))
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

    def kept(self) -> list[bool]:
        """Of each block of the shards, one after the other, whether this machine's cache has it."""
        names = "".join(shard.raw.hex() for shard in self._shards)
        return self._cache.present(names[at : at + 2 * WIDTH] for at in range(0, len(names), 2 * WIDTH))

    def close(self) -> None:
        self._fetcher.close()
        self._cache.close()
        self._files.close()

    def _read(self, rows: list[Span]) -> list[Data]:
        self._after_fork()
        deadline = time.monotonic() + self._seconds
        wanted = self._wanted(rows)
        absent = [each for each in wanted if not self._found(each)]
        alone = self._alone(rows, absent)
        missing = [
            (each, self._ask(each, urgent=True)) for each in absent if any(rows[p.row] not in alone for p in each.parts)
        ]
        for each, future in missing:
            whole = memoryview(self._awaited(each, future, deadline))
            each.fill_in([whole[part.start : part.end] for part in each.parts])
        self._consume(wanted)
        data = joined(rows, wanted)
        came = {span: self._single(span, coming, deadline) for span, coming in alone.items()}
        return [came.get(span, found) for span, found in zip(rows, data, strict=True)] if came else data

    def _found(self, wanted: Wanted) -> bool:
        """Whether the cache has the block; its parts are filled in then."""
        found = self._cache.read(wanted.block, [(part.start, part.end) for part in wanted.parts])
        if found is not None:
            wanted.fill_in(found)
        return found is not None

    # -- samples by themselves ------------------------------------------------------------------------------------

    def _alone(self, rows: list[Span], absent: list[Wanted]) -> dict[Span, Coming]:
        """The samples that touch absent blocks and are read by themselves."""
        return {} if self._singles is None else self._singles.get(rows[row] for row in rows_of(absent))

    def _single(self, span: Span, coming: Coming, deadline: float) -> Data:
        try:
            return coming(max(0.0, deadline - time.monotonic()))
        except TimeoutError as error:
            raise OriginStalled(self._name(span[0]), self._seconds) from error

    def _ranges(
        self, files: ManyFiles, shard: int, spans: Sequence[Range], received: Callable[[int, bytes], None]
    ) -> None:
        files.receive_many(self._shards[shard].path, spans, min(ATTEMPT, self._seconds), received)

    def _range(self, shard: int, start: int, end: int) -> Data:
        return read_range(self._files, self._shards[shard].path, start, end, self._seconds)

    def _name(self, shard: int) -> str:
        """What a shard is called at its origin; kept, for it is asked for with each block."""
        found = self._names.get(shard)
        if found is None:
            found = self._names[shard] = self._files.name(self._shards[shard].path)
        return found

    def _fill_up(self, absent: list[Wanted]) -> None:
        """Use the room that is left for whole blocks, a few at a time, beside what is waited for."""
        if time.monotonic() < self._full_until:
            return
        for each in absent[: max(0, FILLS - self._filling)]:
            with self._lock:
                self._filling += 1
            future = self._fetcher.ask(each.block.key, partial(self._fill, each, evict=False), urgent=False)
            future.add_done_callback(self._filled)

    def _filled(self, future: Future[Any]) -> None:
        with self._lock:
            self._filling -= 1
        if not future.cancelled() and (future.exception() is not None or future.result() is None):
            self._full_until = time.monotonic() + FULL

    # -- blocks ---------------------------------------------------------------------------------------------------

    def _wanted(self, rows: list[Span]) -> list[Wanted]:
        """The blocks that rows of (shard, offset, size) touch, each with its parts in the order of the rows."""
        found: dict[tuple[int, int], Wanted] = {}
        for row, (shard, offset, size) in enumerate(rows):
            self._check(shard, offset + size)
            for number, start, end in cuts(offset, size):
                place = (shard, number)
                if place not in found:
                    owner = self._shards[shard]
                    found[place] = Wanted(owner.block(number, self._name(shard), self._ref), owner, number)
                found[place].parts.append(Part(row, start, end))
        return list(found.values())

    def _check(self, shard: int, end: int) -> None:
        if shard >= len(self._shards):
            raise StoreDamaged(self._ref, [Problem(f"shard {shard}", "is not in the record")])
        if end > self._shards[shard].size:
            reason = f"ends at byte {self._shards[shard].size}, {end} are needed"
            raise StoreDamaged(self._ref, [Problem(self._shards[shard].path, reason)])

    def _ask(self, wanted: Wanted, *, urgent: bool) -> Future[Any]:
        return self._fetcher.ask(wanted.block.key, partial(self._fill, wanted), urgent=urgent)

    def _fill(self, wanted: Wanted, urgent: bool, *, evict: bool = True) -> Data | None:
        start, again = wanted.number * BLOCK, False

        def fetch(seconds: float) -> Data:
            nonlocal again
            if again:
                doubt(self._files)
            again = True
            return read_range(self._files, wanted.shard.path, start, start + wanted.block.size, seconds)

        return self._cache.fill(wanted.block, fetch, seconds=self._seconds, evict=evict, through=urgent)

    def _awaited(self, wanted: Wanted, future: Future[Any], deadline: float) -> Data:
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

    def _consume(self, wanted: list[Wanted]) -> None:
        reads = {each.block.key: len(each.parts) for each in wanted}
        with self._lock:
            self._done += self._ahead.consume(reads)
            done = self._done if len(self._done) >= self._unwanted else []
            if done:
                self._done = []
        if done:
            self._cache.unwant(done)

    def _after_fork(self) -> None:
        if self._process != os.getpid():
            self._begin()

    def __reduce__(self) -> tuple[Any, ...]:
        build = partial(CachedShards, ranks=self._ranks, vouchers=self._vouchers)
        return build, (self._ref, self._files, self._shards, self._cache, self._seconds)
