"""Blocks that come from origins: kept in the block cache, brought there once for all who wait.

One fetch a block, whatever the number of clients (here) and of server processes (the cache's books). It goes on when
the clients leave. A block is seen by nobody before its digest is right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from datahub.core.digests import BLOCK
from datahub.core.errors import OriginError, OriginStalled, Problem, StoreDamaged, VerificationError
from datahub.serve.descriptors import Descriptors, Handle, look
from datahub.serve.library import Blob
from datahub.serve.metrics import Metrics
from datahub.serve.origins import POLICY
from datahub.store.cache.block import Block, Data, wrong
from datahub.store.cache.blockcache import BlockCache
from datahub.store.cache.files import Opened
from datahub.stream.fetcher import Fetcher
from datahub.stream.origin import Files
from datahub.stream.patience import read_range

THREADS = 16
"""Blocks that are brought at once."""
Elsewhere = Callable[[Blob], tuple[Files, ...]]
OPEN = 256
"""Blocks kept open at most: they cannot be evicted meanwhile."""
PINNED = 4
"""Of the cache's blocks, one in so many may be kept open."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A block that can be read: its bytes where there is no room to keep it. ``here``: no origin was asked for it."""

    data: Data | None
    here: bool


@dataclass(slots=True)
class _Found:
    """What a thread found. ``opened``: the block's file, once it is there."""

    opened: list[Opened] = field(default_factory=list)
    here: bool = False


@dataclass(frozen=True, slots=True)
class _Coming:
    """A block on its way."""

    block: Block
    future: asyncio.Future[Data | None]
    found: _Found

    def settle(self, keep: Callable[[Block, Opened], None]) -> None:
        while self.found.opened:
            keep(self.block, self.found.opened.pop())


