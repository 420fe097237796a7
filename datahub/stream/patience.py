"""Reading a range although the origin fails now and then: taken up where it broke off, with back-off and jitter.

A failure counts since the last byte that arrived. Where time or tries run out, the error names the origin's file.
"""

from __future__ import annotations

import time

from datahub.acquire.policy import RetryPolicy
from datahub.core.errors import OriginError, OriginStalled
from datahub.stream.origin import Files

POLICY = RetryPolicy(attempts=7, base=0.1, cap=10.0)
ATTEMPT = 60.0
"""Seconds for one request, after which a connection that dribbles is given up for another."""


def read_range(
    files: Files, path: str, start: int, end: int, seconds: float, *, policy: RetryPolicy = POLICY
) -> bytes | memoryview:
    """Bytes ``[start, end)`` of a file. Raises `OriginStalled` after ``seconds``, else the last `OriginError`."""
    began = time.monotonic()
    received, failures = bytearray(), 0
    pieces: list[bytes] = []
    while True:
        left = began + seconds - time.monotonic()
        had = len(received)
        try:
            files.receive(path, start + had, end, min(ATTEMPT, max(left, 0.001)), pieces.append)
            return pieces[0] if len(pieces) == 1 and not had else memoryview(received + b"".join(pieces))
        except OriginError as error:
            received += b"".join(pieces)
            pieces.clear()
            failures = 1 if len(received) > had else failures + 1
            if len(received) >= end - start:
                return memoryview(received)
            pause(error, failures, began + seconds, policy, files.name(path), seconds)


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
