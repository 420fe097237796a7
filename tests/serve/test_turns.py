"""Who waits for whom: a client that takes much, or many that come at once, hold up nobody who is there already."""

from __future__ import annotations

import os
import select
import socket
import threading
from contextlib import ExitStack
from typing import Any

import pytest

from datahub.serve import sending, serving
from tests.serve.conftest import BIG, content, digest_of
from tests.serve.running import DEADLINE, Running

HERD = 100


@pytest.fixture
def sent(monkeypatch) -> list[int]:
    """The bytes that each call of sendfile was to send at most."""
    found: list[int] = []
    whole = os.sendfile

    def sendfile(out: int, file: int, offset: int, count: int) -> int:
        found.append(count)
        return whole(out, file, offset, count)

    monkeypatch.setattr(os, "sendfile", sendfile)
    return found


def test_a_client_that_keeps_up_is_sent_a_turn_at_a_time(server: Running, home, monkeypatch, sent):
    turn = 1 << 18
    monkeypatch.setattr(sending, "TURN", turn)
    path = f"/v1/blobs/{digest_of(home)}"
    assert server.ask(path).body == content()
    sent.clear()
    assert server.ask(path).body == content()
    assert max(sent) == turn and len(sent) >= BIG // turn


def test_others_have_their_turn_while_a_client_keeps_up(server: Running, home, monkeypatch):
    """The second request comes with the first bytes of the first one's answer, which takes all that it is sent."""
    monkeypatch.setattr(sending, "TURN", 1 << 18)
    path = f"/v1/blobs/{digest_of(home)}"
    assert server.ask(path).status == 200  # it is verified
    order: list[int] = []
    whole = os.sendfile
    with socket.create_connection((server.host, server.port), DEADLINE) as other:

        def sendfile(out: int, file: int, offset: int, count: int) -> int:
            if not order:
                other.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes=7-9\r\n\r\n".encode())
            order.append(offset)
            done = 0
            while done < count and select.select([], [out], [], DEADLINE)[1]:
                done += whole(out, file, offset + done, count - done)
            return done

        monkeypatch.setattr(os, "sendfile", sendfile)
        assert server.ask(path).body == content()
        assert other.recv(1 << 16).startswith(b"HTTP/1.1 206")
    assert order.index(7) < order.index(max(order))


class Held:
    """A server whose loop does nothing until it is let."""

    def __init__(self, server: Running) -> None:
        self.let, self.held = threading.Event(), threading.Event()
        server.loop.call_soon_threadsafe(self._hold)
        assert self.held.wait(DEADLINE)

    def _hold(self) -> None:
        self.held.set()
        self.let.wait(DEADLINE)


ASK = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def herd_at(server: Running, stack: ExitStack) -> list[socket.socket]:
    return [stack.enter_context(socket.create_connection((server.host, server.port), DEADLINE)) for _ in range(HERD)]


def answered(clients: list[socket.socket]) -> bool:
    for each in clients:
        each.sendall(ASK)
    return all(each.recv(1 << 12).startswith(b"HTTP/1.1 200") for each in clients)


def test_those_who_come_while_it_is_busy_wait_in_line(server: Running):
    held = Held(server)
    with ExitStack() as stack:
        herd = herd_at(server, stack)
        held.let.set()
        assert answered(herd)


def test_who_is_there_does_not_wait_for_many_that_come(start, home, monkeypatch):
    taken: list[int] = []
    factory = serving._factory

    def counting(*arguments: Any) -> Any:
        make = factory(*arguments)

        def connection() -> Any:
            taken.append(1)
            return make()

        return connection

    monkeypatch.setattr(serving, "_factory", counting)
    server = start(home)
    seen: list[int] = []
    metrics = server.server.metrics
    count = metrics.request
    monkeypatch.setattr(metrics, "request", lambda *facts: (seen.append(len(taken)), count(*facts)))
    with ExitStack() as stack:
        there = stack.enter_context(socket.create_connection((server.host, server.port), DEADLINE))
        assert answered([there]) and seen == [1]
        held = Held(server)
        herd = herd_at(server, stack)
        there.sendall(ASK)
        held.let.set()
        assert there.recv(1 << 12).startswith(b"HTTP/1.1 200")
        assert seen[1] <= 1 + 5 * serving.AT_ONCE < HERD
        assert answered(herd)
