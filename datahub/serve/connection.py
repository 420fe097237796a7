"""One connection: what aiohttp would refuse in its own words, and under its own name, is said as every other error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from datahub.serve import answers

Handler = Callable[[Any], Awaitable[web.StreamResponse]]
LINE, FIELD = 4096, 8190
"""Bytes of a request line and of one header."""
TEXT = {
    400: ("the request is no HTTP, or a line of it is too long", f"lines take {LINE} bytes, headers {FIELD}"),
    500: ("a bug in datahub", "its log says more"),
    504: ("the answer was not there in time", ""),
}


class Connection(web.RequestHandler):
    """aiohttp's, but for the answers to what never reaches a handler."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Nothing of the request is repeated: it may hold a token. Raises ``ConnectionError`` where part of an
        answer was sent."""
        super().handle_error(request, status, exc, message)  # its log, and its checks
        phrase = HTTPStatus(status).phrase
        answer = answers.failure(status, phrase.replace(" ", ""), *TEXT.get(status, (phrase, "")))
        answer.force_close()
        return answer


def refusing(handler: Handler) -> Handler:
    """The application's handler; what it refuses before any middleware (an ``Expect`` header) in our form."""

    async def answered(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            return answers.of_http(error)

    return answered
