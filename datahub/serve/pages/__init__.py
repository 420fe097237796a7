"""Pages for people: what the server has, samples to look at, and how it does. Made by the server, without a build.

What makes them (NumPy, Pillow, Jinja) is imported when the first page is asked for, so that a server that was killed
answers its jobs again at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module

from aiohttp import web

from datahub.serve.pages.live import PULSE, Pulse
from datahub.serve.pages.made import MADE, Made
from datahub.serve.pages.session import BROWSE, LIVE, LOGIN, LOGOUT, PICTURE
from datahub.serve.state import SERVER

VARIANT = "/{name}/{version}/{variant}"
PAGES = (
    ("/", "home", "home"),
    (LIVE, "home", "live"),
    (BROWSE + VARIANT, "browsing", "browse"),
    (BROWSE + VARIANT + "/{key}", "browsing", "sample"),
    (PICTURE + VARIANT + "/{key}/{size}.jpg", "pictures", "picture"),
    (LOGIN, "login", "form"),
    ("/static/{name}", "login", "static"),
)
"""Path, module and function of what is looked at."""
FORMS = ((LOGIN, "login", "login"), (LOGOUT, "login", "logout"))
"""The same, of what is sent."""


def add(app: web.Application) -> None:
    """Give a server its pages."""
    app[PULSE] = Pulse(app[SERVER])
    app[MADE] = Made(app[SERVER].engine)
    for path, module, name in PAGES:
        app.router.add_get(path, _later(module, name))
    for path, module, name in FORMS:
        app.router.add_post(path, _later(module, name))
    app.on_cleanup.append(_close)


def _later(module: str, name: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(request: web.Request) -> web.StreamResponse:
        """Imports in a thread: other requests are answered meanwhile."""
        found = await request.app[SERVER].in_thread(lambda: import_module(f"{__name__}.{module}"))
        answer: web.StreamResponse = await getattr(found, name)(request)
        return answer

    return handler


async def _close(app: web.Application) -> None:
    app[MADE].close()
