"""The application: everything a server process is made of, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from aiohttp import web

from datahub.core.events import Listener
from datahub.core.settings import Settings
from datahub.serve import pages, routes_blobs, routes_cache, routes_datasets, routes_files, routes_health, routes_jobs
from datahub.serve.bodies import LARGEST
from datahub.serve.config import ServeConfig, Tokens, cache_folder
from datahub.serve.downloads import Downloads
from datahub.serve.engine import Engine
from datahub.serve.filling import CachedBlocks
from datahub.serve.guard import middleware
from datahub.serve.jobs import Jobs
from datahub.serve.keeping import keeping
from datahub.serve.library import Library
from datahub.serve.metrics import Metrics
from datahub.serve.ondemand import OnDemand
from datahub.serve.origins import Origin
from datahub.serve.shelf import Shelf
from datahub.serve.state import SERVER, Server
from datahub.serve.warming import Warmer
from datahub.store.cache.blockcache import BlockCache

SWEEP = 2.0
"""Seconds between two looks at what may be closed."""
TABLES: Sequence[web.RouteTableDef] = (
    routes_health.routes,
    routes_datasets.routes,
    routes_blobs.routes,
    routes_files.routes,
    routes_jobs.routes,
    routes_cache.routes,
)
SHELF, DIGESTS, WARMING = "records", "digests", "warming"


def build(config: ServeConfig, settings: Settings, tokens: Tokens, listener: Listener) -> web.Application:
    """An application that is ready once its start-up hooks ran; to be called within its event loop."""
    folder = cache_folder(config, settings)
    metrics = Metrics()
    limit = config.quota if config.quota is not None else settings.cache_limit
    cache = BlockCache(folder, limit, lru=config.policy == "lru", listener=listener)
    origins = [Origin(url, config.origin_timeout) for url in config.origin]
    library = Library(settings, origins, Shelf(folder / SHELF, listener), listener)
    engine = Engine(CachedBlocks(cache, library.elsewhere, config.origin_timeout, metrics), metrics)
    downloads = Downloads(settings, folder / DIGESTS, listener, fetching=config.allow_fetch)
    ondemand = OnDemand(settings, listener) if config.allow_fetch else None
    warmer = Warmer(folder / WARMING, engine)
    server = Server(
        config, settings, tokens, library, cache, engine, metrics, listener, downloads, Jobs(folder), warmer, ondemand
    )
    app = web.Application(middlewares=[middleware(server)], client_max_size=LARGEST)
    app[SERVER] = server
    for table in TABLES:
        app.add_routes(table)
    pages.add(app)
    app.cleanup_ctx.extend([_alive, keeping])
    return app


async def _alive(app: web.Application) -> AsyncIterator[None]:
    server = app[SERVER]
    sweeping = asyncio.create_task(server.engine.sweep(SWEEP))
    yield
    sweeping.cancel()
    server.close()
