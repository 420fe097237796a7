"""One process that serves: its connections, their limits, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from aiohttp import web

from datahub.core.settings import Settings
from datahub.serve.app import build
from datahub.serve.config import BACKLOG, ServeConfig, Tokens
from datahub.serve.connection import FIELD, LINE, Connection, refusing
from datahub.serve.log import Lines, access_log, libraries
from datahub.serve.reloading import read_again
from datahub.serve.state import SERVER, Server
from datahub.serve.transport import tls

IDLE = 75.0
"""Seconds that a connection without a request is kept, and that a request's headers may take."""
POLL = 0.05
SPARE = 512
"""Descriptors that are not for connections."""
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b"Datahub-Api: 1\r\nContent-Length: 85\r\n\r\n"
    b'{"error":"TooManyConnections","message":"too many connections","retryable":true}    \n'
)


class _Refusing(asyncio.Protocol):
    """A connection beyond the limit: told so, and closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(BUSY)
        transport.close()


async def serve(
    config: ServeConfig,
    settings: Settings,
    tokens: Tokens,
    listening: socket.socket,
    lines: Lines,
    *,
    ready: Callable[[], None] = lambda: None,
    stop: asyncio.Event | None = None,
) -> int:
    """Serve until a signal comes or ``stop`` is set, then end what was begun.

    Gives 0 if everything was answered, else the exit code of the signal.
    """
    raise_descriptors(config.connections + SPARE)
    with libraries(lines):
        return await _serve(config, settings, tokens, listening, lines, ready, stop or asyncio.Event())


async def _serve(
    config: ServeConfig,
    settings: Settings,
    tokens: Tokens,
    listening: socket.socket,
    lines: Lines,
    ready: Callable[[], None],
    stop: asyncio.Event,
) -> int:
    app = build(config, settings, tokens, lines.listener)
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=0.1)  # what is waited for was, by then
    context = tls(config)
    told = _on_signals(stop, lambda: read_again(app[SERVER], context, lines))
    await runner.setup()
    assert runner.server is not None
    runner.server.request_handler = refusing(runner.server.request_handler)
    listener = await asyncio.get_running_loop().create_server(
        _factory(runner.server, config.connections, lines), sock=listening, ssl=context, backlog=BACKLOG
    )
    try:
        ready()
        await stop.wait()
        app[SERVER].draining = True
        listener.close()
        runner.server.pre_shutdown()
        ended = await _drained(app[SERVER], config.drain)
    finally:
        listener.close()
        await runner.cleanup()
    return 0 if ended or not told else 128 + told[0]


def _factory(server: web.Server, most: int, lines: Lines) -> Callable[[], asyncio.BaseProtocol]:
    loop, log_class, log = asyncio.get_running_loop(), access_log(lines), logging.getLogger("datahub.access")

    def connection() -> asyncio.BaseProtocol:
        if len(server.connections) >= most:
            return _Refusing()
        return Connection(
            server,
            loop=loop,
            access_log_class=log_class,
            access_log=log,
            keepalive_timeout=IDLE,
            max_line_size=LINE,
            max_field_size=FIELD,
            auto_decompress=False,
        )

    return connection


async def _drained(server: Server, seconds: float) -> bool:
    """Whether all requests that had begun were answered in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while server.active:
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(POLL)
    return True


def _on_signals(stop: asyncio.Event, again: Callable[[], None]) -> list[int]:
    """Set ``stop`` on SIGTERM and SIGINT; the signals that came. A second one is the end at once. SIGHUP calls
    ``again``. What whoever started this process has it ignore is ignored: SIGINT is the parent's where there is one.
    """
    told: list[int] = []
    loop = asyncio.get_running_loop()

    def come(number: int) -> None:
        told.append(number)
        stop.set()
        for each in ending:
            signal.signal(each, _at_once)

    ending = [each for each in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(each) is not signal.SIG_IGN]
    with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread: whoever runs us sets `stop`
        for each in ending:
            loop.add_signal_handler(each, come, each)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, again)
        # The parent kept them from us until now: one that ends us while we start would look like a failure.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGTERM})
    return told


def _at_once(number: int, _: FrameType | None) -> None:
    """Not the default action, which the first process of a container has not."""
    os._exit(128 + number)


def raise_descriptors(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    goal = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < goal:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
