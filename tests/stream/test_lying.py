"""Servers that answer for several ranges what nobody asked for, or never to the end: nobody waits without end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from datahub.core.errors import ConnectionLost
from datahub.core.refs import Ref
from datahub.stream.served import ServedFiles
from datahub.wire.multipart import end_of, head_of
from datahub.wire.ranges import Range

WHOLE = bytes(range(256)) * 64
SPANS = [Range(0, 100), Range(200, 300), Range(5000, 9000)]
PARTS = [head_of("xyz", "a/b", each, len(WHOLE)) + WHOLE[each.start : each.end] for each in SPANS]
END = end_of("xyz")
LONG = 1 << 40
DEADLINE = 20.0
Script = Callable[[], Iterator[bytes]]


def multipart(size: int = LONG) -> bytes:
    kind = "multipart/byteranges; boundary=xyz"
    return f"HTTP/1.1 206 Partial\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n\r\n".encode()


def dripping() -> Iterator[bytes]:
    """A byte now and then, long after whoever waits should have given up."""
    ended = threading.Event()
    for _ in range(int(DEADLINE * 20)):
        ended.wait(0.05)
        yield b"x"


def dripped() -> Iterator[bytes]:
    yield multipart() + PARTS[0] + PARTS[1] + PARTS[2][:500]
    yield from dripping()


def dripped_after_all() -> Iterator[bytes]:
    yield multipart() + b"".join(PARTS)
    yield from dripping()


def cut_after_all() -> Iterator[bytes]:
    body = b"".join(PARTS)
    yield multipart(len(body) + len(END)) + body


def endless() -> Iterator[bytes]:
    yield multipart() + b"".join(PARTS) + END
    while True:
        yield b"x" * (1 << 16)


def whole_dripped() -> Iterator[bytes]:
    yield f"HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n".encode()
    yield from dripping()


def whole_endless() -> Iterator[bytes]:
    yield f"HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n".encode()
    while True:
        yield WHOLE


class Liar:
    """Answers whatever it is asked with one script."""

    def __init__(self, script: Script) -> None:
        self._script, self._listening = script, socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.asked: list[bytes] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            while True:
                threading.Thread(target=self._one, args=self._listening.accept()[:1], daemon=True).start()
        except OSError:
            pass

    def _one(self, connection: socket.socket) -> None:
        with connection:
            try:
                self.asked.append(connection.recv(1 << 16))
                for data in self._script():
                    connection.sendall(data)
            except OSError:
                pass

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture
def liar() -> Iterator[Callable[[Script], Liar]]:
    found: list[Liar] = []

    def begin(script: Script) -> Liar:
        found.append(Liar(script))
        return found[-1]

    yield begin
    for each in found:
        each.close()


def asked(*servers: Liar, seconds: float = 1.0) -> tuple[dict[int, bytes], BaseException | None]:
    """What came, and what was raised; within `DEADLINE`."""
    found: dict[int, bytes] = {}
    raised: list[BaseException] = []
    files = ServedFiles([each.url for each in servers], Ref("a", "1", "b"))

    def ask() -> None:
        try:
            files.receive_many("s.tar", SPANS, seconds, found.__setitem__)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            raised.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive(), "it waits without end"
    return found, raised[0] if raised else None


RIGHT = {number: WHOLE[each.start : each.end] for number, each in enumerate(SPANS)}


@pytest.mark.parametrize("script", [dripped, whole_dripped, whole_endless], ids=lambda each: each.__name__)
def test_what_is_not_there_in_time_is_reported(liar, script):
    found, error = asked(liar(script))
    assert isinstance(error, ConnectionLost)
    assert found.items() <= RIGHT.items()


@pytest.mark.parametrize("script", [dripped_after_all, cut_after_all, endless], ids=lambda each: each.__name__)
def test_what_comes_after_the_last_part_is_no_matter(liar, script):
    first, second = liar(script), liar(script)
    assert asked(first, second, seconds=3.0) == (RIGHT, None)
    assert len(first.asked) + len(second.asked) == 1
