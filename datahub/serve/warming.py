"""Datasets brought into the cache before they are asked for, in the background of one process.

What is wanted is kept in a file beside the cache until it is done, so a server that is started again goes on; one
process at a time does it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from datahub.core import atomic
from datahub.core.errors import DatahubError
from datahub.core.refs import Ref
from datahub.serve import duty
from datahub.serve.engine import Engine
from datahub.serve.library import Blob, Variant
from datahub.store.blocks import count
from datahub.wire.messages import Warming

Look = Callable[[Ref], Awaitable[Variant | None]]

AT_ONCE = 8
"""Blocks on their way at a time."""
NO_ROOM = "the cache has no room for all of it"
EVERY = 1.0
"""Seconds between two looks at what other processes were told."""


@dataclass(frozen=True, slots=True)
class Wish:
    ref: Ref
    split: str

    @property
    def file(self) -> str:
        return f"{self.ref.name}+{self.ref.version}+{self.ref.variant}+{self.split}.json"


def blobs_of(variant: Variant, split: str) -> list[Blob]:
    """What comes from origins: all of it, or the shards of one split."""
    wanted = None if not split else {shard.path for shard in variant.record.splits[split].shards}
    return [blob for blob in variant.blobs.values() if blob.local is None and (wanted is None or blob.path in wanted)]


def _fitting(places: list[tuple[Blob, int]], limit: int | None) -> Iterator[tuple[Blob, int]]:
    """The first of these blocks, as many as the cache can hold."""
    total = 0
    for blob, number in places:
        total += blob.block(number).size
        if limit is not None and total > limit:
            return
        yield blob, number


class Warmer:
    """``want`` may be called in any process of a server; the work is done by whichever holds the lock."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self._folder, self._engine = folder, engine
        self._lock: int | None = None

    def want(self, ref: Ref, split: str, variant: Variant) -> Warming:
        """For a thread. Raises `DiskError`s."""
        total = sum(blob.size for blob in blobs_of(variant, split))
        told = Warming(ref=str(ref), bytes=total, done=0, running=total > 0)
        if total:
            self._tell(Wish(ref, split), told)
        return told

    def forget(self, ref: Ref) -> None:
        for wish, _ in self.wishes():
            if wish.ref == ref:
                (self._folder / wish.file).unlink(missing_ok=True)

    def wishes(self) -> Iterator[tuple[Wish, Warming]]:
        for path in sorted(self._folder.glob("*.json")):
            parts = path.name.removesuffix(".json").split("+")
            with suppress(OSError, msgspec.DecodeError, ValueError):
                name, version, variant, split = parts
                yield Wish(Ref(name, version, variant), split), msgspec.json.decode(path.read_bytes(), type=Warming)

    async def run(self, look: Look) -> None:
        """Do what is wished, until cancelled. ``look`` finds a variant."""
        try:
            while True:
                if await asyncio.to_thread(self._mine):
                    for wish, told in await asyncio.to_thread(lambda: list(self.wishes())):
                        if told.running:
                            await self._warm(wish, look)
                await asyncio.sleep(EVERY)
        finally:
            if self._lock is not None:
                os.close(self._lock)

    async def _warm(self, wish: Wish, look: Look) -> None:
        told = Warming(ref=str(wish.ref), bytes=0, done=0)
        try:
            variant = await look(wish.ref)
            if variant is None:
                raise LookupError(f"{wish.ref} is not known here any more")
            blobs = blobs_of(variant, wish.split)
            told = msgspec.structs.replace(told, bytes=sum(blob.size for blob in blobs))
            async for done, failed, error in self._blocks(blobs):
                told = msgspec.structs.replace(told, done=done, failed=failed, error=error)
                if not (self._folder / wish.file).exists():
                    return  # evicted meanwhile
                await asyncio.to_thread(self._tell, wish, told)
        except (DatahubError, LookupError, KeyError) as error:
            told = msgspec.structs.replace(told, error=str(error))
        with suppress(DatahubError):
            await asyncio.to_thread(self._tell, wish, msgspec.structs.replace(told, running=False))

    async def _blocks(self, blobs: list[Blob]) -> AsyncIterator[tuple[int, int, str]]:
        """Bring every block; how far it is, now and then. It ends where there is no more room: what would come then
        would go past the cache, or take the place of what came."""
        every = [(blob, number) for blob in blobs for number in range(count(blob.size))]
        places = list(_fitting(every, self._engine.limit))
        done, failed, error = 0, 0, ""
        for first in range(0, len(places), AT_ONCE):
            some = places[first : first + AT_ONCE]
            reasons = await asyncio.gather(*(self._why_not(*place) for place in some))
            for (blob, number), reason in zip(some, reasons, strict=True):
                done += 0 if reason else blob.block(number).size
                failed, error = failed + bool(reason), reason or error
            if error == NO_ROOM:
                places = places[: first + len(some)]
                break
            yield done, failed, error
        rest = len(every) - len(places)
        if rest or error == NO_ROOM:
            yield done, failed + rest, NO_ROOM

    async def _why_not(self, blob: Blob, number: int) -> str:
        """Why a block could not be brought; "" if it is here."""
        try:
            return "" if await self._engine.bring(blob, number) else NO_ROOM
        except DatahubError as error:
            return error.message

    def _mine(self) -> bool:
        """Whether this process is the one that works; the lock goes with it."""
        if self._lock is None:
            self._lock = duty.taken(self._folder, "warming")
        return self._lock is not None

    def _tell(self, wish: Wish, told: Warming) -> None:
        atomic.write_bytes(self._folder / wish.file, msgspec.json.encode(told))
