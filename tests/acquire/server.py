"""A loopback HTTP server that can misbehave in all the ways origins do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Behaviour:
    """What the server does with one path. Lists are used up, one entry a request."""

    data: bytes = b""
    etag: str | None = '"v1"'
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with the statuses."""
    cut: list[int] = field(default_factory=list)
    """Close the connection after so many bytes of the body."""
    claim: int | None = None
    """A total length to claim in place of the real one."""
    redirect: str | None = None
    pause: float = 0.0
    """Seconds between 256 KiB pieces."""
    held: threading.Event | None = None
    """What an answer waits for."""


@dataclass
class Origin:
    url: str
    paths: dict[str, Behaviour]
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    sent: int = 0


class Handler(BaseHTTPRequestHandler):
    """Does what the origin's `Behaviour` for the path says."""

    protocol_version = "HTTP/1.1"
    origin: Origin
    lock: threading.Lock

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        with self.lock:
            self.origin.requests.append((self.path, dict(self.headers)))
            found = self.origin.paths.get(self.path)
            status = found.statuses.pop(0) if found and found.statuses else None
            cut = found.cut.pop(0) if found and found.cut and status is None else None
        if found is not None and found.held is not None:
            found.held.wait(30.0)
        if found is None or status is not None:
            return self.empty(status or 404, found.headers if found else {})
        if found.redirect:
            return self.empty(302, {"Location": found.redirect})
        return self.body(found, cut)

    def empty(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def body(self, found: Behaviour, cut: int | None) -> None:
        start, end, partial = self.span(found)
        whole = found.data[start:end]
        self.send_response(206 if partial else 200)
        total = len(found.data) if found.claim is None else found.claim
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{total}")
        if found.etag:
            self.send_header("ETag", found.etag)
        self.send_header("Content-Length", str(len(whole) if partial or found.claim is None else found.claim))
        self.end_headers()
        self.pieces(whole if cut is None else whole[:cut], found.pause)
        if cut is not None or (found.claim or 0) > len(whole):
            self.close_connection = True

    def pieces(self, body: bytes, pause: float) -> None:
        for at in range(0, len(body), 1 << 18):
            piece = body[at : at + (1 << 18)]
            try:
                self.wfile.write(piece)
            except OSError:
                return
            with self.lock:
                self.origin.sent += len(piece)
            time.sleep(pause)

    def span(self, found: Behaviour) -> tuple[int, int, bool]:
        text = self.headers.get("Range", "")
        changed = self.headers.get("If-Range") not in (None, found.etag)
        if not found.ranges or not text.startswith("bytes=") or changed:
            return 0, len(found.data), False
        first, _, last = text.removeprefix("bytes=").partition("-")
        return int(first), min(int(last) + 1, len(found.data)), True


@contextmanager
def serving(**paths: Behaviour) -> Iterator[Origin]:
    """Serve ``paths`` (``__`` stands for a dot) until the block ends."""
    origin = Origin("", {f"/{name.replace('__', '.')}": each for name, each in paths.items()})
    handler = type("OriginHandler", (Handler,), {"origin": origin, "lock": threading.Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda request, address: None  # clients that go away are no news
    origin.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield origin
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
