"""``/``: how the server does, its jobs, and its datasets; ``/live.json``: the numbers again, for a page that stays."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import hdrs, web

from datahub.core.refs import Ref
from datahub.serve import listing
from datahub.serve.library import Variant
from datahub.serve.pages.grid import first_split
from datahub.serve.pages.live import PULSE, Now, told
from datahub.serve.pages.rendering import HEADERS, html, page
from datahub.serve.state import SERVER, Server
from datahub.store.paths import key_of
from datahub.wire.messages import DatasetInfo

SHOWN = 4
"""Pictures of a dataset on the first page."""


@dataclass(frozen=True, slots=True)
class Line:
    """A variant in the list. ``keys``: samples whose pictures are shown; none where that would fetch from an origin."""

    ref: Ref
    info: DatasetInfo
    here: float
    hits: int
    sent: float
    keys: tuple[str, ...]


@page
async def home(request: web.Request) -> web.StreamResponse:
    server, pulse = request.app[SERVER], request.app[PULSE]

    def work() -> tuple[Now, list[Line]]:
        now = pulse.look()
        return now, _lines(server, now)

    now, lines = await server.in_thread(work)
    return html(request, "home.html", now=told(now), lines=lines, origins=len(server.library.origins()))


async def live(request: web.Request) -> web.StreamResponse:
    now = await request.app[SERVER].in_thread(request.app[PULSE].look)
    return web.json_response(told(now), headers={**HEADERS, hdrs.CACHE_CONTROL: "no-store"})


def _lines(server: Server, now: Now) -> list[Line]:
    infos = listing.everything(server)
    known = {str(each.ref): each for each in server.library.variants()}
    return [_line(info, known, now) for info in infos]


def _line(info: DatasetInfo, known: dict[str, Variant], now: Now) -> Line:
    ref = Ref(info.name, info.version, info.variant)
    here = 1.0 if info.local or not info.bytes else min(1.0, now.cached.get(str(ref), 0) / info.bytes)
    variant = known.get(str(ref))
    keys = _keys(variant) if variant is not None and here == 1.0 else ()
    return Line(ref, info, here, int(now.hits.get(str(ref), 0)), now.sent_by.get(str(ref), 0.0), keys)


def _keys(variant: Variant) -> tuple[str, ...]:
    """Samples from all over a split: neighbours are often of one class."""
    if "image" not in variant.record.fields or not variant.record.splits:
        return ()
    name = first_split(variant.record)
    split = variant.record.splits[name]
    rows = sorted({split.samples * n // SHOWN for n in range(SHOWN)}) if split.samples else []
    return tuple(key_of(name, split.number(row)) for row in rows)
