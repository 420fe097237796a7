"""Templates made into answers. Everything that is put into a template is escaped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import hdrs, web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from datahub.core.errors import DatahubError
from datahub.core.refs import Ref
from datahub.core.sizes import format_bytes
from datahub.serve import answers
from datahub.serve.pages.session import BROWSE, COOKIE, PICTURE
from datahub.serve.state import SERVER

FOLDER = Path(__file__).parent
POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""Content-Security-Policy: nothing inline, nothing from elsewhere, in nobody's frame."""
HEADERS = {
    **answers.COMMON,
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def html(request: web.Request, template: str, *, status: int = 200, **values: Any) -> web.Response:
    tokens = request.app[SERVER].tokens
    values |= {"path": request.path, "session": bool(tokens.read) and COOKIE in request.cookies}
    text = _environment().get_template(template).render(values)
    headers = {**HEADERS, hdrs.CACHE_CONTROL: "no-store"}
    return web.Response(status=status, text=text, content_type="text/html", charset="utf-8", headers=headers)


def page(handler: Handler) -> Handler:
    """What goes wrong is told on a page, with the status that programs get."""

    @wraps(handler)
    async def told(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except DatahubError as error:
            status = answers.of_error(error).status
            return html(request, "error.html", status=status, message=error.message, hint=error.next_step)

    return told


def missing(what: str) -> answers.Refusal:
    return answers.Refusal(404, "NotFound", f"There is no {what} here")


def browse_url(ref: Ref, key: str = "") -> str:
    return _url(BROWSE, ref) + (f"/{quote(key, safe='')}" if key else "")


def picture_url(ref: Ref, key: str, size: str) -> str:
    return f"{_url(PICTURE, ref)}/{quote(key, safe='')}/{size}.jpg"


def _url(base: str, ref: Ref) -> str:
    return "/".join([base, *(quote(part or "", safe="") for part in (ref.name, ref.version, ref.variant))])


@cache
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"size": format_bytes, "count": lambda value: f"{value:,}"}
    found.globals |= {"browse_url": browse_url, "picture_url": picture_url}
    return found
