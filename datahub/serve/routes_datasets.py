"""``/v1/datasets``: what there is, and the files of each variant by their names."""

from __future__ import annotations

from aiohttp import web

from datahub.core.refs import NAME, VARIANT, VERSION, Ref
from datahub.serve import answers, listing
from datahub.serve.library import Variant
from datahub.serve.samples import member, sample_blob
from datahub.serve.sending import CHECKED, send_blob, send_memory
from datahub.serve.state import SERVER
from datahub.wire.messages import Datasets
from datahub.wire.paths import BLOCKS, DATASETS, RECORD

KINDS = {
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".tar": "application/x-tar",
    ".parquet": "application/vnd.apache.parquet",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".cls": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
"""Nothing that a browser would run."""
BINARY = "application/octet-stream"
SAMPLES = "samples/"
routes = web.RouteTableDef()


@routes.get(DATASETS)
async def datasets(request: web.Request) -> web.StreamResponse:
    server = request.app[SERVER]
    return answers.message(Datasets(datasets=await server.in_thread(lambda: listing.everything(server))))


@routes.get(DATASETS + "/{name}")
async def of_name(request: web.Request) -> web.StreamResponse:
    name = request.match_info["name"]
    if not NAME.fullmatch(name):
        return answers.not_found(f"dataset {name}")
    server = request.app[SERVER]
    found = await listing.of_name(server, name)
    return answers.message(Datasets(datasets=found)) if found else answers.not_found(f"dataset {name}")


@routes.get(DATASETS + "/{name}/{version}/{variant}/{path:.+}")
async def file(request: web.Request) -> web.StreamResponse:
    parts = request.match_info
    name, version, variant, path = (parts[each] for each in ("name", "version", "variant", "path"))
    if not (NAME.fullmatch(name) and VERSION.fullmatch(version) and VARIANT.fullmatch(variant)):
        return answers.not_found(f"dataset {name}@{version}/{variant}")
    ref = Ref(name, version, variant)
    found = await request.app[SERVER].variant(ref)
    if found is None:
        return answers.not_found(f"dataset {ref}")
    if path == RECORD:
        return send_memory(request, found.data, found.etag, KINDS[".json"], CHECKED)
    if path == BLOCKS:
        return send_memory(request, found.raws, f"{found.etag}.blocks", BINARY, CHECKED)
    if path in found.blobs:
        return await send_blob(request, found.blobs[path], kind_of(path), CHECKED)
    if path.startswith(SAMPLES):
        return await _sample(request, found, path.removeprefix(SAMPLES))
    return answers.not_found(f"file {path} in {ref}")


async def _sample(request: web.Request, variant: Variant, name: str) -> web.StreamResponse:
    place = await member(request.app[SERVER].engine, variant, name)
    if place is None:
        return answers.not_found(f"sample {name} in {variant.ref}")
    blob, start, size = place
    return await sample_blob(request, blob, start, size, f"{blob.sha256[:32]}-{start}", kind_of(name))


def kind_of(path: str) -> str:
    dot = path.rfind(".")
    return KINDS.get(path[dot:].lower() if dot >= 0 else "", BINARY)
