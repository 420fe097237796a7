"""``/v1/files/<dataset>[/<version>]/<name>``: published files and weights, for `datahub fetch --from` and others."""

from __future__ import annotations

from aiohttp import web

from datahub.serve import answers
from datahub.serve.sending import CHECKED, send_blob
from datahub.serve.state import SERVER
from datahub.wire.paths import FILES

BINARY = "application/octet-stream"
routes = web.RouteTableDef()


@routes.get(FILES + "/{dataset}/{name}")
@routes.get(FILES + "/{dataset}/{version}/{name}")
async def file(request: web.Request) -> web.StreamResponse:
    """Without a version: of the newest that is known."""
    parts = request.match_info
    dataset, version, name = parts["dataset"], parts.get("version"), parts["name"]
    blob = await request.app[SERVER].download(dataset, version, name)
    if blob is None:
        return answers.not_found(f"file {name} of {dataset}")
    return await send_blob(request, blob, BINARY, CHECKED)
