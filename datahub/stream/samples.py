"""Single samples read by their own ranges, where whole blocks would not be worth it, and checked by their own digests.

The index holds the SHA-256 of every image, so a range that is exactly one sample can be verified without its block.
Samples of one shard come together where the origin can give them so: a request costs more than a sample's bytes.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datahub.core.errors import DigestMismatch, OriginError
from datahub.store.cache.block import HINT, Data
from datahub.store.dataset import Split
from datahub.stream.fetcher import Fetcher
from datahub.wire.ranges import MOST, Range

TRIES = 3
"""Times a sample is fetched whose bytes are wrong."""
HELD = 64 << 20
"""Bytes of samples that are fetched ahead into memory."""

LATER = 16 << 20
"""Bytes of samples that are announced before they are asked for."""
TOGETHER = 8 << 20
"""Bytes of samples after which a request is long enough."""

Span = tuple[int, int, int]
"""(shard, offset, size)."""
Vouched = tuple[Span, bytes]
"""A sample and its SHA-256."""
Many = Callable[[int, Sequence[Range], Callable[[int, bytes], None]], None]
"""Reads ranges of a shard: each is handed over whole, with its number."""
Coming = Callable[[float], Data]
"""Waits for a sample, so many seconds at most."""


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


@dataclass(eq=False, slots=True)
class _Group:
    """Samples that are asked for together. ``data`` holds those that came, until they are taken."""

    key: str
    members: list[Vouched]
    data: list[Data | None]
    future: Future[Any] = field(default_factory=Future)


class Singles:
    """Samples fetched by their own ranges, ahead of need into memory. Safe in threads.

    ``fetch`` reads (shard, start, end) at the origin, ``fetch_many`` several ranges of a shard with one request, where
    the origin can; ``name`` says what a shard is called there, ``hint`` what to do where bytes are wrong.
    """

    def __init__(
        self,
        vouchers: Vouchers,
        fetcher: Fetcher,
        fetch: Callable[[int, int, int], Data],
        name: Callable[[int], str],
        hint: str = HINT,
        *,
        fetch_many: Many | None = None,
        wrong: Callable[[], None] = lambda: None,
    ) -> None:
        """``wrong`` is called where what this thread fetched is, before it is fetched again."""
        self._vouchers, self._fetcher, self._fetch, self._name, self._hint = vouchers, fetcher, fetch, name, hint
        self._fetch_many, self._wrong = fetch_many, wrong
        self._lock, self._number = threading.Lock(), itertools.count()
        self._held: dict[Span, tuple[_Group, int]] = {}
        self._later: dict[Span, bytes] = {}
        """Announced, and not asked for yet: with those announced next there will be more of each shard."""
        self._bytes = self._bytes_later = 0

    def get(self, spans: Iterable[Span]) -> dict[Span, Coming]:
        """The samples, held or asked for now; without those that nothing vouches for."""
        wanted = dict.fromkeys(spans)
        with self._lock:
            self._ask_later(wanted)
            found = {span: held for span in wanted if (held := self._held.pop(span, None)) is not None}
            self._bytes -= sum(span[2] for span in found)
        for key in {group.key for group, _ in found.values() if not group.future.done()}:
            self._fetcher.hurry(key)
        found |= self._ask(self._vouched(span for span in wanted if span not in found), urgent=True)
        return {span: partial(self._come, *each) for span, each in found.items()}

    def ahead(self, spans: Iterable[Span]) -> bool:
        """Begin to fetch; False: as much is held as may be."""
        vouched = self._vouched(spans)
        with self._lock:
            for span, digest in vouched.items():
                if span not in self._held and span not in self._later:
                    self._later[span] = digest
                    self._bytes_later += span[2]
            if self._bytes_later >= LATER or self._fetch_many is None:
                self._ask_later(self._later)
            return self._bytes + self._bytes_later < HELD

    def clear(self) -> None:
        with self._lock:
            self._held.clear()
            self._later.clear()
            self._bytes = self._bytes_later = 0

    def _vouched(self, spans: Iterable[Span]) -> dict[Span, bytes]:
        return {span: digest for span in spans if (digest := self._vouchers.digest(span)) is not None}

    def _ask_later(self, wanted: Collection[Span]) -> None:
        """Ask now for what was announced, where some of it is wanted. Under the lock."""
        if any(span in self._later for span in wanted):
            self._held |= self._ask(self._later, urgent=False)
            self._bytes, self._bytes_later = self._bytes + self._bytes_later, 0
            self._later = {}

    def _ask(self, vouched: Mapping[Span, bytes], *, urgent: bool) -> dict[Span, tuple[_Group, int]]:
        """Ask for samples in groups; each sample's group and place in it."""
        asked: dict[Span, tuple[_Group, int]] = {}
        for members in groups(vouched.items(), MOST if self._fetch_many is not None else 1):
            group = _Group(f"samples {next(self._number)}", members, [None] * len(members))
            asked |= {span: (group, place) for place, (span, _) in enumerate(members)}
            group.future = self._fetcher.ask(group.key, partial(self._bring, group), urgent=urgent)
        return asked

    def _bring(self, group: _Group, urgent: bool) -> None:  # noqa: ARG002 - it is fetched in either case
        """Have the samples of a group that come right at the first time; the others are asked for one by one."""
        if len(group.members) == 1 or self._fetch_many is None:
            group.data[0] = self._checked(*group.members[0])
            return

        def received(place: int, data: bytes) -> None:
            if sha256(data).digest() == group.members[place][1]:
                group.data[place] = data

        shard = group.members[0][0][0]
        with suppress(OriginError):
            self._fetch_many(shard, [Range(at, at + size) for (_, at, size), _ in group.members], received)

    def _come(self, group: _Group, place: int, seconds: float) -> Data:
        """A sample that was asked for, within so many seconds: ``TimeoutError``. It is held no longer then."""
        deadline = time.monotonic() + seconds
        with suppress(CancelledError):  # it was only being fetched ahead, and that was given up
            group.future.result(seconds)
        data, group.data[place] = group.data[place], None
        if data is None:
            again = _Group(f"samples {next(self._number)}", [group.members[place]], [None])
            again.future = self._fetcher.ask(again.key, partial(self._bring, again), urgent=True)
            again.future.result(max(0.0, deadline - time.monotonic()))
            data = again.data[0]
            assert data is not None
        return data

    def _checked(self, span: Span, digest: bytes) -> Data:
        """The sample's bytes, right; fetched again where they are not."""
        shard, offset, size = span
        for _ in range(TRIES):
            data = self._fetch(shard, offset, offset + size)
            actual = sha256(data)
            if actual.digest() == digest:
                return data
            self._wrong()
        where = f"{self._name(shard)} bytes {offset}-{offset + size}"
        raise DigestMismatch(where, f"sha256:{digest.hex()}", f"sha256:{actual.hexdigest()}", self._hint)


def groups(vouched: Iterable[Vouched], most: int) -> Iterator[list[Vouched]]:
    """Samples of one shard each, in the order of their bytes, at most so many and not much more than `TOGETHER`."""
    group: list[Vouched] = []
    end = size = 0
    for each in sorted(vouched):
        shard, offset, length = each[0]
        if group and (shard != group[-1][0][0] or offset < end or len(group) >= most or size >= TOGETHER):
            yield group
            group, size = [], 0
        group.append(each)
        end, size = offset + length, size + length
    if group:
        yield group
