"""Signals to a server: what each ends, what it does not, and what SIGHUP has read again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acquire.server import Behaviour, serving
from tests.serve.conftest import big_variant, content, digest_of
from tests.serve.test_running import DEADLINE, Process, wait

LARGE = 32 << 20
"""Bytes: more than the buffers of a connection that nobody reads take."""
WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


@pytest.fixture
def launch(settings) -> Iterator[Callable[..., Process]]:
    big_variant(settings.home, size=LARGE)
    made: list[Process] = []

    def begin(*options: str) -> Process:
        made.append(Process(settings.home, *options))
        return made[-1]

    yield begin
    for each in made:
        with each.process as process:  # closes its pipes
            process.kill()


def refused(server: Process, token: str, context: ssl.SSLContext | None = None) -> bool:
    try:
        server.get("/v1/datasets", context, Authorization=f"Bearer {token}")
    except urllib.error.HTTPError as error:
        with error:
            return error.code == 401
    return False


@WORKERS
def test_new_tokens_and_a_new_log_without_an_end(launch, tmp_path, workers):
    tokens, log = tmp_path / "tokens", tmp_path / "log"
    old, new = "o" * 32, "n" * 32
    tokens.write_text(old)
    tokens.chmod(0o644)
    server = launch("--token-file", str(tokens), "--access-log", str(log), "--workers", workers)
    assert wait(lambda: len(server.children()) == (2 if workers == "2" else 0))
    assert not refused(server, old) and refused(server, new)
    assert wait(lambda: "everybody may read it" in log.read_text())
    tokens.write_text(new)
    log.rename(tmp_path / "log.1")
    server.process.send_signal(signal.SIGHUP)
    assert wait(lambda: log.exists() and log.read_text().count("were read again") == int(workers))
    assert all(refused(server, old) and not refused(server, new) for _ in range(8))
    for pid in server.children():
        os.kill(pid, signal.SIGKILL)  # those that take their place have the new ones too
    assert not refused(server, new)
    tokens.write_text("short")
    server.process.send_signal(signal.SIGHUP)
    assert wait(lambda: "goes on with what it had" in log.read_text())
    assert not refused(server, new)
    assert server.end()[0] == 0
    assert (tmp_path / "log.1").read_text().count("everybody may read it") == 1  # by whatever number of processes
    assert any(json.loads(line).get("path") == "/v1/datasets" for line in log.read_text().splitlines())


def test_a_new_certificate_without_an_end(launch, tmp_path):
    def make(name: str) -> str:
        files = f"-keyout {tmp_path}/{name}.key -out {tmp_path}/{name}.pem"
        command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} {files}"
        subprocess.run(command.split(), check=True, capture_output=True)
        return (tmp_path / f"{name}.pem").read_text()

    first, second = make("used"), make("next")
    server = launch("--cert", f"{tmp_path}/used.pem", "--key", f"{tmp_path}/used.key", "--access-log", "off")

    def shown() -> str:
        return ssl.get_server_certificate(("127.0.0.1", server.port), timeout=DEADLINE)

    assert shown().split() == first.split()
    for end in ("pem", "key"):
        (tmp_path / f"next.{end}").rename(tmp_path / f"used.{end}")
    server.process.send_signal(signal.SIGHUP)
    assert wait(lambda: shown().split() == second.split())


@WORKERS
def test_an_origin_that_hangs_does_not_hold_up_the_end(launch, workers):
    let = threading.Event()
    with serving() as web:
        web.paths["/slow/1.0/published/dataset.json"] = Behaviour(held=let, statuses=[404])
        server = launch("--origin", web.url, "--drain", "0.2", "--workers", workers, "--access-log", "off")
        with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as client:
            client.sendall(b"GET /v1/datasets/slow/1.0/published/dataset.json HTTP/1.1\r\nHost: x\r\n\r\n")
            assert wait(lambda: web.requests)
            assert server.end()[0] == 143 and not let.is_set()
        let.set()


@WORKERS
def test_a_second_signal_is_the_end_at_once(launch, settings, workers):
    server = launch("--drain", "600", "--workers", workers, "--access-log", "off")
    with stalled(server, settings):
        server.process.send_signal(signal.SIGTERM)
        assert wait(lambda: closed(server.port))
        assert server.end()[0] == 143


@WORKERS
def test_the_first_process_of_a_container_hears_the_second_signal_too(settings, workers):
    """The kernel spares such a process what signals do by default."""
    first = ["unshare", "--pid", "--fork", "--kill-child"]
    if not shutil.which("unshare") or subprocess.run([*first, "true"], capture_output=True).returncode:
        pytest.skip("no process namespaces here")
    big_variant(settings.home, size=LARGE)
    server = Process(settings.home, "--drain", "600", "--workers", workers, "--access-log", "off", under=first)
    with server.process as outside:
        try:
            (inside,) = server.children()
            with stalled(server, settings):
                os.kill(inside, signal.SIGTERM)
                assert wait(lambda: closed(server.port))
                os.kill(inside, signal.SIGTERM)
                assert outside.wait(DEADLINE) == 143
        finally:
            outside.kill()


def test_who_is_told_to_end_while_it_starts_has_not_failed(launch):
    server = launch("--workers", "2", "--access-log", "off")  # its processes were made, and import what they need
    assert server.end()[0] == 0


def test_an_interrupt_from_a_terminal_ends_what_was_begun(launch, settings):
    """Every process of the group is sent it."""
    server = launch("--workers", "2", "--access-log", "off")
    with stalled(server, settings) as client:
        for pid in (server.process.pid, *server.children()):
            os.kill(pid, signal.SIGINT)
        assert wait(lambda: closed(server.port))
        found = b""
        while data := client.recv(1 << 20):
            found += data
    assert found.partition(b"\r\n\r\n")[2] == content(size=LARGE)
    assert server.process.wait(DEADLINE) == 0


def stalled(server: Process, settings) -> socket.socket:
    """A connection on which the server is sending a large file."""
    client = socket.create_connection(("127.0.0.1", server.port), DEADLINE)
    client.sendall(f"GET /v1/blobs/{digest_of(settings)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert client.recv(1, socket.MSG_PEEK)
    return client


def closed(port: int) -> bool:
    """Whether nobody listens any more."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return not any(line[1].endswith(f":{port:04X}") and line[3] == "0A" for line in lines)
