"""Files over HTTP and HTTPS: ranges, redirects followed and re-checked here, proxies from the environment."""

from __future__ import annotations

import email.utils
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urljoin, urlsplit, urlunsplit

import urllib3
from urllib3.exceptions import HTTPError as TransportError

from datahub.acquire.origins import READ, Stream
from datahub.core.errors import ConnectionLost, HttpError

REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 8
TIMEOUT = urllib3.Timeout(connect=15, read=60)
MayFollow = Callable[[str, str], bool]
"""Whether a redirect from one URL to another may be followed."""


class HttpOrigin:
    """One URL. ``user:password@`` in it becomes a header that goes to its own host only.

    ``pool``: connections that several of them share. ``at_once``: bytes are handed on as they come, so that who reads
    them can keep a deadline, not gathered into large pieces. ``may_follow`` has a say in redirects. ``secret``: headers
    for its own host only.
    """

    def __init__(
        self,
        url: str,
        connections: int = 8,
        *,
        timeout: urllib3.Timeout = TIMEOUT,
        pool: urllib3.PoolManager | None = None,
        at_once: bool = False,
        may_follow: MayFollow | None = None,
        secret: Mapping[str, str] | None = None,
    ) -> None:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        self.url = urlunsplit(parts._replace(netloc=host))
        self._home = (parts.scheme, host)
        self._secret: dict[str, str] = dict(secret or {})
        if parts.username:
            basic = f"{parts.username}:{parts.password or ''}"
            self._secret = dict(urllib3.make_headers(basic_auth=basic))
        self._pool = pool or pool_for(parts.scheme, parts.hostname or "", connections, timeout)
        self._timeout, self._at_once, self._may_follow = timeout, at_once, may_follow
        self._final: str | None = None

    def open(self, start: int, end: int, tag: str | None, *, timeout: urllib3.Timeout | None = None) -> Stream:
        headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity", "User-Agent": "datahub"}
        if tag:
            headers["If-Range"] = tag
        response = self._follow(headers, timeout or self._timeout)
        total, first = _extent(response)
        if response.status == 206 and first != start:
            response.close()
            raise ConnectionLost(self.url, f"answered with bytes from {first} instead of {start}")
        partial = response.status == 206
        return Stream(
            url=self.url,
            start=start if partial else 0,
            total=total,
            tag=_tag(response),
            partial=partial,
            chunks=self._chunks(response),
            html="text/html" in response.headers.get("Content-Type", ""),
            close=response.close,
        )

    def close(self) -> None:
        self._pool.clear()

    def _follow(self, headers: dict[str, str], timeout: urllib3.Timeout) -> urllib3.BaseHTTPResponse:
        """The response at the end of the redirects; the end is remembered, and forgotten when it fails."""
        url = self._final or self.url
        for _ in range(MOST_REDIRECTS):
            response = self._request(url, headers, timeout)
            if response.status in REDIRECTS:
                url = self._next(url, response)
                continue
            if response.status in (200, 206):
                self._final = url
                return response
            response.close()
            if self._final and url == self._final != self.url:
                self._final, url = None, self.url
                continue
            raise HttpError(self.url, response.status, response.reason or "", _retry_after(response))
        raise HttpError(self.url, 310, f"more than {MOST_REDIRECTS} redirects")

    def _request(self, url: str, headers: dict[str, str], timeout: urllib3.Timeout) -> urllib3.BaseHTTPResponse:
        parts = urlsplit(url)
        own = self._secret if (parts.scheme, parts.netloc) == self._home else {}
        try:
            return self._pool.request(
                "GET",
                url,
                headers={**headers, **own},
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=timeout,
            )
        except (TransportError, OSError) as error:
            raise ConnectionLost(url, _cause(error)) from error

    def _next(self, url: str, response: urllib3.BaseHTTPResponse) -> str:
        response.close()
        target = urljoin(url, response.headers.get("Location", ""))
        before, after = urlsplit(url), urlsplit(target)
        if after.scheme not in ("http", "https") or (before.scheme, after.scheme) == ("https", "http"):
            raise HttpError(self.url, response.status, f"redirect to {after.scheme}://{after.hostname} is not followed")
        if self._may_follow is not None and not self._may_follow(url, target):
            raise HttpError(self.url, response.status, f"redirect to {after.hostname} is not followed")
        return urlunsplit(after._replace(netloc=after.netloc.rpartition("@")[2]))

    def _chunks(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        whole = False
        read = response.read1 if self._at_once else response.read
        try:
            while data := read(READ, decode_content=False):
                yield data
            whole = True
        except (TransportError, OSError) as error:
            raise ConnectionLost(self.url, _cause(error)) from error
        finally:
            # A body read to its end leaves a connection that can be used again; any other must be closed.
            response.release_conn() if whole else response.close()


def pool_for(scheme: str, host: str, connections: int, timeout: urllib3.Timeout) -> urllib3.PoolManager:
    proxy = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(scheme)
    if proxy:
        return urllib3.ProxyManager(proxy, maxsize=connections, timeout=timeout)
    return urllib3.PoolManager(maxsize=connections, timeout=timeout)


def _extent(response: urllib3.BaseHTTPResponse) -> tuple[int | None, int]:
    """(bytes of the whole file, first byte of the body)."""
    if response.status == 206:
        unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
        span, _, total = rest.partition("/")
        first = span.partition("-")[0]
        if unit == "bytes" and first.isdigit():
            return (int(total) if total.isdigit() else None), int(first)
        return None, -1
    length = response.headers.get("Content-Length", "")
    return (int(length) if length.isdigit() else None), 0


def _tag(response: urllib3.BaseHTTPResponse) -> str | None:
    """A validator that If-Range accepts: a strong ETag, else Last-Modified."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    """Seconds, from either form of the header (RFC 9110, 10.2.3)."""
    text = response.headers.get("Retry-After", "")
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time()) if text else None
    except ValueError:
        return None


def _cause(error: BaseException) -> str:
    """The innermost reason, in a few words."""
    while (inner := error.__cause__ or getattr(error, "reason", None)) and isinstance(inner, BaseException):
        error = inner
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
