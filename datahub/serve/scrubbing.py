"""Verifying what is on the disk again and again, at a set rate, by one process of a server.

A disk may change bytes without changing a file's times, which is all that is looked at when a block is sent. What the
scrubber finds wrong is taken away and fetched again; what is wrong in the server's own store is never sent, comes from
an origin where one has it, and is told about.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from datahub.core.errors import DatahubError
from datahub.core.events import Listener, Note
from datahub.serve import duty
from datahub.serve.engine import Engine
from datahub.serve.library import Blob, Library
from datahub.serve.metrics import Metrics
from datahub.store.blocks import count
from datahub.store.cache.blockcache import BlockCache

PAUSE = 60.0
"""Seconds between two rounds, and between two attempts to be the process that scrubs."""
LOOK = 1.0
"""Seconds between two looks at what other processes found damaged."""
DAMAGED = "damaged"


@dataclass(slots=True)
class Round:
    """``verified`` bytes, ``wrong`` blocks, those of them that were ``repaired``."""

    verified: int = 0
    wrong: int = 0
    repaired: int = 0


class Scrubber:
    """``rate``: bytes a second."""

    def __init__(
        self, folder: Path, library: Library, cache: BlockCache, engine: Engine, rate: int, metrics: Metrics,
        listener: Listener,
    ) -> None:  # fmt: skip
        self._folder, self._library, self._cache, self._engine = folder, library, cache, engine
        self._rate, self._metrics, self._listener = rate, metrics, listener

    async def run(self) -> None:
        """Scrub until cancelled."""
        while (lock := await asyncio.to_thread(duty.taken, self._folder, "scrubbing")) is None:
            await asyncio.sleep(PAUSE)
        try:
            while True:
                await asyncio.sleep(PAUSE)
                await self.round()
        finally:
            os.close(lock)

    async def round(self) -> Round:
        """Everything once."""
        found = Round()
        for variant in self._library.variants():
            for blob in variant.blobs.values():
                for number in range(count(blob.size)):
                    await self._block(blob, number, found)
        return found

    async def _block(self, blob: Blob, number: int, found: Round) -> None:
        began = time.monotonic()
        right = await asyncio.to_thread(self._right, blob, number)
        if right is None:
            return
        size = blob.block(number).size
        found.verified += size
        self._metrics.scrubbed(blob.ref, size, wrong=not right)
        if not right:
            found.wrong += 1
            found.repaired += await self._repair(blob, number)
        if self._rate:
            await asyncio.sleep(max(0.0, size / self._rate - (time.monotonic() - began)))

    def _right(self, blob: Blob, number: int) -> bool | None:
        """Whether the block on the disk is what it should be; None where it is not there."""
        if blob.local is not None:
            return self._engine.check(blob, number)
        block = blob.block(number)
        opened = self._cache.lend(block)
        if opened is None:
            return None
        try:
            return hashlib.sha256(opened.read(0, opened.size)).digest() == block.sha256
        except OSError:
            return False
        finally:
            os.close(opened.descriptor)

    async def _repair(self, blob: Blob, number: int) -> bool:
        block = blob.block(number)
        self._engine.distrust(blob, number)
        await asyncio.to_thread(self._mark, blob, number)
        if blob.local is None:
            await asyncio.to_thread(self._cache.drop, block)
        try:
            await self._engine.bring(blob, number)
        except DatahubError as error:
            self._listener(Note("serve", f"{block.name} is damaged on disk: {error.message}", warning=True))
            return False
        where = "in the store; its origin's is served" if blob.local is not None else "on disk and was fetched again"
        self._listener(Note("serve", f"{block.name} was damaged {where}", warning=True))
        return True

    def _mark(self, blob: Blob, number: int) -> None:
        """Tell the server's other processes, see `Damaged`."""
        with suppress(OSError):
            path = self._folder / DAMAGED / f"{blob.sha256}.{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


class Damaged:
    """What some process's scrubber found, for every process: it verifies those blocks again before it sends them."""

    def __init__(self, folder: Path, library: Library, engine: Engine) -> None:
        self._folder, self._library, self._engine = folder / DAMAGED, library, engine
        self._seen: dict[str, float] = {}

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            for name in await asyncio.to_thread(self._new):
                sha256, _, number = name.partition(".")
                blob = self._library.blob(sha256)
                if blob is not None and number.isdigit() and int(number) < count(blob.size):
                    self._engine.distrust(blob, int(number))
            await asyncio.sleep(LOOK)

    def _new(self) -> list[str]:
        found = {}
        with suppress(OSError), os.scandir(self._folder) as entries:
            found = {each.name: each.stat().st_mtime for each in entries}
        new = [name for name, when in found.items() if self._seen.get(name) != when]
        self._seen = found
        return new
