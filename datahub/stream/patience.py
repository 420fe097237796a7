"""Reading a range although the origin fails now and then: taken up where it broke off, with back-off and jitter.

A failure counts since the last byte that arrived. Where time or tries run out, the error names the origin's file.
"""

from __future__ import annotations

import mmap
import time

from datahub.acquire.policy import RetryPolicy
from datahub.core.errors import OriginError, OriginStalled
from datahub.stream.origin import Files

POLICY = RetryPolicy(attempts=7, base=0.1, cap=10.0)
ATTEMPT = 60.0
"""Seconds for one request, after which a connection that dribbles is given up for another."""
MAPPED = 1 << 20
"""Bytes from which on a buffer gets pages of its own."""


def read_range(
    files: Files, path: str, start: int, end: int, seconds: float, *, policy: RetryPolicy = POLICY
) -> bytes | memoryview:
    """Bytes ``[start, end)`` of a file. Raises `OriginStalled` after ``seconds``, else the last `OriginError`."""
    began, failures = time.monotonic(), 0
    received = _Received(end - start)
    while True:
        left = began + seconds - time.monotonic()
        had = received.count
        try:
            files.receive(path, start + had, end, min(ATTEMPT, max(left, 0.001)), received.put)
            return received.data[: received.count]
        except OriginError as error:
            failures = 1 if received.count > had else failures + 1
            if received.count >= end - start:
                return received.data
            pause(error, failures, began + seconds, policy, files.name(path), seconds)


class _Received:
    """``size`` bytes as they come. What comes whole is not copied.

    A large buffer is mapped, so that it goes back to the system whole: threads that come and go would leave holes of
    its size in the heaps of malloc, and a long run would grow by them.
    """

    def __init__(self, size: int) -> None:
        self.size, self.count = size, 0
        self.data: bytes | memoryview = b""

    def put(self, data: bytes) -> None:
        if not self.count and len(data) >= self.size:
            self.data, self.count = data, self.size
            return
        if not self.count:
            self.data = memoryview(_mapped(self.size) if self.size >= MAPPED else bytearray(self.size))
        end = min(self.count + len(data), self.size)
        self.data[self.count : end] = data[: end - self.count]  # type: ignore[index]
        self.count = end


def _mapped(size: int) -> mmap.mmap:
    """Memory of its own, whose pages are there at once where the kernel can do that: a fault each costs more.

    Not in large pages: where memory is in pieces, the kernel would move others' about to make one.
    """
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0))


def read_whole(files: Files, path: str, seconds: float, *, policy: RetryPolicy = POLICY) -> bytes:
    """A small file whole. Raises as `read_range`."""
    began, failures = time.monotonic(), 0
    while True:
        left = began + seconds - time.monotonic()
        try:
            return files.whole(path, min(ATTEMPT, max(left, 0.001)))
        except OriginError as error:
            failures += 1
            pause(error, failures, began + seconds, policy, files.name(path), seconds)


def pause(error: OriginError, failures: int, deadline: float, policy: RetryPolicy, name: str, seconds: float) -> None:
    """Wait until it is worth trying again; raises where it is not."""
    if not error.retryable or failures >= policy.attempts:
        raise error
    delay = policy.delay(failures, error)
    if time.monotonic() + delay >= deadline:
        raise OriginStalled(name, seconds, error.message.removeprefix(f"{name}: ")) from error
    time.sleep(delay)
