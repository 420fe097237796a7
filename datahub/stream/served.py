"""Files of a variant at cache servers: each from the one that keeps it, else from the next, else from behind them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from datahub.core.errors import BadArgument, ConnectionLost, HttpError, OriginError
from datahub.core.refs import Ref
from datahub.store import record as records
from datahub.store.record import FILENAME
from datahub.stream.origin import Files, Received
from datahub.stream.patience import read_range
from datahub.wire import paths
from datahub.wire.client import ServerClient, checked
from datahub.wire.ranges import Range
from datahub.wire.servers import ranked

SCHEMES = ("datahub+http://", "datahub+https://")
DOWN = 5.0
"""Seconds during which a server that failed is asked after the others."""
DOUBTED = 60.0
"""Seconds during which a server whose bytes were wrong is not asked, where anybody else can be."""
SHORT = 5.0
"""Seconds that a server's next byte may take where there is another one to ask."""


class ServedFiles:
    """`Files` of one variant; the file without a name is the list of the dataset's variants.

    ``behind``: where the variant is, if the servers fail.

    Shards are asked for by the digests of the record that was read here, so a variant that is replaced on a server is
    never mixed with what it was.
    """

    def __init__(self, servers: Sequence[str], ref: Ref, behind: Files | None = None) -> None:
        self.servers, self.ref, self._behind = tuple(checked(each) for each in servers), ref, behind
        self.url = served_url(self.servers[0], ref)
        self._digests: dict[str, str] = {}
        self._job = ""
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._clients = {url: ServerClient(url, self._job) for url in self.servers}
        self._failed: dict[str, float] = {}
        self._older: set[str] = set()
        """Servers that give one range a request."""
        self._doubted: dict[str, float] = {}
        self._answered = threading.local()
        """By thread: who gave what it received last."""

    @classmethod
    def opened(cls, url: str) -> ServedFiles:
        """What `served_url` made."""
        server, _, ref = url.removeprefix("datahub+").rpartition("/-/")
        if not server or not ref:
            raise BadArgument("source", url, "names no variant at a cache server", "write http://HOST:PORT")
        return cls([server], Ref.parse(ref))

    @staticmethod
    def client_of(url: str) -> ServerClient | None:
        """The server that ``datahub+http://HOST:PORT`` names."""
        return ServerClient(url.removeprefix("datahub+")) if url.startswith(SCHEMES) else None

    def name(self, path: str) -> str:
        return f"{self.servers[0]}{self._named(path)}"

    def receive(self, path: str, start: int, end: int, seconds: float, received: Received) -> None:
        deadline, had = time.monotonic() + seconds, 0

        def count(data: bytes) -> None:
            nonlocal had
            had += len(data)
            received(data)

        def ask(client: ServerClient, left: float) -> None:
            with client.range(self._path(path), Range(start + had, end), left) as chunks:
                for data in chunks:
                    count(data[: end - start - had])
                    if had >= end - start or time.monotonic() > deadline:
                        break
            if had < end - start:
                raise ConnectionLost(self.name(path), f"ended after {had} of {end - start} bytes")

        def behind(files: Files, left: float) -> None:
            files.receive(path, start + had, end, left, count)

        self._each(path, deadline, ask, behind)

    def receive_many(
        self, path: str, spans: Sequence[Range], seconds: float, received: Callable[[int, bytes], None]
    ) -> None:
        deadline, had = time.monotonic() + seconds, 0

        def take(data: bytes) -> None:
            nonlocal had
            received(had, data)
            had += 1
            if had < len(spans) and time.monotonic() > deadline:
                raise ConnectionLost(self.name(path), f"sent only {had} of {len(spans)} ranges in time")

        def ask(client: ServerClient, left: float) -> None:
            if client.url not in self._older:
                with client.ranges(self._path(path), spans[had:], left, deadline) as parts:
                    for data in parts or []:
                        take(data)
                    if parts is not None:
                        return
                self._older.add(client.url)
            for span in spans[had:]:
                with client.range(self._path(path), span, left) as chunks:
                    take(_exactly(span, chunks, deadline, self.name(path)))

        def behind(files: Files, left: float) -> None:
            for span in spans[had:]:
                take(bytes(read_range(files, path, span.start, span.end, left)))

        self._each(path, deadline, ask, behind)

    def whole(self, path: str, seconds: float) -> bytes:
        found: list[bytes] = []
        self._each(
            path,
            time.monotonic() + seconds,
            lambda client, left: found.append(client.whole(self._path(path), left)),
            lambda files, left: found.append(files.whole(path, left)),
        )
        if path == FILENAME:
            self._digests = {each.path: each.sha256 for each in records.decode(found[0], self.name(path)).files}
        return found[0]

    def doubt(self) -> None:
        """What this thread received last was wrong: it is asked of another next, where there is one."""
        url: str | None = getattr(self._answered, "url", None)
        if url is not None:
            with self._lock:
                self._doubted[url] = time.monotonic()

    def read_for(self, job: str) -> None:
        """What servers count requests under from now on."""
        self._job = job
        self._clients = {url: ServerClient(url, job) for url in self.servers}

    def close(self) -> None:
        """The process keeps one pool for all."""

    def _path(self, path: str) -> str:
        digest = self._digests.get(path)
        return self._named(path) if digest is None else paths.of_blob(digest, self.ref)

    def _named(self, path: str) -> str:
        return paths.of_file(self.ref, path) if path else paths.of_name(self.ref.name)

    def _each(self, path: str, deadline: float, ask: Any, behind: Any) -> None:
        """Ask server after server, then what is behind them; raises what the first said, where none helps."""
        first: OriginError | None = None
        order = self._order(self._digests.get(path, path))
        for place, url in enumerate(order, 1):
            last = place == len(order) and self._behind is None
            left = max(0.001, deadline - time.monotonic())
            try:
                ask(self._clients[url], left if last else min(SHORT, left))
            except OriginError as error:
                first = first or error
                self._mark(url, error)
            else:
                self._answered.url = url
                return
        if self._behind is None:
            assert first is not None
            raise first
        self._answered.url = None
        behind(self._behind, max(0.001, deadline - time.monotonic()))

    def _order(self, key: str) -> list[str]:
        now = time.monotonic()
        with self._lock:
            down = {url for url, when in self._failed.items() if now - when < DOWN}
            doubted = {url for url, when in self._doubted.items() if now - when < DOUBTED}
        order = sorted(ranked(self.servers, key), key=lambda url: url in down)
        trusted = [url for url in order if url not in doubted]
        return trusted if trusted or self._behind is not None else order

    def _mark(self, url: str, error: OriginError) -> None:
        if not (isinstance(error, HttpError) and error.status < 500):
            with self._lock:
                self._failed[url] = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        own = ("_lock", "_clients", "_failed", "_older", "_doubted", "_answered")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()


def _exactly(span: Range, chunks: Iterator[bytes], deadline: float, name: str) -> bytes:
    """No more is read than that: what is behind a server that ignores ranges sends the whole file."""
    pieces, had = list[bytes](), 0
    for data in chunks:
        pieces.append(data)
        had += len(data)
        if had >= span.size or time.monotonic() > deadline:
            break
    if had < span.size:
        raise ConnectionLost(name, f"ended after {had} of {span.size} bytes")
    return b"".join(pieces)[: span.size]


def served_url(server: str, ref: Ref) -> str:
    """A URL that `open_files` takes for a variant at a cache server."""
    return f"datahub+{server}/-/{ref}"
