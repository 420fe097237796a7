"""What every request passes: tokens, each client's rate, the numbers, and errors made into answers."""

from __future__ import annotations

import hmac
import time
import traceback
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from datahub.core.errors import DatahubError
from datahub.core.events import Note
from datahub.serve import answers
from datahub.serve.config import Tokens, loopback
from datahub.serve.pages import session
from datahub.serve.state import Server
from datahub.wire.paths import API, HEALTH, JOBS, READY

if TYPE_CHECKING:
    from aiohttp.typedefs import Middleware  # not in every version that is supported

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
OPEN = (API, HEALTH, READY, *session.OPEN)
"""Paths that no token is asked for."""
CLIENTS = 1 << 14
"""Clients whose rate is remembered."""
BURST = 2.0
"""Seconds of its rate that a client may use at once."""


class Rates:
    """A token bucket for each client's address. ``rate`` a second; 0 lets everything through."""

    def __init__(self, rate: float) -> None:
        self._rate, self._most = rate, max(1.0, rate * BURST)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admit(self, client: str, now: float) -> bool:
        if not self._rate:
            return True
        left, when = self._buckets.pop(client, (self._most, now))
        left = min(self._most, left + (now - when) * self._rate)
        admitted = left >= 1.0
        self._buckets[client] = (left - admitted, now)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        return admitted


def permitted(tokens: Tokens, request: web.BaseRequest) -> int:
    """200, or the status that refuses: 401 without a token that reads, 403 without one that administers.

    Without tokens whoever reaches the server may read, and administer if it listens to this machine only. With tokens
    that read and none that administers, nobody administers.
    """
    reading = request.method in ("GET", "HEAD") or request.path.startswith(JOBS)
    if request.path in OPEN:
        return 200
    if not (tokens.read or tokens.admin):
        return 200 if reading or tokens.trusting else 403
    shown = _bearer(request)
    admin = _any(tokens.admin, shown)
    if reading:
        return 200 if admin or not tokens.read or _any(tokens.read, shown) or _looks(tokens, request) else 401
    return 200 if admin else 403 if _any(tokens.read, shown) else 401


def foreign(tokens: Tokens, request: web.BaseRequest) -> bool:
    """Whether a page of another site makes a browser change something here.

    Where nothing but its address keeps others out, the page must come from this machine by name: that of another
    site can be made to stand for any address.
    """
    if request.method in ("GET", "HEAD"):
        return False
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None:
        return False
    try:
        parts = urlsplit(origin)
    except ValueError:  # no URL
        return True
    unknown = tokens.trusting and not (tokens.read or tokens.admin) and not loopback(parts.hostname or "")
    return unknown or parts.netloc != request.headers.get(hdrs.HOST)


def _looks(tokens: Tokens, request: web.BaseRequest) -> bool:
    """Whether somebody who logged in reads: their cookie changes nothing here."""
    return request.method in ("GET", "HEAD") and session.opened(tokens, request.cookies.get(session.COOKIE, ""))


def _bearer(request: web.BaseRequest) -> bytes:
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return token.strip().encode("utf-8", "surrogateescape") if scheme.lower() == "bearer" else b""


def _any(tokens: tuple[str, ...], shown: bytes) -> bool:
    """Every token is compared, each in constant time."""
    return sum(hmac.compare_digest(each.encode(), shown) for each in tokens) > 0


def middleware(server: Server) -> Middleware:
    rates, metrics = Rates(server.config.rate / server.config.workers), server.metrics

    def refusal(request: web.Request, now: float) -> web.Response | None:
        if not rates.admit(request.remote or "", now):
            metrics.refused("rate")
            return answers.failure(429, "TooManyRequests", "more requests a second than a client may make")
        if foreign(server.tokens, request):
            metrics.refused("origin")
            return answers.failure(403, "OtherSite", "a page of another site asks for this")
        status = permitted(server.tokens, request)
        if status == 200:
            return None
        metrics.refused("token")
        if status == 403:
            return answers.failure(403, "AdminOnly", "this needs an admin token")
        if session.is_page(request):
            return session.to_login(request)
        hint = "set DATAHUB_TOKEN or DATAHUB_TOKEN_FILE"
        challenge = {hdrs.WWW_AUTHENTICATE: 'Bearer realm="datahub"'}
        return answers.failure(401, "TokenWanted", "a token is wanted, or another one", hint, **challenge)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.monotonic()
        server.active += 1
        try:
            response = refusal(request, began) or await _answered(server, request, handler)
        finally:
            server.active -= 1
        route = request.match_info.route.resource
        metrics.request(
            route.canonical if route is not None else "none",
            request.method if request.method in hdrs.METH_ALL else "other",
            response.status,
            time.monotonic() - began,
        )
        return response

    return guard


async def _answered(server: Server, request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return answers.of_http(error)
    except DatahubError as error:
        return answers.of_error(error)
    except (ConnectionError, TimeoutError):
        raise
    except Exception as error:  # noqa: BLE001 - a bug is told in the log, and to the client that it is one
        text = "".join(traceback.format_exception(error))
        server.listener(Note("serve", f"a bug: {request.method} {request.path}: {text}", warning=True))
        return answers.failure(500, type(error).__name__, "a bug in datahub", "its log says more")
