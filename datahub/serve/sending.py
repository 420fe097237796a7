"""Answers with the bytes of a blob: conditions, ranges, and a body sent from open files without copying it."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from aiohttp import hdrs, web

from datahub.core.digests import BLOCK
from datahub.serve.answers import COMMON
from datahub.serve.config import STALL
from datahub.serve.descriptors import Handle
from datahub.serve.engine import Engine, Piece
from datahub.serve.library import Blob
from datahub.serve.state import SERVER
from datahub.store.cache.block import Data
from datahub.wire import multipart, ranges
from datahub.wire.paths import JOB
from datahub.wire.ranges import Range

STEP = 4 << 20
"""Bytes that a client must take in `STALL` seconds."""
TURN = 2 << 20
"""Bytes that are sent before others have their turn: sendfile goes on for as long as a client keeps up with it."""
COMING = 8
"""Spans whose blocks are brought while one before them is waited for."""
COPY = 256 << 10
"""Bytes copied at once where sendfile cannot be used: under TLS."""
JOB_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
IMMUTABLE = "public, max-age=31536000, immutable"
CHECKED = "no-cache"
"""May be kept, but is to be asked for again: a name may come to stand for other bytes."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request's headers leave to send: ``spans`` of the whole, or nothing but a ``status``."""

    status: int
    spans: tuple[Range, ...] = ()

    @property
    def span(self) -> Range | None:
        """The first, which is the only one where `select` was not asked for ``several``."""
        return self.spans[0] if self.spans else None


class BlobResponse(web.StreamResponse):
    """``sent``: bytes that went past aiohttp's own count; ``waited``: seconds for blocks that were not here;
    ``broken``: why not all of it was sent."""

    sent = 0
    waited = 0.0
    broken = ""


def job_of(request: web.BaseRequest) -> str:
    """The job that a client says it asks for; "" for none, or for what is no name."""
    job = request.headers.get(JOB, "")
    return job if job and JOB_NAME.fullmatch(job) else ""


async def send_blob(request: web.Request, blob: Blob, kind: str, caching: str) -> web.StreamResponse:
    """Answer GET or HEAD for a blob. Raises `DatahubError`s before the first byte; later ones end the connection."""
    wanted = select(request, blob.sha256, blob.size, several=True)
    headers = {**COMMON, hdrs.ETAG: f'"{blob.sha256}"', hdrs.ACCEPT_RANGES: "bytes", hdrs.CACHE_CONTROL: caching}
    if not wanted.spans and wanted.status != 200:
        if wanted.status == 416:
            headers[hdrs.CONTENT_RANGE] = f"bytes */{blob.size}"
        return web.Response(status=wanted.status, headers=headers)
    spans = wanted.spans or (Range(0, blob.size),)
    heads: list[bytes] = []
    if len(spans) > 1:
        boundary = _boundary()
        heads = [multipart.head_of(boundary, kind, span, blob.size) for span in spans]
        heads.append(multipart.end_of(boundary))
        kind = f"{multipart.KIND}; boundary={boundary}"
    elif wanted.status == 206:
        headers[hdrs.CONTENT_RANGE] = spans[0].content(blob.size)
    headers[hdrs.CONTENT_TYPE] = kind
    size = sum(span.size for span in spans) + sum(map(len, heads))
    headers[hdrs.CONTENT_LENGTH] = str(size)
    response = BlobResponse(status=wanted.status, headers=headers)
    if request.method == "HEAD" or size == 0:
        return response
    await _Body(request, blob, spans, heads).send(response)
    return response


def send_memory(request: web.Request, data: Data, etag: str, kind: str, caching: str) -> web.Response:
    """Answer with a small file that is held in memory."""
    wanted = select(request, etag, len(data))
    headers = {**COMMON, hdrs.ETAG: f'"{etag}"', hdrs.CACHE_CONTROL: caching, hdrs.ACCEPT_RANGES: "bytes"}
    if wanted.status in (304, 412):
        return web.Response(status=wanted.status, headers=headers)
    if wanted.status == 416:
        return web.Response(status=416, headers={**headers, hdrs.CONTENT_RANGE: f"bytes */{len(data)}"})
    headers[hdrs.CONTENT_TYPE] = kind
    body = memoryview(data)
    if wanted.span is not None:
        headers[hdrs.CONTENT_RANGE] = wanted.span.content(len(data))
        body = body[wanted.span.start : wanted.span.end]
    return web.Response(status=wanted.status, body=bytes(body), headers=headers)


def select(request: web.Request, etag: str, size: int, *, several: bool = False) -> Wanted:
    """RFC 9110, 13.2.2 for a strong ETag and no date. ``several``: whether more ranges than one may be sent."""
    headers = request.headers
    if (match := headers.get(hdrs.IF_MATCH)) is not None and not _matches(match, etag, weak=False):
        return Wanted(412)
    if (match := headers.get(hdrs.IF_NONE_MATCH)) is not None and _matches(match, etag, weak=True):
        return Wanted(304)
    asked = headers.get(hdrs.RANGE)
    if asked is None or request.method != "GET" or headers.get(hdrs.IF_RANGE, f'"{etag}"').strip() != f'"{etag}"':
        return Wanted(200)
    try:
        spans = ranges.parse_many(asked, size)
    except ranges.Unsatisfiable:
        return Wanted(416)
    return Wanted(206, spans) if len(spans) == 1 or (spans and several) else Wanted(200)


