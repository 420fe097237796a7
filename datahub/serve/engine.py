"""Bodies cut into pieces that can be sent at once: runs of verified bytes in open files, or bytes in memory."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from datahub.core.digests import BLOCK
from datahub.serve.descriptors import Handle
from datahub.serve.filling import CachedBlocks
from datahub.serve.library import Blob
from datahub.serve.local import LocalFiles
from datahub.serve.metrics import Metrics
from datahub.store.cache.block import Data

AHEAD = 4
"""Blocks that are brought before they are reached, for a body that had to wait."""
TRIES = 3
VERIFIERS = 4
"""Threads that verify local files."""


@dataclass(frozen=True, slots=True)
class Piece:
    """``size`` bytes at ``offset`` of an open file, or of ``data``. ``here``: no origin was waited for."""

    offset: int
    size: int
    handle: Handle | None = None
    data: Data = b""
    local: bool = False
    here: bool = True

    def bytes(self, start: int = 0, most: int | None = None) -> bytes:
        """Some of them, copied; for few."""
        at, size = self.offset + start, self.size - start if most is None else min(most, self.size - start)
        if self.handle is not None:
            return os.pread(self.handle.descriptor, size, at)
        return bytes(memoryview(self.data)[at : at + size])


class Engine:
    """Belongs to one event loop."""

    def __init__(self, blocks: CachedBlocks, metrics: Metrics) -> None:
        self._local, self._blocks, self._metrics = LocalFiles(), blocks, metrics
        self._verifiers = ThreadPoolExecutor(VERIFIERS, thread_name_prefix="datahub-verify")
        self._verifying: dict[tuple[str, int], asyncio.Future[bool]] = {}

    def warm(self, blob: Blob, start: int, end: int) -> Piece | None:
        """The first piece of a body, if it can be sent at once; given back by `release`."""
        if blob.local is not None and (found := self._local.warm(blob, start, end)) is not None:
            return Piece(start, found[1] - start, found[0], local=True)
        number = start // BLOCK
        handle = self._blocks.warm(blob, number)
        if handle is None:
            return None
        base = number * BLOCK
        return Piece(start - base, min(end, base + BLOCK) - start, handle)

    async def piece(self, blob: Blob, start: int, end: int) -> Piece:
        """The first piece of a body, brought here if need be. Raises as `CachedBlocks.ready`."""
        if (found := self.warm(blob, start, end)) is not None:
            return found
        number, base, here = start // BLOCK, start // BLOCK * BLOCK, True
        for _ in range(TRIES):  # a block may be evicted between its coming and its use
            if blob.local is not None and await self._verified(blob, number):
                self._metrics.verified(blob.ref)
            else:
                ready = await self._blocks.ready(blob, number)
                here = here and ready.here
                if ready.data is not None:
                    return Piece(start - base, min(end, base + BLOCK) - start, data=ready.data, here=here)
            if (found := self.warm(blob, start, end)) is not None:
                return replace(found, here=here)
        raise ConnectionResetError("the block was evicted again and again")

    @property
    def limit(self) -> int | None:
        """Bytes of origins' blocks that are kept at most."""
        return self._blocks.limit

    def ahead(self, blob: Blob, start: int, end: int) -> None:
        """Begin to bring the blocks after the one that ``start`` lies in."""
        first = start // BLOCK + 1
        for number in range(first, min(first + AHEAD, -(-end // BLOCK))):
            self.start(blob, number)

    def start(self, blob: Blob, number: int) -> None:
        """Begin to bring a block, where it is not here."""
        if blob.local is not None:
            if not self._local.verified(blob, number):
                self._verify(blob, number)
        elif blob.sources:
            self._blocks.start(blob, number)

    def release(self, piece: Piece) -> None:
        if piece.handle is not None:
            (self._local if piece.local else self._blocks).release(piece.handle)

    async def read(self, blob: Blob, start: int, end: int) -> bytes:
        """A few bytes, in memory."""
        found = []
        while start < end:
            piece = await self.piece(blob, start, end)
            try:
                found.append(piece.bytes())
            finally:
                self.release(piece)
            start += piece.size
        return b"".join(found)

    async def bring(self, blob: Blob, number: int) -> bool:
        """Have an origin's block in the cache; False where there is no room. Raises as `CachedBlocks.ready`."""
        return (await self._blocks.ready(blob, number)).data is None

    async def prefetch(self, blob: Blob, number: int) -> bool:
        """`bring`, behind what readers wait for; what is in the server's own store is here."""
        return blob.local is not None or await self._blocks.prefetch(blob, number)

    @property
    def waiting(self) -> int:
        """Blocks of origins that readers wait for."""
        return self._blocks.waiting

    def check(self, blob: Blob, number: int) -> bool:
        """Verify a block of the server's own store again; one that is wrong is not sent. For a thread."""
        right = self._local.verify(blob, number)
        if not right:
            self._local.distrust(blob, number)
        return right

    def distrust(self, blob: Blob, number: int) -> None:
        """Verify a block again before it is sent: it was found damaged."""
        if blob.local is not None:
            self._local.distrust(blob, number)
        else:
            self._blocks.forget(blob, number)

    async def sweep(self, every: float) -> None:
        """Close idle files and keep the cache's books, until it is cancelled."""
        while True:
            await asyncio.sleep(every)
            self._local.sweep()
            if used := self._blocks.sweep():
                await asyncio.to_thread(self._blocks.note, used)

    def close(self) -> None:
        self._verifiers.shutdown(wait=False, cancel_futures=True)
        self._local.close()
        self._blocks.close()

    async def _verified(self, blob: Blob, number: int) -> bool:
        return await asyncio.shield(self._verify(blob, number))

    def _verify(self, blob: Blob, number: int) -> asyncio.Future[bool]:
        key = (blob.sha256, number)
        coming = self._verifying.get(key)
        if coming is None:
            loop = asyncio.get_running_loop()
            coming = self._verifying[key] = loop.run_in_executor(self._verifiers, self._local.verify, blob, number)
            coming.add_done_callback(lambda _: self._verifying.pop(key, None))
        return coming
