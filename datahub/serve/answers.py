"""Answers that are not blobs: JSON messages, and errors, which are one JSON object each."""

from __future__ import annotations

from typing import Any

from aiohttp import hdrs, web

from datahub.core.errors import (
    ActionNeeded,
    BeingFetched,
    DatahubError,
    DiskError,
    NotInStore,
    Offline,
    OriginError,
    OriginStalled,
    UsageError,
    VerificationError,
)
from datahub.wire import messages
from datahub.wire.messages import Failure, Message
from datahub.wire.paths import NUMBER, VERSION

COMMON = {VERSION: NUMBER, hdrs.SERVER: "datahub", "X-Content-Type-Options": "nosniff"}
"""Headers of every answer."""
JSON = "application/json"
SOON = "1"
"""Seconds after which a client that was refused may ask again."""
LATER = "10"
"""The same, for work that takes long."""
STATUS: tuple[tuple[type[DatahubError], int], ...] = (
    (NotInStore, 404),
    (BeingFetched, 503),
    (OriginStalled, 504),
    (OriginError, 502),
    (Offline, 502),
    (VerificationError, 502),
    (UsageError, 400),
    (DiskError, 503),
    (ActionNeeded, 502),
)
"""The first that an error is says the status; others are a bug: 500."""


class Refusal(DatahubError):
    """What a client asked that cannot be, with the status that says so."""

    def __init__(self, status: int, kind: str, message: str, next_step: str = "") -> None:
        super().__init__(message, next_step)
        self.status, self.kind = status, kind


def message(body: Message, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, body=messages.encode(body), content_type=JSON, headers={**COMMON, **(headers or {})}
    )


def failure(status: int, error: str, text: str, next_step: str = "", **headers: str) -> web.Response:
    retryable = status in (429, 502, 503, 504)
    if status in (429, 503):
        headers.setdefault(hdrs.RETRY_AFTER, SOON)
    return message(
        Failure(error=error, message=text, next=next_step, retryable=retryable), status=status, headers=headers
    )


def not_found(what: str) -> web.Response:
    return failure(404, "NotFound", f"there is no {what} here")


def of_error(error: DatahubError) -> web.Response:
    """What went wrong, in its own words; without the server's own paths where they are no business of a client's."""
    if isinstance(error, Refusal):
        return failure(error.status, error.kind, error.message, error.next_step)
    status = next((number for kind, number in STATUS if isinstance(error, kind)), 500)
    body = Failure(error=type(error).__name__, message=error.message, next=error.next_step, retryable=error.retryable)
    after = LATER if isinstance(error, BeingFetched) else SOON
    headers: dict[str, Any] = {hdrs.RETRY_AFTER: after} if status == 503 else {}
    return message(body, status=status, headers=headers)


def of_http(error: web.HTTPException) -> web.Response:
    """What aiohttp refuses by itself: unknown paths, methods, bodies that are too large."""
    headers = {hdrs.ALLOW: error.headers[hdrs.ALLOW]} if hdrs.ALLOW in error.headers else {}
    return failure(error.status, error.reason.replace(" ", ""), error.reason, **headers)
