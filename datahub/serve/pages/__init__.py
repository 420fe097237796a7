"""Pages for people: what the server has, samples to look at, and how it does. Made by the server, without a build."""

from __future__ import annotations

from aiohttp import web

from datahub.serve.pages import browsing, home, login, pictures
from datahub.serve.pages.grid import LABELS, Labels
from datahub.serve.pages.live import PULSE, Pulse
from datahub.serve.pages.pictures import PICTURES, Pictures
from datahub.serve.state import SERVER


def add(app: web.Application) -> None:
    """Give a server its pages."""
    app[PULSE] = Pulse(app[SERVER])
    app[PICTURES] = Pictures()
    app[LABELS] = Labels(app[SERVER].engine)
    for each in (home, browsing, pictures, login):
        app.add_routes(each.routes)
    app.on_cleanup.append(_close)


async def _close(app: web.Application) -> None:
    app[PICTURES].close()
