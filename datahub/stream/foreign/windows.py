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
from datahub.pack.inflate import Stream, kind_of

AHEAD = 4
"""Blocks of one shard that are fetched at once."""
LOOK = 8 << 10
"""Bytes read at once where fewer are asked for: a header, those that extend it, and the head of its member."""
DIGEST = 64 << 10
"""Bytes that are digested at once."""
Fetched = Callable[[int], "tuple[bytes | memoryview, bytes]"]
"""Block number -> its bytes and their SHA-256."""


class ShardBytes(Stream):
    """A stream of ``size`` bytes as they stand, that digests what is read of it and not what is skipped."""

    whole = False
    """Whether all bytes pass through here, so that digests of images cost no further reads."""

    def __init__(self, path: str, size: int) -> None:
        self.path, self.place, self.at = path, "", 0
        self._size = size
        self._seen, self._looked, self._watching = sha256(), bytearray(), True
        self.kind = kind_of(self._bytes(6))

    def read(self, size: int, /) -> bytes:
        data = self._bytes(size)
        self.at += len(data)
        if self._watching:
            self._looked += data
            if len(self._looked) > DIGEST:
                self._digest()
        return data

    def skip(self, size: int) -> int:
        passed = min(size, self._size - self.at)
        self.at += passed
        return passed

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
        self._digest()
        return self._seen.hexdigest()

    def _digest(self) -> None:
        self._seen.update(self._looked)
        self._looked.clear()

    def _bytes(self, size: int) -> bytes:
        """At most ``size`` bytes from where the stream is."""
        raise NotImplementedError


class LocalBytes(ShardBytes):
    """A file of this machine. Raises ``OSError``."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._descriptor, self._buffer, self._start = descriptor, b"", 0
        super().__init__(path, os.fstat(descriptor).st_size)

    def _bytes(self, size: int) -> bytes:
        first = self.at - self._start
        if not 0 <= first <= first + size <= len(self._buffer):
            self._buffer, self._start, first = os.pread(self._descriptor, max(size, LOOK), self.at), self.at, 0
        return self._buffer[first : first + size]


class StreamedBytes(ShardBytes):
    """A shard that is fetched block by block, `AHEAD` at once, and all of it: its block digests come with it."""

    whole = True

    def __init__(self, path: str, size: int, fetch: Fetched, pool: ThreadPoolExecutor) -> None:
        self._fetch, self._pool = fetch, pool
        self._coming: deque[Future[tuple[bytes | memoryview, bytes]]] = deque()
        self._asked = 0
        self._number, self._block = -1, memoryview(b"")
        self._raw = bytearray()
        self._size = size
        super().__init__(path, size)

    def _bytes(self, size: int) -> bytes:
        at, end = self.at, min(self.at + size, self._size)
        pieces = []
        while at < end:
            self._go_to(at // BLOCK)
            start = at % BLOCK
            pieces.append(self._block[start : start + end - at])
            at += len(pieces[-1])
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
        yield LocalBytes(path, descriptor)
    finally:
        os.close(descriptor)
