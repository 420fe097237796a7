"""The login form, for servers that ask for a token; and the files that pages need."""

from __future__ import annotations

from urllib.parse import parse_qsl

from aiohttp import hdrs, web

from datahub.serve.bodies import body_of
from datahub.serve.pages.rendering import FOLDER, HEADERS, html, missing, page
from datahub.serve.pages.session import COOKIE, LIFE, LOGIN, STATIC, inside, issued, matching
from datahub.serve.state import SERVER

TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


async def form(request: web.Request) -> web.StreamResponse:
    return html(request, "login.html", going=inside(request.query.get("next", "/")), wrong=False)


async def login(request: web.Request) -> web.StreamResponse:
    server = request.app[SERVER]
    sent = dict(parse_qsl((await body_of(request)).decode("utf-8", "replace")))
    going = inside(sent.get("next", "/"))
    token = matching(server.tokens, sent.get("token", ""))
    if token is None:
        server.metrics.refused("token")
        return html(request, "login.html", status=401, going=going, wrong=True)
    answer = _onward(going)
    secure = server.config.scheme == "https"
    answer.set_cookie(
        COOKIE, issued(token), max_age=LIFE, httponly=True, samesite="Strict", secure=secure, path="/"
    )  # fmt: skip
    return answer


async def logout(_: web.Request) -> web.StreamResponse:
    answer = _onward(LOGIN)
    answer.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")
    return answer


@page
async def static(request: web.Request) -> web.StreamResponse:
    if request.path not in STATIC:
        raise missing("such file")
    path = FOLDER / "static" / request.match_info["name"]
    headers = {**HEADERS, hdrs.CACHE_CONTROL: "max-age=300"}
    return web.Response(body=path.read_bytes(), content_type=TYPES[path.suffix], charset="utf-8", headers=headers)


def _onward(path: str) -> web.Response:
    return web.Response(status=303, headers={**HEADERS, hdrs.LOCATION: path, hdrs.CACHE_CONTROL: "no-store"})
