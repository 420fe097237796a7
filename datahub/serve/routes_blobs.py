"""``/v1/blobs/<sha256>``: files by their digest, which never change; and the digests of their blocks."""

from __future__ import annotations

from aiohttp import web

from datahub.serve import answers
from datahub.serve.sending import IMMUTABLE, send_blob, send_memory
from datahub.serve.state import SERVER
from datahub.wire.paths import BLOBS, OF

BINARY = "application/octet-stream"
routes = web.RouteTableDef()


@routes.get(BLOBS + "/{sha256:[0-9a-f]{64}}")
async def blob(request: web.Request) -> web.StreamResponse:
    sha256 = request.match_info["sha256"]
    found = await request.app[SERVER].blob(sha256, request.query.get(OF, ""))
    if found is None:
        return answers.not_found(f"blob {sha256}")
    return await send_blob(request, found, BINARY, IMMUTABLE)


@routes.get(BLOBS + "/{sha256:[0-9a-f]{64}}/blocks")
async def blocks(request: web.Request) -> web.StreamResponse:
    sha256 = request.match_info["sha256"]
    found = await request.app[SERVER].blob(sha256)
    if found is None:
        return answers.not_found(f"blob {sha256}")
    return send_memory(request, found.raw, f"{sha256}.blocks", BINARY, IMMUTABLE)
