"""What every handler finds in its application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from aiohttp import web

from datahub.core.errors import BadReference
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
from datahub.serve.threads import Daemons
from datahub.serve.warming import Warmer
from datahub.store.cache.blockcache import BlockCache
from datahub.store.cache.holdings import Holdings

T = TypeVar("T")
LOOKERS, ASKERS, FETCHERS = 8, 8, 4
"""Threads that look at the disk, that ask origins, and that fetch whole files: what is slow holds up only its like."""
PATIENCE = 2.0
"""Seconds that an origin has to say whether what came from it is still so; then it is served as it was."""


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
    _askers: Daemons = field(default_factory=lambda: Daemons(ASKERS, "datahub-ask"))
    _fetchers: Daemons = field(default_factory=lambda: Daemons(FETCHERS, "datahub-fetch"))
    _looking: dict[object, asyncio.Future[Any]] = field(default_factory=dict)

    @property
    def holdings(self) -> Holdings:
        return Holdings(self.cache)

    async def variant(self, ref: Ref) -> Variant | None:
        """The variant of a full reference, looked for if need be. Raises `RecordInvalid` and `OriginError`s."""
        known = self.library.known(ref)
        if known is not None:
            return known
        try:
            async with asyncio.timeout(PATIENCE if self.library.served(ref) is not None else None):
                return await self._once(ref, lambda: self._look(ref))
        except TimeoutError:
            return self.library.served(ref)

    async def blob(self, sha256: str, of: str = "") -> Blob | None:
        """``of``: the variant that it is said to be of, looked for where the digest is not known. Raises as `variant`.

        Of several servers it is another one that a client had the record from.
        """
        known = self.library.blob(sha256)
        if known is None:
            await self.search()
            known = self.library.blob(sha256)
        if known is None and of:
            with suppress(BadReference):
                ref = Ref.parse(of)
                if ref.version and ref.variant:
                    await self.variant(ref)
        return known or self.library.blob(sha256)

    async def search(self) -> None:
        """Take in what the stores have; who asks for a digest that is not known waits for it."""
        await self._once("search", lambda: self.in_thread(self.library.search))

    async def download(self, dataset: str, version: str | None, name: str) -> Blob | None:
        """A published file. Raises as `Downloads.find`."""
        loop = asyncio.get_running_loop()
        find = partial(self.downloads.find, dataset, version, name)
        return await self._once((dataset, version, name), lambda: loop.run_in_executor(self._fetchers, find))

    async def _look(self, ref: Ref) -> Variant | None:
        return await self.in_thread(lambda: self.library.here(ref)) or await self.asking(lambda: self._afar(ref))

    def _afar(self, ref: Ref) -> Variant | None:
        found = self.library.afar(ref)
        if found is None and self.ondemand is not None:
            self.ondemand.want(ref)
        return found

    async def in_thread(self, call: Callable[[], T]) -> T:
        """For what touches the disk."""
        return await asyncio.get_running_loop().run_in_executor(self._lookers, call)

    async def asking(self, call: Callable[[], T]) -> T:
        """For what may ask an origin."""
        return await asyncio.get_running_loop().run_in_executor(self._askers, call)

    async def _once(self, key: object, call: Callable[[], Awaitable[T]]) -> T:
        """The call's result; those who ask for the same meanwhile share it."""
        coming = self._looking.get(key)
        if coming is None:
            coming = self._looking[key] = asyncio.ensure_future(call())
            coming.add_done_callback(lambda done: self._came(key, done))
        return await asyncio.shield(coming)

    def _came(self, key: object, done: asyncio.Future[Any]) -> None:
        self._looking.pop(key, None)
        if not done.cancelled():
            done.exception()  # those who waited have it, if any did

    def close(self) -> None:
        for threads in (self._lookers, self._askers, self._fetchers):
            threads.shutdown(wait=False, cancel_futures=True)
        if self.ondemand is not None:
            self.ondemand.close()
        self.jobs.close()
        self.engine.close()
        self.cache.close()


SERVER: web.AppKey[Server] = web.AppKey("server", Server)