def _matches(header: str, etag: str, *, weak: bool) -> bool:
    tags = [each.strip() for each in header.split(",")]
    return "*" in tags or f'"{etag}"' in tags or (weak and f'W/"{etag}"' in tags)


class _Body:
    """One body on its way. ``heads``: what stands before each of several spans, and after the last."""

    def __init__(self, request: web.Request, blob: Blob, spans: Sequence[Range], heads: Sequence[bytes]) -> None:
        self._request, self._blob, self._spans, self._heads = request, blob, spans, heads
        self._at, self._end = spans[0].start, spans[0].end
        self._server = request.app[SERVER]
        self._engine: Engine = self._server.engine
        self._job = job_of(request)
        self._waited = 0.0
        self._sent = 0
        self._turn = TURN
        self._missed = False

    async def send(self, response: BlobResponse) -> None:
        request = self._request
        piece = await self._next(self._spans[1 : 1 + COMING])
        if self._heads:
            _cork(request.transport, 1)
        try:
            await response.prepare(request)
        except ConnectionError:
            self._engine.release(piece)
            response.broken = "the client left"
            return
        try:
            await (self._parts if self._heads else self._all)(response, piece)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the client left, or the rest cannot be had
            # What was promised by Content-Length cannot be sent: only a broken connection says so.
            response.broken = f"{type(error).__name__}: {error}"
            if request.transport is not None:
                request.transport.abort()
        finally:
            response.sent, response.waited = self._sent, self._waited
            self._server.metrics.sent(self._blob.ref, self._sent, self._job, self._waited)

    async def _parts(self, response: web.StreamResponse, piece: Piece) -> None:
        """Several spans, each behind its head."""
        for number, span in enumerate(self._spans):
            if number:
                self._at, self._end = span.start, span.end
                piece = await self._next(self._spans[number + 1 : number + 1 + COMING])
            try:
                await response.write(self._heads[number])
            except BaseException:
                self._engine.release(piece)
                raise
            await self._all(response, piece)
            if self._sent >= self._turn:
                self._turn = self._sent + TURN
                await asyncio.sleep(0)
        await response.write(self._heads[-1])
        _cork(self._request.transport, 0)

    async def _all(self, response: web.StreamResponse, piece: Piece) -> None:
        """What is left of the span at hand."""
        while True:
            try:
                await self._one(response, piece)
            finally:
                self._engine.release(piece)
            self._sent += piece.size
            self._at += piece.size
            if self._at >= self._end:
                return
            piece = await self._next()

    async def _next(self, coming: Sequence[Range] = ()) -> Piece:
        """The next piece; once one had to be waited for, those after it are fetched ahead, and ``coming`` spans."""
        engine, metrics = self._engine, self._server.metrics
        piece = engine.warm(self._blob, self._at, self._end)
        self._missed = self._missed or piece is None
        if self._missed:
            engine.ahead(self._blob, self._at, self._end)
            for span in coming:
                engine.start(self._blob, span.start // BLOCK)
        if piece is not None:
            metrics.asked(self._blob.ref, self._job, hit=True)
            return piece
        began, here = time.monotonic(), False
        try:
            piece = await engine.piece(self._blob, self._at, self._end)
            here = piece.here
        finally:
            self._waited += time.monotonic() - began
            metrics.asked(self._blob.ref, self._job, hit=here)
        return piece

    async def _one(self, response: web.StreamResponse, piece: Piece) -> None:
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError("the client left")
        sent = 0 if piece.handle is None or self._request.secure else _at_once(transport, piece.handle, piece)
        if sent < piece.size:
            async with asyncio.timeout(STALL * max(1, piece.size // STEP)):
                await self._rest(response, transport, piece, sent)

    async def _rest(
        self, response: web.StreamResponse, transport: asyncio.Transport, piece: Piece, start: int
    ) -> None:  # fmt: skip
        """What is left of a piece, as fast as the client takes it."""
        if piece.handle is None:
            await response.write(memoryview(piece.data)[piece.offset : piece.offset + piece.size])
        elif self._request.secure:
            for at in range(start, piece.size, COPY):
                await asyncio.sleep(0)  # writing waits for a client that is slow, and for no other
                await response.write(piece.bytes(at, COPY))
        else:
            loop, handle = asyncio.get_running_loop(), cast(Any, piece.handle)
            for at in range(start, piece.size, TURN):
                await asyncio.sleep(0)
                size = min(TURN, piece.size - at)
                if await loop.sendfile(transport, handle, piece.offset + at, size) != size:
                    raise ConnectionResetError("the file ended early")


def _at_once(transport: asyncio.Transport, handle: Handle, piece: Piece) -> int:
    """Bytes of a piece that the connection takes without waiting: for small ones all of them.

    The loop's own sendfile registers the socket four times with the selector, which costs more than the bytes.
    """
    if transport.get_write_buffer_size() or transport.is_closing():
        return 0
    socket = transport.get_extra_info("socket")
    try:
        return os.sendfile(socket.fileno(), handle.descriptor, piece.offset, min(piece.size, TURN))
    except BlockingIOError:
        return 0


@cache
def _boundary() -> str:
    """Of this process: clients compile what they look for, and keep it."""
    return secrets.token_hex(16)


def _cork(transport: asyncio.Transport | None, on: int) -> None:
    """Let heads travel with the bytes after them; without it each is a packet, and wakes the client."""
    found = None if transport is None else transport.get_extra_info("socket")
    if found is not None and hasattr(socket, "TCP_CORK"):
        with suppress(OSError):
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, on)
