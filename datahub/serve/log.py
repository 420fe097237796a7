"""The server's log: one JSON object a line, for each request and for what an operator should know.

Lines are written by a thread of their own, so that a reader that stalls stalls no client. Nothing of a request's
headers or query is logged, so no token is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import stat
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import HttpProcessingError

from datahub.core.errors import from_oserror
from datahub.core.events import Event, Note
from datahub.serve.sending import job_of

WAITING = 50_000
"""Lines that wait to be written; further ones are dropped, and counted."""
TOGETHER = 0.05
"""Seconds in which lines are gathered, so that the writing thread does not wake for each of them."""
LARGE = 1 << 20
"""Bytes of one write; of several processes' lines in one pipe only PIPE_BUF bytes are sure to stay together."""
OFF, STDERR = "off", "-"
LEFT = "_call_connection_lost"
LIBRARIES = ("aiohttp.server", "asyncio")


class Lines:
    """A log at ``where``: a file, ``-`` (standard error) or ``off``. Several processes may append to one."""

    def __init__(self, where: str) -> None:
        self.off, self._where = where == OFF, where
        self._descriptor = sys.stderr.fileno() if where in (OFF, STDERR) else _opened(Path(where))
        self._most = LARGE if stat.S_ISREG(os.fstat(self._descriptor).st_mode) else select.PIPE_BUF
        self._waiting: deque[bytes] = deque()
        self._come, self._ending = threading.Event(), threading.Event()
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="datahub-log", daemon=True)
        self._thread.start()

    def put(self, facts: dict[str, Any]) -> None:
        """A line of these facts and the time."""
        if len(self._waiting) >= WAITING:
            self._dropped += 1
            return
        # Here and not in the thread, which would hold the interpreter, and so all requests, for a whole batch.
        self._waiting.append(_line(facts))
        if not self._come.is_set():
            self._come.set()

    def listener(self, event: Event) -> None:
        """Notes as lines; progress is no matter of a log."""
        if isinstance(event, Note):
            level = "warning" if event.warning else "info"
            self.put({"level": level, "stage": event.stage, "message": event.message})

    def reopen(self) -> None:
        """Go on in a new file, where the old one was moved away. Raises `DiskError`."""
        if self._where not in (OFF, STDERR):
            new = _opened(Path(self._where))
            os.dup2(new, self._descriptor, inheritable=False)
            os.close(new)

    def close(self) -> None:
        self._ending.set()
        self._come.set()
        self._thread.join(5.0)

    def _write(self) -> None:
        ended = False
        while not ended:
            self._come.wait()
            self._ending.wait(TOGETHER)
            ended = self._ending.is_set()
            self._come.clear()  # before they are taken: what comes after is seen the next time
            lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                lines.append(_line({"level": "warning", "dropped": dropped}))
            for some in _batches(lines, self._most):
                with suppress(OSError):
                    os.write(self._descriptor, some)


class AccessLog(AbstractAccessLogger):
    """What aiohttp calls after each answer, broken requests among them; see `access_log`."""

    lines: Lines

    @property
    def enabled(self) -> bool:
        return not self.lines.off

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        facts = {
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
    access log, and what they would print of it could hold a token. Nor is a client that leaves between the last byte
    of a file and the moment in which the sender learns of it: asyncio then tells the sender twice, once it is done."""

    def __init__(self, lines: Lines) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            return
        if isinstance(error, asyncio.InvalidStateError) and LEFT in record.getMessage():
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


def _line(facts: dict[str, Any]) -> bytes:
    stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
    try:
        return msgspec.json.encode({"time": stamp, **facts}) + b"\n"
    except UnicodeEncodeError:  # what a client sent is no Unicode
        return msgspec.json.encode({"time": stamp, "level": "warning", "message": ascii(facts)}) + b"\n"


def _batches(lines: list[bytes], most: int) -> Iterator[bytes]:
    """Whole lines together, ``most`` bytes at once unless one alone is longer."""
    some, size = list[bytes](), 0
    for line in lines:
        if some and size + len(line) > most:
            yield b"".join(some)
            some, size = [], 0
        some.append(line)
        size += len(line)
    if some:
        yield b"".join(some)


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise from_oserror(error, path, writing=True) from error
