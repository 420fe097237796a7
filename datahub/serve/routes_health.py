"""Who answers, whether it does, and what it counts."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from aiohttp import web

from datahub.core.errors import DatahubError
from datahub.serve import answers
from datahub.serve.metrics import TYPE, Gauges, exposition
from datahub.serve.openapi import document
from datahub.serve.state import SERVER, Server
from datahub.wire.messages import Service
from datahub.wire.paths import API, HEALTH, METRICS, NUMBER, OPENAPI, READY

routes = web.RouteTableDef()


def datahub_version() -> str:
    try:
        return version("datahub")
    except PackageNotFoundError:
        return "unknown"


@routes.get(API)
async def service(_: web.Request) -> web.StreamResponse:
    return answers.message(Service(service="datahub-cache", api=int(NUMBER), version=datahub_version()))


@routes.get(HEALTH)
async def health(_: web.Request) -> web.StreamResponse:
    """It lives."""
    return web.Response(text="ok\n", headers=answers.COMMON)


@routes.get(READY)
async def ready(request: web.Request) -> web.StreamResponse:
    """It takes requests; not while it is ending."""
    if request.app[SERVER].draining:
        return answers.failure(503, "Draining", "the server is ending")
    return web.Response(text="ready\n", headers=answers.COMMON)


@routes.get(METRICS)
async def metrics(request: web.Request) -> web.StreamResponse:
    server = request.app[SERVER]
    body = await server.in_thread(lambda: exposition(server.metrics, Gauges(lambda: gauges(server))))
    return web.Response(body=body, headers={**answers.COMMON, "Content-Type": TYPE})


@routes.get(OPENAPI)
async def openapi(_: web.Request) -> web.StreamResponse:
    return web.Response(body=document(datahub_version()), content_type=answers.JSON, headers=answers.COMMON)


def gauges(server: Server) -> dict[str, tuple[str, float]]:
    found: dict[str, tuple[str, float]] = {
        "datahub_datasets": ("Variants that are known.", len(server.library.variants())),
        "datahub_cache_limit_bytes": ("The quota; 0 where there is none.", server.cache.limit or 0),
    }
    with suppress(DatahubError):
        found["datahub_jobs"] = "Jobs that live.", len(server.jobs.alive())
    try:
        usage = server.cache.usage()
    except Exception:  # noqa: BLE001 - a disk that fails is no reason to tell nothing
        return found
    return found | {
        "datahub_cache_bytes": ("Bytes of blocks, whole and reserved.", usage.bytes),
        "datahub_cache_blocks": ("Blocks that are whole.", usage.blocks),
        "datahub_cache_filling": ("Blocks that are being fetched.", usage.filling),
    }
