"""Bodies of requests: small, and in time, or refused; a client that dribbles one holds its connection no longer."""

from __future__ import annotations

import asyncio

from aiohttp import web

LARGEST = 1 << 16
"""Bytes of a body at most."""
PATIENCE = 20.0
"""Seconds for it to arrive."""


async def body_of(request: web.Request) -> bytes:
    """Raises the answer 413 for one that is too large, 408 for one that is too slow, and 400 where it ends early."""
    if (request.content_length or 0) > LARGEST:
        raise web.HTTPRequestEntityTooLarge(LARGEST, request.content_length or 0)
    try:
        async with asyncio.timeout(PATIENCE):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except ConnectionError:  # the client left: nobody hears it, and it is no fault here
        raise web.HTTPBadRequest(reason="Body Ended Early") from None
