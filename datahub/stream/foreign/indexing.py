"""Having every shard scanned once: by this process or another one of its machine, a few at a time.

Processes that open the same shards at once share the work: each takes the next shard that nobody is at, under that
shard's lock, and waits in the end for what others took.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

from datahub.core.digests import BLOCK
from datahub.core.errors import LockTimeout, NotReadable, OriginChanged
from datahub.core.events import Listener, Progress
from datahub.core.locks import FileLock
from datahub.core.settings import Settings
from datahub.store.cache.block import Block, Data
from datahub.store.cache.blockcache import BlockCache
from datahub.stream.foreign import facts as facts_of
from datahub.stream.foreign import parts
from datahub.stream.foreign.facts import Facts
from datahub.stream.foreign.places import ShardFiles
from datahub.stream.foreign.scan import scan
from datahub.stream.foreign.windows import StreamedBytes, local_bytes
from datahub.stream.origin import CONNECTIONS
from datahub.stream.patience import read_range

STAGE = "index"
AT_ONCE = 4
"""Shards that a process scans at once."""


class Indexing:
    """``files`` and ``cache`` are for shards that are streamed: what comes is kept as far as the cache has room."""

    def __init__(
        self,
        shards: Sequence[Facts],
        settings: Settings,
        seconds: float,
        listener: Listener,
        *,
        files: ShardFiles,
        cache: BlockCache | None,
        tag: str,
    ) -> None:
        self._shards, self._settings, self._seconds, self._listener = shards, settings, seconds, listener
        self._files, self._cache, self._tag = files, cache, tag
        self._lock, self._done = threading.Lock(), 0
        self._failed: list[BaseException] = []

    def run(self) -> None:
        """Scan what is not. Raises what the first shard that failed did, after those under way are done."""
        missing = [each for each in self._shards if not parts.path_of(self._settings, each).exists()]
        if not missing:
            return
        self._done = len(self._shards) - len(missing)
        with (
            ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="datahub-index-fetch") as fetching,
            ThreadPoolExecutor(min(AT_ONCE, len(missing)), thread_name_prefix="datahub-index") as pool,
        ):
            self._fetching = fetching
            try:
                taken = list(pool.map(lambda each: self._guarded(each, timeout=0), missing))
                left = [each for each, mine in zip(missing, taken, strict=True) if not mine]
                list(pool.map(lambda each: self._guarded(each, timeout=self._seconds), left))
            except BaseException as error:  # an interrupt: the threads fetch no more
                self._failed.append(error)
                raise
        self._raise()

    def _guarded(self, shard: Facts, timeout: float) -> bool:
        """Whether the shard is scanned now; False where another process is at it."""
        if self._failed:
            return False
        try:
            return self._one(shard, timeout)
        except BaseException as error:  # noqa: BLE001 - it is raised once the other threads have ended
            self._failed.append(error)
            return False

    def _raise(self) -> None:
        if self._failed:
            raise self._failed[0]

    def _one(self, shard: Facts, timeout: float) -> bool:
        path = parts.path_of(self._settings, shard)
        try:
            with FileLock(self._settings.locks / f"shard-{shard.key[:32]}.lock", timeout=timeout):
                if parts.read(path) is None:
                    self._scan(shard)
        except LockTimeout:
            if timeout:
                raise
            return False
        with self._lock:
            self._done += 1
            self._listener(Progress(STAGE, self._tag, self._done, len(self._shards), "shards"))
        return True

    def _scan(self, shard: Facts) -> None:
        (self._scan_local if shard.named.local else self._scan_streamed)(shard)

    def _scan_local(self, shard: Facts) -> None:
        try:
            with local_bytes(shard.named.url) as opened:
                found = scan(opened)
        except OSError as error:
            raise NotReadable(shard.named.url, error.strerror or str(error)) from error
        self._check_same(shard)
        parts.write(parts.path_of(self._settings, shard), found, opened.seen, b"")

    def _scan_streamed(self, shard: Facts) -> None:
        coming = StreamedBytes(shard.named.shown, shard.size, self._fetch(shard), self._fetching)
        try:
            found = scan(coming)
            raw = coming.finish()
        finally:
            coming.drop()
        self._check_same(shard)
        parts.write(parts.path_of(self._settings, shard), found, coming.seen, raw)

    def _fetch(self, shard: Facts) -> Callable[[int], tuple[Data, bytes]]:
        name = shard.named.name

        def fetch(number: int) -> tuple[Data, bytes]:
            self._raise()
            start = number * BLOCK
            end = min(start + BLOCK, shard.size)
            data = read_range(self._files, name, start, end, self._seconds)
            digest = sha256(data).digest()
            if self._cache is not None:
                block = Block(digest.hex(), end - start, digest, f"{shard.named.shown} block {number}", self._tag)
                self._cache.fill(block, lambda _: data, seconds=self._seconds, evict=False, through=False)
            return data, digest

        return fetch

    def _check_same(self, shard: Facts) -> None:
        """Raises `OriginChanged` where the shard was written while it was scanned."""
        now = facts_of.of_shards([shard.named], self._files, self._seconds)[0]
        if now != shard:
            before, after = (f"{each.size} bytes, {each.mark or 'undated'}" for each in (shard, now))
            raise OriginChanged(shard.named.shown, before, after)
