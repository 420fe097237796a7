"""The cache server under requests that no honest client makes: no 5xx, no byte from outside its store, no hang.

    python tests/benchmarks/fuzz_serve.py [--requests 100000] [--threads 8] [--seed 0] [--workers 1]

The store has links that lead out of it, and next to it lies a file whose content no answer may hold. Bodies of paths
that exist are compared with the files. Prints one JSON line; exits 1 where anything was found, each with its request.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks._requests import Requests, Sent  # noqa: E402
from tests.serve.running import DEADLINE  # noqa: E402

CANARY = b"no-answer-may-hold-this-6f1d"
FIRST = re.compile(rb"HTTP/1\.[01] (\d\d\d)")
LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.IGNORECASE)
SPAN = re.compile(rb"\r\nContent-Range: bytes (\d+)-(\d+)/(\d+)\r\n", re.IGNORECASE)
BOUNDARY = re.compile(rb"\r\nContent-Type: multipart/byteranges; boundary=(\w+)\r\n")
QUIET = 0.1
AT_MOST = 20
"""Findings that are told."""


def weights(home: Path) -> None:
    """A published file: weights, which are known by the digest in their name."""
    folder = home / "downloads" / "weights"
    folder.mkdir(parents=True)
    data = bytes(range(256)) * 500
    (folder / f"net-{hashlib.sha256(data).hexdigest()[:8]}.pth").write_bytes(data)


def trap(home: Path) -> None:
    """A secret beside the store, and links in the store that lead to it."""
    outside = home.parent / "outside"
    outside.mkdir()
    (outside / "canary.txt").write_bytes(CANARY)
    (home / "canary.txt").write_bytes(CANARY)
    for folder in home.glob("datasets/*/*/*"):
        (folder / "escape").symlink_to(outside)
        (folder / "canary.txt").symlink_to(outside / "canary.txt")
    (home / "datasets" / "escape").symlink_to(outside)


@dataclass
class Findings:
    """What a run saw. ``truth``: the body of every path that exists."""

    truth: dict[str, bytes]
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    compared: int = 0
    slowest: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self, sent: Sent, head: bytes, body: bytes, seconds: float) -> None:
        """An answer, or all that came on a connection of its own: ``body`` may hold further answers then."""
        statuses = [int(each) for each in FIRST.findall(head if sent.framed else head + body)]
        with self.lock:
            self.statuses.update(statuses)
            self.slowest = max(self.slowest, seconds)
            if any(each >= 500 for each in statuses):
                self.say(f"status {statuses}", sent)
            if CANARY in head or CANARY in body or b"root:x:0:0" in body:
                self.say("a byte from outside", sent)
            if sent.framed and sent.path in self.truth and statuses[:1] in ([200], [206]) and sent.method == "GET":
                self.compared += 1
                if not right(self.truth[sent.path], head, body):
                    self.say("a wrong body", sent)

    def say(self, what: str, sent: Sent) -> None:
        self.wrong.append(f"{what}: {sent.data[:600]!r}")


def right(whole: bytes, head: bytes, body: bytes) -> bool:
    """Whether a body is what its head says of the file."""
    span = SPAN.search(head)
    if span is not None:
        return body == whole[int(span[1]) : int(span[2]) + 1]
    boundary = BOUNDARY.search(head)
    if boundary is None:
        return body == whole
    opening, *parts, ending = body.split(b"\r\n--" + boundary[1])
    for part in parts:
        said, _, data = part.partition(b"\r\n\r\n")
        span = SPAN.search(said + b"\r\n")
        if span is None or data != whole[int(span[1]) : int(span[2]) + 1]:
            return False
    return (opening, ending) == (b"", b"--\r\n") and len(parts) > 1 and len(body) < len(whole) + 200 * len(parts)


class Connection:
    """One that goes on while both sides agree where answers end."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def ask(self, sent: Sent) -> tuple[bytes, bytes]:
        """Head and body. Raises `TimeoutError` where the server does not answer."""
        for again in (True, False):
            fresh = self._socket is None
            if self._socket is None:
                self._socket = socket.create_connection(("127.0.0.1", self._port), DEADLINE)
            try:
                self._socket.sendall(sent.data)
                head, body, more = self._answer(sent.method == "HEAD")
            except (ConnectionError, EOFError):
                self.close()
                if fresh or not again:
                    raise
                continue
            if not more:
                self.close()
            return head, body
        raise AssertionError

    def _answer(self, headless: bool) -> tuple[bytes, bytes, bool]:
        found = b""
        while b"\r\n\r\n" not in found:
            found += self._some()
        head, _, body = found.partition(b"\r\n\r\n")
        head += b"\r\n"
        length = LENGTH.search(head)
        size = 0 if headless or FIRST.match(head)[1] in (b"204", b"304") else int(length[1]) if length else 0  # type: ignore[index]
        parts, got = [body], len(body)
        while got < size:
            parts.append(self._some())
            got += len(parts[-1])
        return head, b"".join(parts), b"connection: close" not in head.lower()

    def _some(self) -> bytes:
        assert self._socket is not None
        data = self._socket.recv(1 << 20)
        if not data:
            raise EOFError
        return data

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None


