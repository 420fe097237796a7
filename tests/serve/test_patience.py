"""What is slow holds up only its like: origins, and clients that send or take their bytes one at a time."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from datahub.serve import bodies, library, running, state
from datahub.serve.config import Tokens
from datahub.serve.log import Lines, libraries
from tests.acquire.server import Behaviour, serving
from tests.serve.conftest import big_variant, content, digest_of, located
from tests.serve.running import DEADLINE
from tests.serve.test_filling import wait

FILES = ("dataset.json", "blocks.bin", "data.bin")
RECORD = "/v1/datasets/{}/1.0/published/dataset.json"
ESTABLISHED = "01"
READ, ADMIN = "r" * 32, "a" * 32
SHOWN = b"Authorization: Bearer %s\r\n"


def published(settings, name="big"):
    folder = located(settings, name).path
    return {f"/{name}/1.0/published/{each}": Behaviour(data=(folder / each).read_bytes()) for each in FILES}


def test_an_origin_that_hangs_holds_up_nothing_that_is_here(start, home, monkeypatch):
    monkeypatch.setattr(library, "FRESH_LOCAL", 0.0)
    let = threading.Event()
    with serving() as web, ThreadPoolExecutor(20) as pool:
        server = start(home, origin=(web.url,), origin_timeout=60.0)
        unknown = [RECORD.format(f"unknown{number}") for number in range(2 * state.ASKERS)]
        for path in unknown:
            web.paths[path.removeprefix("/v1/datasets")] = Behaviour(held=let, statuses=[404])
        asked = [pool.submit(server.ask, path) for path in unknown]
        assert wait(lambda: len(web.requests) >= state.ASKERS)
        began = time.monotonic()
        for path in (
            RECORD.format("tiny"),
            "/v1/datasets",
            "/v1/datasets/tiny",
            "/v1/cache",
            "/v1/jobs",
            "/metrics",
            "/",
        ):
            assert server.ask(path).status == 200, path
        assert time.monotonic() - began < 2.0 and not any(each.done() for each in asked)
        let.set()
        assert all(each.result(DEADLINE).status == 404 for each in asked)


def test_a_variant_is_served_as_it_was_while_its_origin_hangs(start, home, elsewhere, monkeypatch):
    monkeypatch.setattr(library, "FRESH_ORIGIN", 0.0)
    monkeypatch.setattr(state, "PATIENCE", 0.2)
    let = threading.Event()
    with serving() as web:
        web.paths.update(published(home))
        server = start(elsewhere, origin=(web.url,))
        first = server.ask(RECORD.format("big"))
        web.paths["/big/1.0/published/dataset.json"].held = let
        again = server.ask(RECORD.format("big"))
        assert (again.status, again.body) == (200, first.body) and not let.is_set()
        let.set()


def test_every_damaged_file_of_a_variant_comes_from_the_origin(start, home, elsewhere):
    """Two files of one variant are damaged: the origin is asked where it is once, for both."""
    from tests.store.builder import tiny_variant

    folder = tiny_variant(elsewhere.home)
    shards = sorted(folder.glob("*.tar"))[:2]
    whole = [each.read_bytes() for each in shards]
    for each in shards:
        each.write_bytes(bytes(each.stat().st_size))
    server = start(elsewhere, origin=(str(home.home),))
    for path, data in zip(shards, whole, strict=True):
        assert server.ask(f"/v1/datasets/tiny/1.0/published/{path.name}").body == data


SLOW = {
    "login": b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n",
    "login in chunks": b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n",
    "a command": b"POST /v1/cache/pin HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n" + SHOWN % ADMIN.encode(),
    "a job": b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n" + SHOWN % READ.encode(),
}


@pytest.mark.parametrize("head", SLOW.values(), ids=SLOW.keys())
def test_a_body_that_does_not_come_ends_the_connection(start, home, monkeypatch, head):
    monkeypatch.setattr(bodies, "PATIENCE", 0.2)
    server = start(home, tokens=Tokens((READ,), (ADMIN,)))
    with socket.create_connection((server.host, server.port), DEADLINE) as slow:
        slow.sendall(head + b"\r\n")
        assert slow.recv(1 << 16).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_is_too_large_is_refused(start, home):
    server = start(home, tokens=Tokens((READ,), (ADMIN,)))
    for path in ("/login", "/v1/cache/pin", "/v1/jobs"):
        answer = server.ask(path, "POST", b"x" * (bodies.LARGEST + 1), Authorization=f"Bearer {ADMIN}")
        assert answer.status == 413 and json.loads(answer.body)["error"] == "RequestEntityTooLarge"


def test_a_client_that_takes_nothing_is_let_go(start, settings, monkeypatch):
    """A file as large as any, or answers from memory: the kernel ends the connection, whatever is being sent."""
    monkeypatch.setattr(running, "STALL", 1.0)
    big_variant(settings.home, size=64 << 20)
    server = start(settings)
    path = f"/v1/blobs/{digest_of(settings)}"
    assert server.ask(path).body == content(size=64 << 20)
    asked = (f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n", "GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 800)
    taking = []
    for each in asked:
        idle = socket.socket()
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.connect((server.host, server.port))
        idle.sendall(each.encode())
        taking.append(idle)
    try:
        assert connected(server.port)
        assert wait(lambda: not connected(server.port))
    finally:
        for each in taking:
            each.close()
    assert wait(lambda: server.server.active == 0)


def test_a_client_that_leaves_with_its_last_byte_is_no_bug(tmp_path):
    """asyncio tells the sender of a file that ended a moment ago; whatever else it says goes into the log."""
    lines = Lines(str(tmp_path / "log"))
    with libraries(lines):
        for what, error in (("_call_connection_lost(None)", asyncio.InvalidStateError()), ("other()", ValueError())):
            logging.getLogger("asyncio").error(f"Exception in callback {what}", exc_info=error)
    lines.close()
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert "other()" in json.loads(line)["message"]


def connected(port: int) -> int:
    """The server's connections: the client of one that the kernel has ended is not told before it sends."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[1].endswith(f":{port:04X}") and line[3] == ESTABLISHED for line in lines)
