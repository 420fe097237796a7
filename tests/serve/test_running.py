"""``datahub serve`` as an operator runs it: processes, signals, settings and what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from datahub.core.errors import BadArgument
from datahub.serve.config import ServeConfig, resolve, tokens_of
from tests.serve.conftest import BIG, big_variant, content, digest_of

DEADLINE = 60.0


class Process:
    """A server of its own, once it has said where it is."""

    def __init__(self, home: Path, *options: str, under: Sequence[str] = (), **environ: str) -> None:
        command = [*under, sys.executable, "-m", "datahub", "serve", "--store", str(home), "--port", "0", *options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environ}
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        found = re.search(r"(https?)://([0-9.]+):(\d+)", self.line)
        assert found, self.end(signal.SIGKILL)
        self.url, self.port = found[0], int(found[3])

    def get(self, path: str, context: ssl.SSLContext | None = None, **headers: str) -> bytes:
        asked = urllib.request.Request(self.url + path, headers=headers)
        with urllib.request.urlopen(asked, timeout=DEADLINE, context=context) as answer:
            return bytes(answer.read())

    def children(self) -> list[int]:
        pid = self.process.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, errors


@pytest.fixture
def launch(settings: Any) -> Iterator[Callable[..., Process]]:
    big_variant(settings.home)
    made: list[Process] = []

    def begin(*options: str, **environ: str) -> Process:
        made.append(Process(settings.home, *options, **environ))
        return made[-1]

    yield begin
    for each in made:
        with each.process as process:  # closes its pipes
            process.kill()


def test_one_line_says_where_and_what_and_sigterm_ends_it(launch, settings):
    server = launch()
    assert server.line == f"serving {settings.home} at {server.url}, without tokens\n"
    assert server.get(f"/v1/blobs/{digest_of(settings)}") == content()
    code, log = server.end()
    assert code == 0
    assert [json.loads(line)["status"] for line in log.splitlines()] == [200]


def test_an_answer_that_was_begun_is_ended_before_the_server_is(launch, settings):
    server = launch("--access-log", "off")
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.sendall(f"GET /v1/blobs/{digest_of(settings)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        found = client.recv(1 << 16)
        server.process.send_signal(signal.SIGTERM)
        assert wait(lambda: refused(server.port))
        while data := client.recv(1 << 20):
            found += data
    assert found.partition(b"\r\n\r\n")[2] == content()
    assert server.process.wait(DEADLINE) == 0


def test_a_drain_that_is_cut_short_exits_as_the_signal_says(launch, settings):
    server = launch("--access-log", "off", "--drain", "0.2")
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.sendall(f"GET /v1/blobs/{digest_of(settings)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.recv(1 << 10)
        assert server.end()[0] == 143


def test_several_processes_count_together_and_are_started_again(launch, settings):
    server = launch("--workers", "2", "--access-log", "off")
    assert "2 processes" in server.line and wait(lambda: len(server.children()) == 2)
    for _ in range(12):  # each of a connection of its own, which the kernel gives to either
        assert server.get(f"/v1/blobs/{digest_of(settings)}", Range="bytes=0-999") == content()[:1000]
    assert b'datahub_sent_bytes_total{dataset="big@1.0/published"} 12000.0' in server.get("/metrics")
    killed = server.children()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    assert server.get(f"/v1/blobs/{digest_of(settings)}") == content()
    assert wait(lambda: len(server.children()) == 2) and not set(killed) & set(server.children())
    assert server.end()[0] == 0


def test_processes_end_with_their_parent_and_leave_nothing(launch, tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    server = launch("--workers", "2", "--access-log", "off", TMPDIR=str(folder))
    assert wait(lambda: len(server.children()) == 2)
    children = server.children()
    assert list(folder.iterdir())
    server.end(signal.SIGKILL)
    assert wait(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() and alive(pid) for pid in children))
    assert not list(folder.iterdir())


def test_tls(launch, settings, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = f"-x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x -keyout {key} -out {cert}".split()
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(["openssl", "req", *made, *names], check=True, capture_output=True)
    server = launch("--cert", str(cert), "--key", str(key), "--access-log", "off")
    context = ssl.create_default_context(cafile=str(cert))
    assert server.url.startswith("https://")
    assert server.get(f"/v1/blobs/{digest_of(settings)}", context) == content()
    ranged = server.get(f"/v1/blobs/{digest_of(settings)}", context, Range=f"bytes=100-{BIG - 2}")
    assert ranged == content()[100 : BIG - 1]


def run(*options: str, **environ: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "datahub", "serve", *options],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env={**os.environ, **environ},
    )
    return done.returncode, done.stderr


def test_what_cannot_be_is_one_line_and_exit_2(tmp_path):
    short = str(tmp_path / "short")
    Path(short).write_text("abc\n")
    (tmp_path / "bad.toml").write_text("prot = 1\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        cases: list[tuple[list[str], str]] = [
            (["--host", "0.0.0.0"], "without a token"),
            (["--port", str(taken.getsockname()[1])], "cannot be had"),
            (["--token-file", str(tmp_path / "none")], "cannot be read"),
            (["--config", str(tmp_path / "bad.toml")], "is not a setting"),
            (["--port", "0"], "holds no datasets"),
            (["--port", "0", "--origin", "foo://bucket"], "no file system is known"),
            (["--cert", short, "--key", short, "--port", "0", "--allow-fetch"], "cannot be used"),
        ]
        for options, said in cases:
            code, errors = run("--store", str(tmp_path / "home"), *options)
            assert code == 2 and said in errors and errors.count("\n") == 1, (options, errors)


def test_flags_win_over_the_environment_over_the_file(tmp_path):
    file = tmp_path / "serve.toml"
    file.write_text('port = 1\nworkers = 3\nquota = "5GB"\norigin = ["s3://a", "/b"]\n')
    environ = {"DATAHUB_SERVE_PORT": "2", "DATAHUB_SERVE_INSECURE": "yes", "DATAHUB_SERVE_RATE": "1.5"}
    config = resolve({"port": 3, "origin": ()}, environ, file)
    assert config == ServeConfig(
        port=3, workers=3, quota=5_000_000_000, origin=("s3://a", "/b"), insecure=True, rate=1.5
    )
    assert resolve({}, environ, file).port == 2
    assert resolve({}, {"DATAHUB_SERVE_ORIGIN": "http://a http://b"}, None).origin == ("http://a", "http://b")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"port": 70000}, "not between"),
        ({"workers": 0}, "not between"),
        ({"quota": "much"}, "not a size"),
        ({"quota": "0"}, "positive"),
        ({"cert": "a"}, "TLS needs --key too"),
        ({"host": "::"}, "without a token"),
        ({"host": "cache.example"}, "without a token"),
        ({"origin_timeout": "soon"}, "is no number"),
        ({"rate": -1.0}, "positive"),
    ],
)
def test_settings_that_cannot_be(flags, said):
    with pytest.raises(BadArgument, match=said):
        resolve(flags, {}, None)


def test_short_and_missing_tokens_are_refused(tmp_path):
    for text, said in (("short\n", "fewer than 16"), ("# none\n", "holds no token")):
        (tmp_path / "tokens").write_text(text)
        with pytest.raises(BadArgument, match=said):
            tokens_of(ServeConfig(token_file=tmp_path / "tokens"))


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return True
    return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False
