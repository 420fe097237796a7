"""Files below an HTTP or HTTPS URL, through one pool of connections that are kept alive."""

from __future__ import annotations

import os
import threading
import time
from hashlib import sha256
from urllib.parse import quote, urlsplit, urlunsplit

import urllib3

from datahub.acquire.http import HttpOrigin, MayFollow, pool_for
from datahub.acquire.origins import Stream
from datahub.core.errors import ConnectionLost, HttpError, SizeMismatch
from datahub.stream.origin import CONNECTIONS, Received

CONNECT, SILENCE = 10.0, 20.0
"""Seconds that a connection, or the next byte, may take before the request is given up and made again."""
HEAD = 512
"""Bytes asked for where only a file's size and ETag are wanted."""
LARGEST = 1 << 30
"""Bytes of a file that is read whole into memory; more is a mistake."""


class WebFiles:
    """``user:password@`` in the URL goes to its own host only, a query (``?sig=...``) with every file."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.may_follow: MayFollow | None = None
        self._parts = urlsplit(url)
        self._begin()

    def _begin(self) -> None:
        self._process, self._lock = os.getpid(), threading.Lock()
        self._pool: urllib3.PoolManager | None = None
        self._files: dict[str, HttpOrigin] = {}

    def name(self, path: str) -> str:
        parts = self._parts
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, f"{parts.path.rstrip('/')}/{path}", "", ""))

    def receive(self, path: str, start: int, end: int, seconds: float, received: Received) -> None:
        deadline = time.monotonic() + seconds
        stream = self._file(path).open(start, end, None, timeout=_timeout(seconds))
        try:
            self._body(path, stream, start, end, deadline, received)
        finally:
            stream.close()

    def _body(self, path: str, stream: Stream, start: int, end: int, deadline: float, received: Received) -> None:
        """Hand on what was asked for; an origin without ranges sends the whole file, whose beginning is passed over."""
        if stream.total is not None and stream.total < end:
            raise SizeMismatch(self.name(path), end, stream.total, "the origin's file was cut: write it there again")
        at = stream.start
        for data in stream.chunks:
            wanted = data[max(0, start - at) : max(0, end - at)]
            at += len(data)
            if wanted:
                received(wanted)
            if at >= end:
                return
            if time.monotonic() > deadline:
                raise ConnectionLost(self.name(path), f"sent only {max(0, at - start)} of {end - start} bytes in time")
        if at < end:
            raise ConnectionLost(self.name(path), f"ended after {max(0, at - start)} of {end - start} bytes")

    def whole(self, path: str, seconds: float) -> bytes:
        deadline, found = time.monotonic() + seconds, bytearray()
        stream = self._file(path).open(0, LARGEST, None, timeout=_timeout(seconds))
        try:
            for data in stream.chunks:
                found += data
                if time.monotonic() > deadline:
                    raise ConnectionLost(self.name(path), f"sent only {len(found)} bytes in time")
        finally:
            stream.close()
        if stream.total is not None and len(found) < min(stream.total, LARGEST):
            raise ConnectionLost(self.name(path), f"ended after {len(found)} of {stream.total} bytes")
        return bytes(found)

    def facts(self, path: str, seconds: float) -> tuple[int, str]:
        """A file's size, and its strong ETag or Last-Modified; of a server that gives neither, a digest of its head."""
        stream = self._file(path).open(0, HEAD, None, timeout=_timeout(seconds))
        head = b""
        try:
            for data in stream.chunks:  # a range is read to its end: its connection can be used again then
                head += data
                if not stream.partial and len(head) >= HEAD:
                    break
        finally:
            stream.close()
        if stream.total is None:
            raise HttpError(self.name(path), 200, "but its size is not told")
        return stream.total, stream.tag or sha256(head[:HEAD]).hexdigest()

    def close(self) -> None:
        if self._process == os.getpid() and self._pool is not None:
            self._pool.clear()

    def _file(self, path: str) -> HttpOrigin:
        """Redirects that a file's requests met are remembered with it."""
        if self._process != os.getpid():
            self._begin()  # connections that a fork brought along are the parent's
        with self._lock:
            if self._pool is None:
                host = self._parts.hostname or ""
                self._pool = pool_for(self._parts.scheme, host, CONNECTIONS, _timeout(SILENCE))
            if path not in self._files:
                parts = self._parts
                place = f"{parts.path.rstrip('/')}/{quote(path)}"
                url = urlunsplit((parts.scheme, parts.netloc, place, parts.query, ""))
                self._files[path] = HttpOrigin(url, pool=self._pool, at_once=True, may_follow=self.may_follow)
            return self._files[path]

    def __reduce__(self) -> tuple[type[WebFiles], tuple[str]]:
        return WebFiles, (self.url,)


def _timeout(seconds: float) -> urllib3.Timeout:
    return urllib3.Timeout(connect=min(CONNECT, seconds), read=min(SILENCE, seconds))
