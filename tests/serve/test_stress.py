"""Short versions of `fuzz_serve.py` and `stress_kill.py`, and clients that mean no good."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import socket
import time

import pytest

from datahub.serve import sending
from tests.benchmarks._requests import Requests
from tests.benchmarks._server import Serving
from tests.benchmarks.fuzz_serve import Findings, fuzz, trap, truth_of, weights
from tests.serve.conftest import big_variant, content, digest_of

DEADLINE = 30.0


def test_fuzzed_requests(server, home, capfd):
    weights(home.home)
    findings = Findings(truth_of(home.home))
    trap(home.home)
    fuzz(server.port, seed=1, count=1500, findings=findings)
    assert not findings.wrong, findings.wrong[0]
    assert findings.compared > 50 and len(findings.statuses) > 6
    assert "a bug" not in server.log.read_text()
    assert "Traceback" not in capfd.readouterr().err
    assert server.ask(f"/v1/blobs/{digest_of(home)}").body == content()


def test_the_same_seed_gives_the_same_requests():
    first, second = (Requests(["/v1/a", "/v1/b"], 100, 7) for _ in range(2))
    sent = [first.next() for _ in range(300)]
    assert sent == [second.next() for _ in range(300)]
    assert {each.framed for each in sent} == {True, False}


def test_an_answer_from_outside_is_found(tmp_path):
    """The fuzzer sees what it is there to see."""
    findings, requests = Findings({"/v1/a": b"right"}), Requests(["/v1/a"], 5, 0)
    sent = next(each for _ in range(1000) if (each := requests.next()).path == "/v1/a" and each.method == "GET")
    findings.look(sent, b"HTTP/1.1 500 X\r\n\r\n", b"", 0.0)
    findings.look(sent, b"HTTP/1.1 404 X\r\n\r\n", b"...no-answer-may-hold-this-6f1d", 0.0)
    if sent.framed:
        findings.look(sent, b"HTTP/1.1 200 OK\r\n\r\n", b"wrong", 0.0)
    assert [each.split(":")[0] for each in findings.wrong][:2] == ["status [500]", "a byte from outside"]


@pytest.mark.parametrize("value", ["http://[", "http://x:99999999", "null", "", "\xe9"])
def test_an_origin_that_is_no_url_is_another_site(server, value):
    answer = server.ask("/v1/cache/pin", "POST", json.dumps({"ref": "tiny"}).encode(), Origin=value)
    assert answer.status == 403 and json.loads(answer.body)["error"] == "OtherSite"


def test_what_is_no_http_leaves_no_token_in_the_log(server, capfd):
    for line in (b"Authorization: Bearer secret\x00secret", b"Bearer secret", b"X" * 9000 + b": secret"):
        answer = server.raw(b"GET /v1?token=secret HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.0 400") or answer.startswith(b"HTTP/1.1 400")
    assert server.ask("/healthz").status == 200
    assert "secret" not in capfd.readouterr().err and "secret" not in server.log.read_text()


def test_a_client_that_never_reads_is_dropped(start, settings, monkeypatch):
    """Its connection ends in bounded time, and what it would have been sent waits in no memory."""
    monkeypatch.setattr(sending, "STALL", 0.5)
    big_variant(settings.home, size=24 << 20)
    server = start(settings)
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(20):
            client = stack.enter_context(socket.create_connection((server.host, server.port), DEADLINE))
            client.sendall(f"GET /v1/blobs/{digest_of(settings)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            clients.append(client)
        deadline = time.monotonic() + DEADLINE
        while (lines := server.log.read_text().count('"broken"')) < 20 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert lines == 20
        for each in clients:
            with contextlib.suppress(ConnectionError):
                while each.recv(1 << 20):
                    pass
    assert server.ask(f"/v1/blobs/{digest_of(settings)}").body == content(size=24 << 20)


def test_killed_at_random_moments(settings, tmp_path):
    """The same with `stress_kill.py` at 200 moments; here a few, each followed by a read of all of it."""
    far, chance = tmp_path / "far", random.Random(0)
    big_variant(far)
    settings_far = type(settings)(home=far)
    path, options = f"/v1/blobs/{digest_of(settings_far)}", ["--origin", str(far), "--access-log", "off"]
    for workers in (1, 2):
        shutil.rmtree(settings.home, ignore_errors=True)
        with Serving(settings.home, *options, "--workers", str(workers)) as server:
            server.get("/v1/datasets/big/1.0/published/dataset.json")
            with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as client:
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                client.recv(1 + chance.randrange(1 << 16))
            server.kill(parent=workers == 2)
        with Serving(settings.home, *options) as server:
            assert server.get(path) == content()
