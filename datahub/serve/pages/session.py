"""Who has logged in: a cookie that says until when, signed with a token, so that every process knows it.

The cookie is not the token and cannot be made into it. It opens what reading opens and nothing else, and it is no
longer good when its token is none of the server's any more.
"""

from __future__ import annotations

import hmac
import re
import time
from urllib.parse import quote

from aiohttp import hdrs, web

from datahub.serve.answers import COMMON
from datahub.serve.config import Tokens

COOKIE = "datahub-session"
LIFE = 12 * 3600
"""Seconds until one has to log in again."""
LOGIN, LOGOUT = "/login", "/logout"
STATIC = ("/static/pages.css", "/static/live.js", "/static/icon.svg")
OPEN = (LOGIN, LOGOUT, *STATIC)
"""Paths that nobody has to log in for."""
BROWSE, PICTURE, LIVE = "/browse", "/picture", "/live.json"
VALUE = re.compile(r"([0-9]{1,12})\.([0-9a-f]{64})")


def issued(token: str, now: float | None = None) -> str:
    """The cookie of somebody who has shown a token."""
    until = str(int((time.time() if now is None else now) + LIFE))
    return f"{until}.{_signed(token, until)}"


def opened(tokens: Tokens, cookie: str, now: float | None = None) -> bool:
    """Whether a cookie is one of ours and not over. Every token is compared, each in constant time."""
    match = VALUE.fullmatch(cookie)
    if match is None or not 0 < int(match[1]) - (time.time() if now is None else now) <= LIFE:
        return False
    every = (*tokens.read, *tokens.admin)
    return sum(hmac.compare_digest(_signed(token, match[1]), match[2]) for token in every) > 0


def matching(tokens: Tokens, shown: str) -> str | None:
    """The token that somebody has typed, if it is one. Every token is compared, each in constant time."""
    typed = shown.strip().encode("utf-8", "surrogateescape")
    found = [token for token in (*tokens.read, *tokens.admin) if hmac.compare_digest(token.encode(), typed)]
    return found[0] if found else None


def is_page(request: web.BaseRequest) -> bool:
    """Whether a person is asking, who can be sent to the login form."""
    return request.method == "GET" and (request.path == "/" or request.path.startswith(BROWSE + "/"))


def to_login(request: web.BaseRequest) -> web.Response:
    place = f"{LOGIN}?next={quote(request.path_qs, safe='')}"
    return web.Response(status=303, headers={**COMMON, hdrs.LOCATION: place, hdrs.CACHE_CONTROL: "no-store"})


def inside(path: str) -> str:
    """A path of this server to go on to; "/" for what is none."""
    good = re.fullmatch(r"/(?![/\\])[^\\\x00-\x20\x7f]*", path) is not None and path.isascii()
    return path if good else "/"


def _signed(token: str, until: str) -> str:
    return hmac.new(token.encode(), f"datahub pages {until}".encode(), "sha256").hexdigest()
