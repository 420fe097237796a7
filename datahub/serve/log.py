"""The server's log: one JSON object a line, for each request and for what an operator should know.

Lines are written by a thread of their own, so that a reader that stalls stalls no client. Nothing of a request's
headers or query is logged, so no token is.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import HttpProcessingError

from datahub.core.errors import from_oserror
from datahub.core.events import Event, Note
from datahub.serve.sending import job_of

WAITING = 20_000
"""Lines that wait to be written; further ones are dropped, and counted."""
TOGETHER = 256
OFF, STDERR = "off", "-"
LIBRARIES = ("aiohttp.server", "asyncio")


class Lines:
    """A log at ``where``: a file, ``-`` (standard error) or ``off``. Several processes may append to one."""

    def __init__(self, where: str) -> None:
        self.off = where == OFF
        self._descriptor = sys.stderr.fileno() if where in (OFF, STDERR) else _opened(Path(where))
        self._queue: Queue[bytes | None] = Queue(WAITING)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="datahub-log", daemon=True)
        self._thread.start()

    def put(self, facts: dict[str, Any]) -> None:
        try:
            self._queue.put_nowait(msgspec.json.encode(facts) + b"\n")
        except Full:
            self._dropped += 1

    def listener(self, event: Event) -> None:
        """Notes as lines; progress is no matter of a log."""
        if isinstance(event, Note):
            level = "warning" if event.warning else "info"
            self.put({"time": now(), "level": level, "stage": event.stage, "message": event.message})

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(5.0)

    def _write(self) -> None:
        while (line := self._queue.get()) is not None:
            lines, ended = [line], False
            with suppress(Empty):
                while len(lines) < TOGETHER:
                    more = self._queue.get_nowait()
                    if more is None:
                        ended = True
                        break
                    lines.append(more)
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                lines.append(msgspec.json.encode({"time": now(), "level": "warning", "dropped": dropped}) + b"\n")
            with suppress(OSError):
                os.write(self._descriptor, b"".join(lines))
            if ended:
                return


class AccessLog(AbstractAccessLogger):
    """What aiohttp calls after each answer, broken requests among them; see `access_log`."""

    lines: Lines

    @property
    def enabled(self) -> bool:
        return not self.lines.off

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        facts = {
            "time": now(),
            "client": request.remote,
            "method": request.method,
            "path": request.path,
            "status": response.status,
            "bytes": getattr(response, "sent", 0) or response.body_length,
            "ms": round(1000 * time, 2),
        }
        if waited := getattr(response, "waited", 0.0):
            facts["waited_ms"] = round(1000 * waited, 2)
        if broken := getattr(response, "broken", ""):
            facts["broken"] = broken
        if job := job_of(request):
            facts["job"] = job
        self.lines.put(facts)


def access_log(lines: Lines) -> type[AccessLog]:
    """The class that aiohttp makes for each connection, with the log in it."""
    return type("AccessLog", (AccessLog,), {"lines": lines})


class _Library(logging.Handler):
    """What the libraries below say is wrong, as lines. A request that is no HTTP is none of it: its answer is in the
    access log, and what they would print of it could hold a token."""

    def __init__(self, lines: Lines) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            return
        text = record.getMessage() + ("\n" + "".join(traceback.format_exception(error)) if error else "")
        self._lines.listener(Note(record.name, text, warning=True))


@contextmanager
def libraries(lines: Lines) -> Iterator[None]:
    """Without it they would print to standard error, between the lines of this log."""
    handler = _Library(lines)
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    for each in loggers:
        each.addHandler(handler)
    try:
        yield
    finally:
        for each in loggers:
            each.removeHandler(handler)


def now(clock: Callable[[], float] = time.time) -> str:
    return datetime.fromtimestamp(clock(), UTC).isoformat(timespec="milliseconds")


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise from_oserror(error, path, writing=True) from error
