"""What every handler finds in its application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

from datahub.core.events import Listener
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.serve.config import ServeConfig, Tokens
from datahub.serve.downloads import Downloads
from datahub.serve.engine import Engine
from datahub.serve.jobs import Jobs
from datahub.serve.library import Blob, Library, Variant
from datahub.serve.metrics import Metrics
from datahub.serve.ondemand import OnDemand
from datahub.serve.warming import Warmer
from datahub.store.cache.blockcache import BlockCache
from datahub.store.cache.holdings import Holdings

T = TypeVar("T")
LOOKERS = 8
"""Threads that look for variants."""


@dataclass(slots=True)
class Server:
    """One process's server. ``draining``: it answers the ``active`` requests it has begun, and is not
    ready for more."""

    config: ServeConfig
    settings: Settings
    tokens: Tokens
    library: Library
    cache: BlockCache
    engine: Engine
    metrics: Metrics
    listener: Listener
    downloads: Downloads
    jobs: Jobs
    warmer: Warmer
    ondemand: OnDemand | None = None
    """Where datasets of the registry are fetched for whoever asks."""
    draining: bool = False
    active: int = 0
    _lookers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(LOOKERS, "datahub-look"))
    _looking: dict[object, asyncio.Future[Any]] = field(default_factory=dict)

    @property
    def holdings(self) -> Holdings:
        return Holdings(self.cache)

    async def variant(self, ref: Ref) -> Variant | None:
        """The variant of a full reference, looked for if need be. Raises `RecordInvalid` and `OriginError`s."""
        known = self.library.known(ref)
        return known if known is not None else await self._once(ref, lambda: self._look(ref))

    async def blob(self, sha256: str) -> Blob | None:
        known = self.library.blob(sha256)
        if known is None:
            await self.search()
        return known or self.library.blob(sha256)

    async def search(self) -> None:
        """Take in what the stores have; who asks for a digest that is not known waits for it."""
        await self._once("search", self.library.search)

    async def download(self, dataset: str, version: str | None, name: str) -> Blob | None:
        """A published file. Raises as `Downloads.find`."""
        return await self._once((dataset, version, name), lambda: self.downloads.find(dataset, version, name))

    def _look(self, ref: Ref) -> Variant | None:
        found = self.library.look(ref)
        if found is None and self.ondemand is not None:
            self.ondemand.want(ref)
        return found

    async def in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._lookers, call)

    async def _once(self, key: object, call: Callable[[], T]) -> T:
        """The call's result; those who ask for the same meanwhile share it."""
        coming = self._looking.get(key)
        if coming is None:
            coming = self._looking[key] = asyncio.ensure_future(self.in_thread(call))
            coming.add_done_callback(lambda _: self._looking.pop(key, None))
        return await asyncio.shield(coming)

    def close(self) -> None:
        self._lookers.shutdown(wait=False, cancel_futures=True)
        if self.ondemand is not None:
            self.ondemand.close()
        self.jobs.close()
        self.engine.close()
        self.cache.close()


SERVER: web.AppKey[Server] = web.AppKey("server", Server)
