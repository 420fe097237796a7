"""Published files and weights through cache servers: those of DATAHUB_SOURCE before any mirror, or one as ``--from``.

The token is for a server that was named in one of these ways and has answered as one without it. `HttpOrigin` shows it
to that host alone: it goes along with no redirect, and to no mirror.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from urllib.parse import quote

import urllib3

from datahub.acquire.http import HttpOrigin
from datahub.acquire.origins import Stream
from datahub.core.errors import HttpError, OriginError, TokenRefused
from datahub.core.settings import Settings
from datahub.wire.client import ServerClient
from datahub.wire.paths import FILES
from datahub.wire.servers import ranked, split
from datahub.wire.tokens import token_of

SECONDS = 5.0
"""To answer whether it is a cache server; mirrors wait meanwhile."""


class Servers:
    """The cache servers that ``settings`` name. Safe in threads."""

    def __init__(self, settings: Settings) -> None:
        named = split(settings.source or "")
        self._sources = [url.removeprefix("datahub+").rstrip("/") for url in named if _plain(url)]
        self._from = (settings.from_ or "").rstrip("/")
        self._lock = threading.Lock()
        self._known: dict[str, bool] = {}

    def places(self, name: str, version: str, filename: str) -> Iterator[str]:
        """URLs of a file at the servers of DATAHUB_SOURCE that answer; none where ``--from`` says where files are."""
        path = "/".join(quote(part, safe="") for part in (name, version, filename) if part)
        for server in ranked(self._sources, path) if not self._from else ():
            if self._answers(server):
                yield f"{server}{FILES}/{path}"

    def origin(self, url: str, connections: int) -> ServedOrigin | None:
        """A file's origin, which is shown the token; None for a URL that is at no named server.

        Raises `BadArgument` for a token that is none.
        """
        for server in self._candidates():
            if url.startswith(f"{server}{FILES}/") and self._answers(server):
                return ServedOrigin(server, url, connections, token_of(os.environ))
        return None

    def _candidates(self) -> list[str]:
        server = self._from.removesuffix(FILES)
        return [server] if server != self._from and _plain(server) else [] if self._from else self._sources

    def _answers(self, server: str) -> bool:
        """Whether a cache server is there; asked once, unless it does not answer."""
        with self._lock:
            if server not in self._known:
                try:
                    self._known[server] = ServerClient(server).is_server(SECONDS)
                except OriginError:
                    return False
            return self._known[server]


class ServedOrigin(HttpOrigin):
    """A file at a cache server. Raises `TokenRefused` besides."""

    def __init__(self, server: str, url: str, connections: int, token: str | None) -> None:
        super().__init__(url, connections, secret={"Authorization": f"Bearer {token}"} if token else {})
        self._server, self._shown = server, token is not None

    def open(self, start: int, end: int, tag: str | None, *, timeout: urllib3.Timeout | None = None) -> Stream:
        try:
            return super().open(start, end, tag, timeout=timeout)
        except HttpError as error:
            if error.status in (401, 403):
                raise TokenRefused(self._server, shown=self._shown) from error
            raise


def _plain(url: str) -> bool:
    """Whether it can be a cache server's address: no password, no query."""
    known = url.startswith(("http://", "https://", "datahub+http://", "datahub+https://"))
    return known and "@" not in url and "?" not in url
