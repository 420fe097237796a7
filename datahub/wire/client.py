"""A synchronous client of one cache server.

One pool of connections a process, made when it is first used and left behind by a fork. The token goes to the server
that was named and to no other: redirects are not followed.
"""

from __future__ import annotations

import os
import re
import threading
import time
import urllib.request
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import urllib3
from urllib3.exceptions import HTTPError as TransportError

from datahub.core.errors import BadArgument, ConnectionLost, HttpError, TokenRefused
from datahub.wire.messages import failure_of
from datahub.wire.multipart import Unlike, boundary_of, parts
from datahub.wire.paths import JOB, VERSION
from datahub.wire.ranges import Range, header_of
from datahub.wire.tokens import job_of, token_of

CONNECT, SILENCE = 10.0, 60.0
"""Seconds that a connection, or the next byte, may take."""
READ = 1 << 20
KEPT = 32
"""Connections to one server that are kept alive."""
SMALL = 1 << 16
"""Bytes that are read of an error's body."""
NAMED = re.compile(r"[^\s/?#@<>\"'\\^`{|}]+")
"""What a host is called: a name, perhaps of other letters than ASCII's, or an address."""
PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "REQUEST_METHOD")
"""Variables that say how a server is reached."""


class ServerClient:
    """Safe in threads; picklable; usable after fork. Raises `OriginError`s and `TokenRefused`.

    ``job``: what its requests are counted under, where that is not the environment's.
    """

    def __init__(self, url: str, job: str = "") -> None:
        self.url, self.job = checked(url), job

    def head_of(self, path: str, seconds: float) -> Mapping[str, str]:
        with self._open("HEAD", path, {}, None, seconds) as response:
            return dict(response.headers)

    def whole(self, path: str, seconds: float) -> bytes:
        """A small body."""
        with self._open("GET", path, {}, None, seconds) as response:
            return b"".join(self._chunks(path, response))

    def send(self, method: str, path: str, body: bytes, seconds: float, *, accept: Collection[int] = ()) -> bytes:
        """Post JSON; the answer's body. ``accept``: error statuses that are answers here."""
        kind = {"Content-Type": "application/json"}
        with self._open(method, path, kind, body, seconds, accept=accept) as response:
            return b"".join(self._chunks(path, response))

    @contextmanager
    def range(self, path: str, span: Range, seconds: float) -> Iterator[Iterator[bytes]]:
        """The bytes of a range, as they come; fewer where the connection breaks, which raises `ConnectionLost`."""
        with self._open("GET", path, {"Range": span.header()}, None, seconds) as response:
            whole = response.status == 200 and span.start == 0
            if response.status != 206 and not whole:
                raise ConnectionLost(self.url + path, "answered without the range that was asked for")
            found = response.headers.get("Content-Range", "")
            if not whole and not found.startswith(f"bytes {span.start}-{span.end - 1}/"):
                raise ConnectionLost(self.url + path, f"answered with {found!r} in place of {span.header()}")
            yield self._chunks(path, response)

    @contextmanager
    def ranges(
        self, path: str, spans: Sequence[Range], seconds: float, deadline: float
    ) -> Iterator[Iterator[bytes] | None]:
        """The bytes of several ranges, which ascend: each whole, as they come. None where the server gives but one.

        ``deadline``, of the monotonic clock, is all of the answer's, ``seconds`` its next byte's. Raises as `range`.
        """
        with self._open("GET", path, {"Range": header_of(spans)}, None, seconds) as response:
            boundary = boundary_of(response.headers.get("Content-Type", ""))
            if response.status != 206 or boundary is None:
                yield None
            else:
                yield self._parts(path, _until(deadline, self._chunks(path, response)), boundary, spans)

    def _parts(self, path: str, chunks: Iterator[bytes], boundary: str, spans: Sequence[Range]) -> Iterator[bytes]:
        missing = len(spans)
        try:
            for data in parts(chunks, boundary, spans):
                missing -= 1
                yield data
        except Unlike as error:
            raise ConnectionLost(self.url + path, str(error)) from error
        except ConnectionLost:  # within what closes the last part: nothing is missing
            if missing:
                raise

    def is_server(self, seconds: float) -> bool:
        """Whether a cache server answers here; it is not shown the token."""
        try:
            response = self._send("GET", "/v1", {}, None, seconds)
        except TransportError as error:
            raise ConnectionLost(self.url, cause(error)) from error
        try:
            if response.status >= 500:
                raise HttpError(self.url + "/v1", response.status, response.reason or "")
            return VERSION in response.headers
        finally:
            response.close()

    @contextmanager
    def _open(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        seconds: float,
        *,
        accept: Collection[int] = (),
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """An answer that is no error; a body that was not read to its end ends the connection."""
        token = token_of(os.environ)
        own = {"Authorization": f"Bearer {token}"} if token else {}
        job = self.job or job_of(os.environ)
        own |= {JOB: job} if job else {}
        try:
            response = self._send(method, path, {**headers, **own}, body, seconds)
        except (TransportError, OSError) as error:
            raise ConnectionLost(self.url + path, cause(error)) from error
        try:
            if not (200 <= response.status < 300 or response.status in accept):
                raise self._failure(path, response, shown=token is not None)
            yield response
        finally:
            response.close()

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, seconds: float
    ) -> urllib3.BaseHTTPResponse:
        timeout = urllib3.Timeout(connect=min(CONNECT, seconds), read=min(SILENCE, seconds))
        return _pools.of(self.url).request(
            method,
            self.url + path,
            headers={"User-Agent": "datahub", "Accept-Encoding": "identity", **headers},
            body=body,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=timeout,
        )

    def _chunks(self, path: str, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        try:
            while data := response.read1(READ, decode_content=False):
                yield data
        except (TransportError, OSError) as error:
            raise ConnectionLost(self.url + path, cause(error)) from error
        response.release_conn()

    def _failure(self, path: str, response: urllib3.BaseHTTPResponse, *, shown: bool) -> HttpError | TokenRefused:
        try:
            said = failure_of(response.read(SMALL, decode_content=False))
        except (TransportError, OSError):
            said = None
        if response.status in (401, 403):
            return TokenRefused(self.url, shown=shown, reason=said.message if said else "")
        after = response.headers.get("Retry-After", "")
        reason = said.message if said else response.reason or ""
        return HttpError(self.url + path, response.status, reason, float(after) if after.isdigit() else None)

    def __reduce__(self) -> tuple[type[ServerClient], tuple[str, str]]:
        return ServerClient, (self.url, self.job)


class _Pools:
    """Of this process: one for the servers reached directly, one for each proxy."""

    def __init__(self) -> None:
        self._process, self._lock = os.getpid(), threading.Lock()
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._proxies: dict[tuple[str | None, ...], str] = {}

    def of(self, url: str) -> urllib3.PoolManager:
        if self._process != os.getpid():
            self.__init__()  # type: ignore[misc]  # connections that a fork brought along are the parent's
        said = (url, *map(os.environ.get, PROXIES))
        proxy = self._proxies.get(said)
        if proxy is None:
            proxy = self._proxies[said] = _proxy_of(url)
        with self._lock:
            if proxy not in self._pools:
                kept = {"maxsize": KEPT, "num_pools": 64}
                self._pools[proxy] = (
                    urllib3.ProxyManager(proxy, **kept) if proxy else urllib3.PoolManager(**kept)  # type: ignore[arg-type]
                )
            return self._pools[proxy]


_pools = _Pools()


def _proxy_of(url: str) -> str:
    """The proxy that the environment names for a server; "" for none. It is looked through whole, which takes long."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    return urllib.request.getproxies().get(parts.scheme, "")


def checked(url: str) -> str:
    """A server's URL without a slash at its end. Raises `BadArgument`."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        right = parts.scheme in ("http", "https") and NAMED.fullmatch(host) is not None and parts.port != 0
    except ValueError:
        right = False
    if not right:
        raise BadArgument("server", url, "is no address of a cache server", "write http://HOST:PORT")
    if parts.username or parts.password:
        shown = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        raise BadArgument("server", shown, "an address holds no password", "put the token in DATAHUB_TOKEN")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


def _until(deadline: float, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """What comes in time; a server that sends a byte now and then would be waited for without end."""
    for data in chunks:
        yield data
        if time.monotonic() > deadline:
            return


def cause(error: BaseException) -> str:
    """The innermost reason, in a few words."""
    while (inner := error.__cause__ or getattr(error, "reason", None)) and isinstance(inner, BaseException):
        error = inner
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
