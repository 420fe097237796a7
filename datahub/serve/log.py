"""The server's log: one JSON object a line, for each request and for what an operator should know.

Lines are written by a thread of their own, so that a reader that stalls stalls no client. Nothing of a request's
headers or query is logged, so no token is.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from datahub.core.errors import from_oserror
from datahub.core.events import Event, Note
from datahub.serve.sending import job_of

WAITING = 20_000
"""Lines that wait to be written; further ones are dropped, and counted."""
TOGETHER = 256
OFF, STDERR = "off", "-"


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


def now(clock: Callable[[], float] = time.time) -> str:
    return datetime.fromtimestamp(clock(), UTC).isoformat(timespec="milliseconds")


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise from_oserror(error, path) from error
