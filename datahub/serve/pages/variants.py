"""The variant that a page's address names."""

from __future__ import annotations

from aiohttp import web

from datahub.core.refs import NAME, VARIANT, VERSION, Ref
from datahub.serve.library import Variant
from datahub.serve.pages.rendering import missing
from datahub.serve.state import SERVER


async def variant_of(request: web.Request) -> Variant:
    """Raises `Refusal` where there is none, and as `Server.variant`."""
    name, version, variant = (request.match_info[each] for each in ("name", "version", "variant"))
    if not (NAME.fullmatch(name) and VERSION.fullmatch(version) and VARIANT.fullmatch(variant)):
        raise missing("such dataset")
    ref = Ref(name, version, variant)
    found = await request.app[SERVER].variant(ref)
    if found is None:
        raise missing(f"dataset {ref}")
    return found
