"""The seam to where a packed variant is kept remotely: `Files`, with HTTP and fsspec behind it, and a fake.

Everything under one URL, read by ranges. Which scheme is spoken how is decided in `open_files`; trying again is
`datahub.stream.patience`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from datahub.core.errors import BadArgument, ConnectionLost, HttpError
from datahub.core.urls import misplaced
from datahub.wire.ranges import Range

CONNECTIONS = 8
"""Requests that one source has under way at once."""
Received = Callable[[bytes], None]


class Files(Protocol):
    """Files below ``url``. Safe in threads; picklable; usable after fork."""

    url: str

    def name(self, path: str) -> str:
        """The whole URL of a file, for people: without credentials."""
        ...

    def receive(self, path: str, start: int, end: int, seconds: float, received: Received) -> None:
        """Bytes ``[start, end)`` of a file, or a first part of them, handed to ``received`` as they come.

        Raises `OriginError`s, within about ``seconds``; what was received until then counts.
        """
        ...

    def whole(self, path: str, seconds: float) -> bytes:
        """A small file. Raises `OriginError`s; `HttpError` 404 where there is none."""
        ...

    def close(self) -> None:
        """Give back connections; a later read opens them again."""
        ...


@runtime_checkable
class ManyFiles(Files, Protocol):
    """Files of which one request reads many ranges, at little more than the cost of one."""

    def receive_many(
        self, path: str, spans: Sequence[Range], seconds: float, received: Callable[[int, bytes], None]
    ) -> None:
        """Ranges of a file, at most `datahub.wire.ranges.MOST` that ascend and do not overlap.

        Each is handed to ``received`` whole, with its number. Raises as `receive`; what was received counts.
        """
        ...


@runtime_checkable
class DoubtedFiles(Files, Protocol):
    """Files that are in more than one place."""

    def doubt(self) -> None:
        """What this thread received last was wrong."""
        ...


def doubt(files: Files) -> None:
    """Have what this thread received last, which was wrong, asked of another place next, where there is one."""
    if isinstance(files, DoubtedFiles):
        files.doubt()


def open_files(url: str) -> Files:
    """The files below ``url``, by its scheme; nothing is asked yet. Raises `BadArgument` or `MissingExtra`."""
    scheme, colon, _ = url.partition("://")
    if not colon:
        raise BadArgument("source", url, "is not a URL", "write scheme://place, like s3://bucket/prefix")
    if reason := misplaced(url):
        raise BadArgument("source", url, reason)
    if scheme in ("http", "https"):
        from datahub.stream.web import WebFiles

        return WebFiles(url)
    if scheme in ("datahub+http", "datahub+https"):
        from datahub.stream.served import ServedFiles

        return ServedFiles.opened(url)
    from datahub.stream.systems import SystemFiles

    return SystemFiles(url)


class MemoryFiles:
    """The fake: files in memory. ``failures`` are raised, one a request; ``cut`` ends answers after so many bytes."""

    def __init__(self, files: Mapping[str, bytes], url: str = "fake://origin") -> None:
        self.url, self.files = url, dict(files)
        self.failures: list[Exception] = []
        self.cut: list[int] = []
        self.asked: list[tuple[str, int, int]] = []
        self.delay = 0.0

    def name(self, path: str) -> str:
        return f"{self.url}/{path}"

    def receive(self, path: str, start: int, end: int, seconds: float, received: Received) -> None:
        self.asked.append((path, start, end))
        time.sleep(min(self.delay, seconds))
        if self.failures:
            raise self.failures.pop(0)
        if path not in self.files:
            raise HttpError(self.name(path), 404, "not found")
        data = self.files[path][start:end]
        if self.cut:
            received(data[: self.cut.pop(0)])
            raise ConnectionLost(self.name(path), "the connection was closed early")
        received(data)

    def whole(self, path: str, seconds: float) -> bytes:
        found: list[bytes] = []
        self.receive(path, 0, len(self.files.get(path, b"")), seconds, found.append)
        return b"".join(found)

    def close(self) -> None:
        """Nothing is held open."""


class ManyMemoryFiles(MemoryFiles):
    """The fake of `ManyFiles`. ``together``: how many ranges each request asked for."""

    def __init__(self, files: Mapping[str, bytes], url: str = "fake://origin") -> None:
        super().__init__(files, url)
        self.together: list[int] = []

    def receive_many(
        self, path: str, spans: Sequence[Range], seconds: float, received: Callable[[int, bytes], None]
    ) -> None:
        self.together.append(len(spans))
        time.sleep(min(self.delay, seconds))
        for number, span in enumerate(spans):
            self.asked.append((path, span.start, span.end))
            if self.failures:
                raise self.failures.pop(0)
            received(number, self.files[path][span.start : span.end])