class CachedBlocks:
    """Belongs to one event loop. ``elsewhere`` finds what is damaged in the server's own stores; ``seconds``: how long
    a block may take before its origin is reported."""

    def __init__(self, cache: BlockCache, elsewhere: Elsewhere, seconds: float, metrics: Metrics) -> None:
        self._cache, self._elsewhere, self._seconds, self._metrics = cache, elsewhere, seconds, metrics
        limit = cache.limit if cache.limit is not None else OPEN * PINNED * BLOCK
        self._descriptors = Descriptors(max(1, min(OPEN, limit // BLOCK // PINNED)))
        self._fetcher = Fetcher(THREADS)
        self._coming: dict[str, _Coming] = {}
        self._early: set[str] = set()
        self._joined: list[Block] = []
        self._blocks: dict[str, Block] = {}

    @property
    def limit(self) -> int | None:
        return self._cache.limit

    def warm(self, blob: Blob, number: int) -> Handle | None:
        """The open file of a verified block, until it is released."""
        key = blob.raw[number * 32 : (number + 1) * 32].hex()
        handle = self._descriptors.take(key)
        if handle is None:
            return None
        if handle.unchanged():
            return handle
        self._descriptors.forget(key)
        self._descriptors.give_back(handle)
        return None

    def release(self, handle: Handle) -> None:
        self._descriptors.give_back(handle)

    def start(self, blob: Blob, number: int) -> None:
        """Begin to bring a block that will be wanted."""
        block = blob.block(number)
        if block.key not in self._descriptors:
            self._bring(blob, number, block)

    async def ready(self, blob: Blob, number: int) -> Ready:
        """Wait until `warm` has the block. Raises `OriginError`s and `VerificationError`s."""
        block = blob.block(number)
        try:
            async with asyncio.timeout(self._seconds + 1):
                coming = self._bring(blob, number, block)
                # A client that leaves must not end what others wait for.
                data = await asyncio.shield(coming.future)
                coming.settle(self._keep)  # one that came just now: its callback may still be to run
                return Ready(data, coming.found.here)
        except TimeoutError as error:
            raise OriginStalled(block.name, self._seconds) from error

    @property
    def waiting(self) -> int:
        """Blocks on their way that somebody asked for."""
        return len(self._coming)

    async def prefetch(self, blob: Blob, number: int) -> bool:
        """Have a block in the cache before anybody asks for it; False where there is no room. Raises as `ready`."""
        block = blob.block(number)
        if block.key in self._coming:
            return True
        self._early.add(block.key)
        try:
            work = partial(self._early_work, blob, number, block)
            future = asyncio.wrap_future(self._fetcher.ask(block.key, work, urgent=False))
            future.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to hear it
            # The fetch goes on when whoever foresees ends: readers may have joined it.
            return await asyncio.shield(future) is not None
        finally:
            self._early.discard(block.key)

    def forget(self, blob: Blob, number: int) -> None:
        """Open the block's file anew before it is sent again."""
        self._descriptors.forget(blob.block(number).key)

    def sweep(self) -> list[Block]:
        """Close what was not used for a while; the blocks that were used lately."""
        keys = self._descriptors.sweep()
        used = [self._blocks[key] for key in keys if key in self._blocks] + self._joined
        self._joined = []
        self._blocks = {key: block for key, block in self._blocks.items() if key in self._descriptors}
        return used

    def note(self, used: list[Block]) -> None:
        """Put on the books which blocks were used; for a thread."""
        self._cache.used(used)

    def close(self) -> None:
        self._fetcher.close()
        self._descriptors.close()

    def _bring(self, blob: Blob, number: int, block: Block) -> _Coming:
        coming = self._coming.get(block.key)
        if coming is None:
            found = _Found()
            if block.key in self._early:
                self._joined.append(block)  # its reader gets the bytes that were fetched early
            work = partial(self._work, blob, number, block, found)
            future = asyncio.wrap_future(self._fetcher.ask(block.key, work, urgent=True))
            coming = self._coming[block.key] = _Coming(block, future, found)
            future.add_done_callback(lambda _: self._came(coming))
        return coming

    def _came(self, coming: _Coming) -> None:
        self._coming.pop(coming.block.key, None)
        if not coming.future.cancelled():
            coming.future.exception()  # those who waited have it
        coming.settle(self._keep)

    def _keep(self, block: Block, opened: Opened) -> None:
        self._descriptors.put(block.key, Handle(opened.descriptor, look(opened.descriptor)))
        self._blocks[block.key] = block

    def _work(self, blob: Blob, number: int, block: Block, found: _Found, urgent: bool) -> Data | None:  # noqa: ARG002 - all are
        """In a thread: the block's file in ``found``, or its bytes."""
        lent = self._cache.lend(block)
        found.here = lent is not None
        if lent is None:
            data = self._cache.fill(block, partial(self._fetch, blob, number, block), seconds=self._seconds)
            lent = self._cache.lend(block)
            if lent is None:
                return data
        found.opened.append(lent)
        return None

    def _early_work(self, blob: Blob, number: int, block: Block, urgent: bool) -> Data | None:  # noqa: ARG002
        """In a thread: the block's bytes, once they are in the cache; None where there is no room."""
        fetch = partial(self._fetch, blob, number, block)
        return self._cache.fill(block, fetch, seconds=self._seconds, through=False)

    def _fetch(self, blob: Blob, number: int, block: Block, seconds: float) -> Data:
        """The block's bytes from the first origin that has them right; else what one gave, for the cache to judge."""
        first: OriginError | VerificationError | None = None
        data: Data | None = None
        start = number * BLOCK
        sources = blob.sources or self._elsewhere(blob)
        for files in sources:
            try:
                data = read_range(files, blob.path, start, start + block.size, seconds, policy=POLICY)
            except (OriginError, VerificationError) as error:
                first = first or error
                self._metrics.failed(blob.ref)
                continue
            self._metrics.fetched(blob.ref, len(data))
            if len(sources) == 1 or wrong(block, data) is None:
                return data
        if data is not None:
            return data
        if first is None:
            gone = f"block {number} is damaged or gone here, and no origin has it"
            raise StoreDamaged(blob.ref, [Problem(blob.path, gone)])
        raise first
