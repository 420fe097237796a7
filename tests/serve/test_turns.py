"""Who waits for whom: a client that takes much holds up no other, and many that come at once are let wait."""

from __future__ import annotations

import os
import select
import socket
import threading
from contextlib import ExitStack

import pytest

from datahub.serve import sending
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


def test_those_who_come_while_it_is_busy_wait_in_line(server: Running):
    held, let = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        let.wait(DEADLINE)

    server.loop.call_soon_threadsafe(hold)
    assert held.wait(DEADLINE)
    with ExitStack() as stack:
        where = server.host, server.port
        herd = [stack.enter_context(socket.create_connection(where, DEADLINE)) for _ in range(HERD)]
        let.set()
        for each in herd:
            each.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert all(each.recv(1 << 12).startswith(b"HTTP/1.1 200") for each in herd)
