"""The seam to wherever published files are: `Origin`, with HTTP and fsspec behind it, and an in-memory fake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from datahub.core.errors import BadArgument, ConnectionLost, HttpError

READ = 1 << 20
"""Bytes of one read from an origin."""


@dataclass(slots=True)
class Stream:
    """A body being received. ``partial``: it is the range asked for; else it is the whole file from its start."""

    url: str
    start: int
    total: int | None
    """Bytes of the whole file, None where the origin does not say."""
    tag: str | None
    """ETag or Last-Modified: the same as long as the file is."""
    partial: bool
    chunks: Iterator[bytes]
    html: bool = False
    """The origin calls it a page."""
    close: Callable[[], None] = lambda: None
    """Ends a body that is not read to its end."""


class Origin(Protocol):
    """One file at one place. Safe to use from several threads."""

    url: str

    def open(self, start: int, end: int, tag: str | None) -> Stream:
        """Bytes ``start`` to ``end`` (exclusive) of the file, which must still be ``tag`` where that is given.

        An origin that cannot do ranges, or whose file changed, answers with the whole file (``partial`` False).
        Raises `OriginError`s; reading ``chunks`` may too.
        """
        ...

    def close(self) -> None:
        """Give back connections."""
        ...


@dataclass
class MemoryOrigin:
    """The fake: a file in memory that can be made to misbehave."""

    data: bytes
    url: str = "memory:file"
    tag: str | None = "v1"
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)
    """HTTP statuses to fail the next opens with, one each."""
    cut: list[int] = field(default_factory=list)
    """Break the next streams off after so many bytes, one each."""
    opened: list[tuple[int, int]] = field(default_factory=list)

    def open(self, start: int, end: int, tag: str | None) -> Stream:
        self.opened.append((start, end))
        if self.statuses:
            raise HttpError(self.url, self.statuses.pop(0))
        partial = self.ranges and (tag is None or tag == self.tag)
        body = self.data[start:end] if partial else self.data
        stop = self.cut.pop(0) if self.cut else None
        first = start if partial else 0
        return Stream(self.url, first, len(self.data), self.tag, partial, self._chunks(body, stop))

    def _chunks(self, body: bytes, stop: int | None) -> Iterator[bytes]:
        for at in range(0, len(body), READ):
            piece = body[at : at + READ]
            if stop is not None and at + len(piece) > stop:
                yield piece[: stop - at]
                raise ConnectionLost(self.url, "the connection was closed early")
            yield piece

    def close(self) -> None:
        """Nothing is held open."""


def open_origin(url: str, connections: int) -> Origin:
    """The origin for ``url`` by its scheme; raises `BadArgument` for one that nothing here speaks."""
    scheme = url.partition("://")[0]
    if scheme in ("http", "https"):
        from datahub.acquire.http import HttpOrigin

        return HttpOrigin(url, connections)
    from datahub.acquire.remote import FsspecOrigin, known

    if not known(scheme):
        raise BadArgument("mirror", url, f"no file system is known for {scheme!r}", "install its fsspec package")
    return FsspecOrigin(url)
