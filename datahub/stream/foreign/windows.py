"""A shard's bytes as its walker reads them: `LocalBytes` by ``pread``, `StreamedBytes` whole and in order.

Both digest what the walker looks at (headers, labels and texts, the beginning of every other member) and not what it
passes over: a digest that two machines agree on, however each reads, and that tells one shard's content from another's.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256

from datahub.core.digests import BLOCK
from datahub.pack.inflate import Window

AHEAD = 4
"""Blocks of one shard that are fetched at once."""
Fetched = Callable[[int], "tuple[bytes | memoryview, bytes]"]
"""Block number -> its bytes and their SHA-256."""


class _Watched(Window):
    """A window that digests what is read through it."""

    def __init__(self, descriptor: int, size: int) -> None:
        super().__init__(descriptor, 0, size)
        self._seen, self._watching = sha256(), True

    def read(self, size: int, /) -> bytes:
        data = self._bytes(size)
        if self._watching:
            self._seen.update(data)
        return data

    def _bytes(self, size: int) -> bytes:
        return super().read(size)

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """What is read meanwhile counts as passed over."""
        self._watching = False
        try:
            yield
        finally:
            self._watching = True

    @property
    def seen(self) -> str:
        """Hex digest of all that was looked at."""
        return self._seen.hexdigest()


class LocalBytes(_Watched):
    """A file of this machine."""

    whole = False
    """Whether all bytes pass through here, so that digests of images cost no further reads."""


class StreamedBytes(_Watched):
    """A shard that is fetched block by block, `AHEAD` at once, and all of it: its block digests come with it."""

    whole = True

    def __init__(self, size: int, fetch: Fetched, pool: ThreadPoolExecutor) -> None:
        super().__init__(-1, size)
        self._size, self._fetch, self._pool = size, fetch, pool
        self._coming: deque[Future[tuple[bytes | memoryview, bytes]]] = deque()
        self._asked = 0
        self._number, self._block = -1, memoryview(b"")
        self._raw = bytearray()

    def _bytes(self, size: int) -> bytes:
        wanted = min(size, self._size - self._at)
        pieces = []
        while wanted > 0:
            self._go_to(self._at // BLOCK)
            start = self._at % BLOCK
            piece = self._block[start : start + wanted]
            pieces.append(piece)
            self._at += len(piece)
            wanted -= len(piece)
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    def finish(self) -> bytes:
        """The digests of all blocks end to end, once those that nobody looked into have come as well."""
        self._go_to(-(-self._size // BLOCK) - 1)
        return bytes(self._raw)

    def drop(self) -> None:
        """Fetch no more."""
        while self._coming:
            self._coming.popleft().cancel()

    def _go_to(self, number: int) -> None:
        while self._number < number:
            self._ask()
            data, digest = self._coming.popleft().result()
            self._block = memoryview(data)
            self._raw += digest
            self._number += 1

    def _ask(self) -> None:
        while len(self._coming) < AHEAD and self._asked * BLOCK < self._size:
            self._coming.append(self._pool.submit(self._fetch, self._asked))
            self._asked += 1


@contextmanager
def local_bytes(path: str) -> Iterator[LocalBytes]:
    """Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield LocalBytes(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)
