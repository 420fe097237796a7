"""Telling cache servers of a job never holds up, and never raises into, whoever reads."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from datahub.stream import herald as module
from datahub.stream.herald import Herald, Voice
from datahub.wire.messages import JobAsked

DEADLINE = 20.0


class Told:
    """A server that answers with ``status`` and remembers what it was told."""

    def __init__(self, *, status: int = 200, hang: float = 0.0) -> None:
        self.status, self.hang = status, hang
        self.said: list[tuple[str, str, dict[str, object]]] = []
        self.heard = threading.Condition()
        told = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with told.heard:
                    told.said.append((self.command, self.path, json.loads(body) if body else {}))
                    told.heard.notify_all()
                time.sleep(told.hang)
                self.send_response(told.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_DELETE = _answer

            def log_message(self, *_: object) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def wait(self, enough: Callable[[list[tuple[str, str, dict[str, object]]]], bool]) -> bool:
        with self.heard:
            return self.heard.wait_for(lambda: enough(self.said), DEADLINE)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def told(**how: float) -> Iterator[Told]:
    found = Told(**how)  # type: ignore[arg-type]
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(module, "EVERY", 0.02)


def voice(*servers: str, positions: list[int] | None = None) -> Voice:
    left = iter(positions) if positions is not None else None

    def say() -> JobAsked | None:
        position = 0 if left is None else next(left, None)
        return None if position is None else JobAsked(job="run.train.0000", dataset="d@1/v", position=position)

    return Voice("run.train.0000", servers, say)


def test_it_says_how_far_it_is_until_its_owner_goes_and_that_it_ended(often):
    with told() as server:
        herald = Herald()
        herald.begin(voice(server.url, positions=[0, 64, 128]))
        assert server.wait(lambda said: any(verb == "DELETE" for verb, _, _ in said))
        assert [body["position"] for verb, _, body in server.said if verb == "POST" and "position" in body] == [64, 128]
        assert server.said[-1][:2] == ("DELETE", "/v1/jobs/run.train.0000")
        assert [verb for verb, _, _ in server.said] == ["POST"] * 3 + ["DELETE"]


def test_it_is_ended_once(often):
    with told() as server:
        herald, one = Herald(), voice(server.url)
        herald.begin(one)
        herald.begin(one)
        assert server.wait(lambda said: len(said) >= 2)
        herald.end(one)
        herald.end(one)
        assert server.wait(lambda said: any(verb == "DELETE" for verb, _, _ in said))
        herald.part()
        assert sum(verb == "DELETE" for verb, _, _ in server.said) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 501])
def test_a_server_that_wants_to_hear_nothing_is_left_alone(often, status):
    with told(status=status) as server:
        herald = Herald()
        herald.begin(voice(server.url))
        thread = herald._thread
        assert thread is not None
        thread.join(DEADLINE)
        assert not thread.is_alive() and len(server.said) == 1


def test_one_that_fails_is_told_later_and_others_at_once(often):
    with told(status=503) as failing, told() as well:
        herald = Herald()
        herald.begin(voice(failing.url, well.url))
        assert well.wait(lambda said: len(said) >= 10)
        assert 1 <= len(failing.said) < 8
        assert {body["here"] for _, _, body in well.said} == {well.url}
        assert well.said[0][2]["servers"] == [failing.url, well.url]
        herald.part()


def test_a_server_that_hangs_delays_neither_a_beginning_nor_an_end(often):
    with told(hang=5.0) as server:
        herald, one = Herald(), voice(server.url)
        began = time.monotonic()
        herald.begin(one)
        assert server.wait(lambda said: len(said) == 1)
        herald.end(one)
        assert time.monotonic() - began < 1.0
        herald.part(0.2)
        assert time.monotonic() - began < 2.0


def test_what_raises_while_it_is_asked_is_asked_again(often):
    answers = iter([RuntimeError("taken apart"), JobAsked(job="a", dataset="d@1/v"), None])

    def say() -> JobAsked | None:
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    with told() as server:
        Herald().begin(Voice("a", [server.url], say))
        assert server.wait(lambda said: [verb for verb, _, _ in said] == ["POST", "DELETE"])


def test_a_programs_end_ends_its_jobs_and_no_server_delays_it():
    script = """
import sys, time
from datahub.stream.herald import HERALD, Voice
from datahub.wire.messages import JobAsked
HERALD.begin(Voice("a", [sys.argv[1]], lambda: JobAsked(job="a", dataset="d@1/v")))
sys.stdin.readline()
print(time.monotonic())
"""
    for hang in (0.0, 60.0):
        with told(hang=hang) as server:
            process = subprocess.Popen(
                [sys.executable, "-c", script, server.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert server.wait(lambda said: len(said) >= 1)
            out, _ = process.communicate("\n", timeout=DEADLINE)
            assert process.returncode == 0 and time.monotonic() - float(out) < 4.0
            if not hang:
                assert server.said[-1][:2] == ("DELETE", "/v1/jobs/a")
