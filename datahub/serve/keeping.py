"""What a server does besides answering: it takes in its stores, warms, scrubs, foresees, keeps below the soft quota."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from importlib import import_module
from typing import Any

from aiohttp import web

from datahub.core.errors import DatahubError
from datahub.core.events import Note
from datahub.serve.scrubbing import Damaged, Scrubber
from datahub.serve.state import SERVER, Server

JOBS = 1.0
"""Seconds between two looks whether a first job has announced itself."""
TRIM = 2.0
"""Seconds between two looks at the soft quota."""


async def keeping(app: web.Application) -> AsyncIterator[None]:
    """Begin with the application, end with it."""
    server = app[SERVER]
    folder = server.cache.folder
    damaged = Damaged(folder, server.library, server.engine)
    work: list[Coroutine[Any, Any, None]] = [
        server.search(), server.warmer.run(server.variant), trimming(server), damaged.run(),
    ]  # fmt: skip
    if server.config.policy == "epoch":
        work.append(foreseeing(server))
    if server.config.scrub_rate:
        scrubber = Scrubber(
            folder, server.library, server.cache, server.engine, server.config.scrub_rate, server.metrics,
            server.listener,
        )  # fmt: skip
        work.append(scrubber.run())
    tasks = [asyncio.create_task(_told(server, each)) for each in work]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _told(server: Server, work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception as error:  # noqa: BLE001 - it would be lost with its task
        server.listener(Note("serve", f"a bug: {type(error).__name__}: {error}", warning=True))


async def foreseeing(server: Server) -> None:
    """Keep what jobs read soonest, until cancelled: from the first job on, for it imports NumPy."""
    alive = False
    while not alive:
        await asyncio.sleep(JOBS)
        with suppress(DatahubError):  # a disk that fails: jobs cannot announce themselves
            alive = bool(await asyncio.to_thread(server.jobs.alive))
    prefetching = await asyncio.to_thread(import_module, "datahub.serve.prefetching")
    cache, engine = server.cache, server.engine
    await prefetching.Prefetcher(cache.folder, server.jobs, cache, engine, server.metrics).run(server.variant)


async def trimming(server: Server) -> None:
    """Evict down to the soft quota, until cancelled: fills then find room without evicting for themselves. Without
    one, down to the quota, which may be lower than it was."""
    most = server.config.soft_quota or server.cache.limit
    while most is not None:
        with suppress(sqlite3.Error, OSError):  # a disk that fails is told about where it is used
            await asyncio.to_thread(server.holdings.trim, most)
        await asyncio.sleep(TRIM)
