"""Single samples read by their own ranges, where whole blocks would not be worth it, and checked by their own digests.

The index holds the SHA-256 of every image, so a range that is exactly one sample can be verified without its block.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datahub.core.errors import DigestMismatch
from datahub.store.cache.block import HINT, Data
from datahub.store.dataset import Split
from datahub.stream.fetcher import Fetcher

TRIES = 3
"""Times a sample is fetched whose bytes are wrong."""
HELD = 64 << 20
"""Bytes of samples that are fetched ahead into memory."""

Span = tuple[int, int, int]
"""(shard, offset, size)."""


class Vouchers:
    """The digest of the sample that a span is, from a split's locate rows and index. 32 bytes of memory a sample."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def digest(self, span: Span) -> bytes | None:
        """None where the span is not exactly one sample's image."""
        shard, offset, size = span
        rows = self._split.locate
        first, end = self._edges[shard], self._edges[shard + 1]
        row = first + int(np.searchsorted(rows["offset"][first:end], offset))
        if row >= end or (int(rows["offset"][row]), int(rows["size"][row])) != (offset, size):
            return None
        found: bytes = self._digests[row].tobytes()
        return found

    @cached_property
    def _edges(self) -> list[int]:
        """The first row of each shard: rows stand in the order of the shards, and within one in that of their bytes."""
        return np.cumsum([0, *self._split.shard_samples]).tolist()  # type: ignore[no-any-return]

    @cached_property
    def _digests(self) -> NDArray[Any]:
        column = self._split.table(["sha256"])["sha256"]
        found = b"".join(bytes.fromhex("".join(chunk.to_pylist())) for chunk in column.chunks)
        return np.frombuffer(found, np.uint8).reshape(-1, 32)


class Singles:
    """Samples fetched each by its own range, ahead of need into memory. Safe in threads.

    ``fetch`` reads (shard, start, end) at the origin; ``name`` says what a shard is called there.
    """

    def __init__(
        self,
        vouchers: Vouchers,
        fetcher: Fetcher,
        fetch: Callable[[int, int, int], Data],
        name: Callable[[int], str],
        hint: str = HINT,
    ) -> None:
        """``hint``: what to do where bytes are wrong."""
        self._hint = hint
        self._vouchers, self._fetcher, self._fetch, self._name = vouchers, fetcher, fetch, name
        self._lock = threading.Lock()
        self._held: dict[Span, Future[Any]] = {}
        self._bytes = 0

    def get(self, span: Span) -> Future[Any] | None:
        """The sample, held or asked for now; None where nothing vouches for the span."""
        with self._lock:
            future = self._held.pop(span, None)
            if future is not None:
                self._bytes -= span[2]
        if future is not None and not future.cancelled():
            return self._ask(span, urgent=True) if not future.done() else future
        return self._ask(span, urgent=True)

    def ahead(self, spans: Iterable[Span]) -> bool:
        """Begin to fetch; False: as much is held as may be."""
        for span in spans:
            with self._lock:
                new = span not in self._held
            future = self._ask(span, urgent=False) if new else None
            if future is not None:
                with self._lock:
                    self._held[span] = future
                    self._bytes += span[2]
        return self._bytes < HELD

    def clear(self) -> None:
        with self._lock:
            self._held.clear()
            self._bytes = 0

    def _ask(self, span: Span, *, urgent: bool) -> Future[Any] | None:
        digest = self._vouchers.digest(span)
        if digest is None:
            return None
        key = "{}:{}:{}".format(*span)
        return self._fetcher.ask(key, lambda _: self._checked(span, digest), urgent=urgent)

    def _checked(self, span: Span, digest: bytes) -> Data:
        """The sample's bytes, right; fetched again where they are not."""
        shard, offset, size = span
        for _ in range(TRIES):
            data = self._fetch(shard, offset, offset + size)
            actual = sha256(data)
            if actual.digest() == digest:
                return data
        where = f"{self._name(shard)} bytes {offset}-{offset + size}"
        raise DigestMismatch(where, f"sha256:{digest.hex()}", f"sha256:{actual.hexdigest()}", self._hint)