def alone(port: int, data: bytes) -> bytes:
    """All that comes for bytes on a connection of their own. Raises `TimeoutError` if it stays open after its end."""
    found = []
    with socket.create_connection(("127.0.0.1", port), QUIET) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(data)
        # A server need not answer one that has hung up: what is no whole request is waited for until all is quiet.
        with contextlib.suppress(TimeoutError):
            while part := connection.recv(1 << 20):
                found.append(part)
            return b"".join(found)
        connection.settimeout(DEADLINE)
        connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(1 << 20):
            found.append(part)
    return b"".join(found)


def fuzz(port: int, seed: int, count: int, findings: Findings) -> None:
    requests = Requests(sorted(findings.truth), max(map(len, findings.truth.values())), seed)
    connection = Connection(port)
    for _ in range(count):
        sent, began = requests.next(), time.monotonic()
        try:
            head, body = connection.ask(sent) if sent.framed else (alone(port, sent.data), b"")
        except TimeoutError:
            findings.say("no answer in time", sent)
            connection.close()
            continue
        except (ConnectionError, EOFError):
            findings.say("no answer", sent)
            continue
        findings.look(sent, head, body, time.monotonic() - began)
    connection.close()


def truth_of(home: Path) -> dict[str, bytes]:
    """Every path of a store's files, by name and by digest, and of its weights, and its bytes."""
    from datahub.store import record as records

    found = {f"/v1/files/weights/{path.name}": path.read_bytes() for path in home.glob("downloads/weights/*")}
    for path in home.glob("datasets/*/*/*/dataset.json"):
        folder, below = path.parent, path.parent.relative_to(home / "datasets").as_posix()
        found[f"/v1/datasets/{below}/dataset.json"] = path.read_bytes()
        for entry in records.decode(path.read_bytes(), str(path)).files:
            data = (folder / entry.path).read_bytes()
            found[f"/v1/datasets/{below}/{entry.path}"] = found[f"/v1/blobs/{entry.sha256}"] = data
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    o = parser.parse_args()
    from tests.benchmarks._server import Serving
    from tests.serve.conftest import big_variant
    from tests.store.builder import tiny_variant

    with tempfile.TemporaryDirectory() as scratch:
        home, log = Path(scratch) / "home", Path(scratch) / "log"
        tiny_variant(home)
        big_variant(home, size=200_000)
        weights(home)
        findings = Findings(truth_of(home))
        trap(home)
        with Serving(home, "--workers", str(o.workers), "--access-log", str(log), "--scrub-rate", "0") as server:
            began, held = time.monotonic(), server.held()
            threads = [
                threading.Thread(target=fuzz, args=(server.port, o.seed * 1000 + n, o.requests // o.threads, findings))
                for n in range(o.threads)
            ]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
            facts: dict[str, Any] = {
                "requests": o.requests,
                "seconds": round(time.monotonic() - began, 1),
                "statuses": dict(sorted(findings.statuses.items())),
                "bodies compared": findings.compared,
                "slowest, s": round(findings.slowest, 2),
                "held before": held,
                "held after": server.held(),
                "alive": psutil.pid_exists(server.process.pid) and server.process.poll() is None,
                "wrong": len(findings.wrong),
            }
            bugs = [line for line in log.read_text(errors="replace").splitlines() if "a bug" in line]
    for each in (findings.wrong + bugs)[:AT_MOST]:
        print(each, file=sys.stderr)
    print(json.dumps({**facts, "bugs in the log": len(bugs)}), flush=True)
    sys.exit(bool(findings.wrong or bugs or not facts["alive"]))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(ROOT))
    main()
