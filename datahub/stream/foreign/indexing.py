"""Having every shard scanned once: by this process or another one of its machine, a few at a time.

Processes that open the same shards at once share the work: each takes the next shard that nobody is at, under that
shard's lock, and waits in the end for what others took. Shards of this machine are scanned by processes of its own
where there are many (parsing headers is the interpreter's work), remote ones by threads, which mostly wait.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

from datahub.core.digests import BLOCK
from datahub.core.errors import LockTimeout, NotReadable, OriginChanged, WorkerDied
from datahub.core.events import Listener, Progress
from datahub.core.locks import FileLock
from datahub.core.settings import Settings
from datahub.pack import executor
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
"""Shards that are streamed at once."""
PATIENCE = 4.0
"""Seconds of scanning that are worth starting processes for."""
MOST = 8
"""Processes."""
Scan = Callable[[Facts, float], bool]
"""Scans a shard that nobody is at, waiting so many seconds for who is; False where somebody still is."""


def index(
    shards: Sequence[Facts],
    settings: Settings,
    seconds: float,
    listener: Listener,
    *,
    files: ShardFiles,
    cache: BlockCache | None,
    tag: str,
) -> None:
    """Scan what is not. ``files`` and ``cache`` are for shards that are streamed: what comes is kept if there is room.

    Raises what a shard that failed did, after those under way are done or given up.
    """
    missing = [each for each in shards if not parts.path_of(settings, each).exists()]
    if not missing:
        return
    told = _Told(listener, tag, len(shards), len(shards) - len(missing))
    if missing[0].named.local:
        _scan_all(partial(_here, partial(scan_local, settings)), missing, seconds, told)
        return
    streaming = Streaming(settings, seconds, files, cache, tag)
    with ThreadPoolExecutor(min(AT_ONCE, len(missing)), thread_name_prefix="datahub-index") as pool, streaming:
        _scan_all(lambda each, timeout: pool.map(partial(streaming, timeout=timeout), each), missing, seconds, told)


@dataclass
class _Told:
    """Tells the listener how far it is."""

    listener: Listener
    item: str
    total: int
    done: int

    def one_more(self) -> None:
        self.done += 1
        self.listener(Progress(STAGE, self.item, self.done, self.total, "shards"))


def _scan_all(
    run: Callable[[Sequence[Facts], float], Iterable[bool]], missing: Sequence[Facts], seconds: float, told: _Told
) -> None:
    """Scan what nobody is at, then wait for what others were."""
    left = list(missing)
    for timeout in (0.0, seconds):
        others = []
        for shard, scanned in zip(left, run(left, timeout), strict=True):
            if scanned:
                told.one_more()
            else:
                others.append(shard)
        left = others


@contextmanager
def _alone(settings: Settings, shard: Facts, timeout: float) -> Iterator[bool]:
    """Whether the shard is to be scanned, and by nobody else meanwhile. Raises `LockTimeout`."""
    with FileLock(settings.locks / f"shard-{shard.key[:32]}.lock", timeout=timeout):
        yield parts.read(parts.path_of(settings, shard)) is None


# -- shards of this machine -------------------------------------------------------------------------------------------


def scan_local(settings: Settings, shard: Facts, timeout: float) -> bool:
    """A `Scan`, in any process."""
    try:
        with _alone(settings, shard, timeout) as missing:
            if missing:
                _scan_local(settings, shard)
    except LockTimeout:
        if timeout:
            raise
        return False
    return True


def _scan_local(settings: Settings, shard: Facts) -> None:
    try:
        with local_bytes(shard.named.url) as opened:
            found = scan(opened)
    except OSError as error:
        raise NotReadable(shard.named.url, error.strerror or str(error)) from error
    check_same(shard, facts_of.of_local(shard.named))
    parts.write(parts.path_of(settings, shard), found, opened.seen, b"")


def _here(scan_one: Scan, shards: Sequence[Facts], timeout: float) -> Iterator[bool]:
    """Scan in this process, and once it shows that what is left would take long, in several."""
    workers, began, done = _workers(), time.monotonic(), 0
    total = sum(each.size for each in shards)
    for count, shard in enumerate(shards):
        left = shards[count:]
        if done and min(workers, len(left)) > 1 and (time.monotonic() - began) * (total - done) / done > PATIENCE:
            yield from _in_processes(scan_one, left, timeout, min(workers, len(left)))
            return
        yield scan_one(shard, timeout)
        done += shard.size


def _in_processes(scan_one: Scan, shards: Sequence[Facts], timeout: float, workers: int) -> Iterator[bool]:
    pool = executor.make(workers)
    try:
        yield from pool.map(scan_one, shards, [timeout] * len(shards))
    except BrokenExecutor as error:
        raise WorkerDied("indexing shards", str(error)) from error
    except BaseException:
        executor.stop(pool)
        raise
    pool.shutdown()


def _workers() -> int:
    """Processes that may be started: none by one of those that may have no children."""
    if multiprocessing.current_process().daemon:
        return 1
    return min(MOST, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


# -- shards elsewhere -------------------------------------------------------------------------------------------------


class Streaming:
    """A `Scan` of shards that come block by block. Once one failed, the others fetch no more."""

    def __init__(
        self, settings: Settings, seconds: float, files: ShardFiles, cache: BlockCache | None, tag: str
    ) -> None:
        self._settings, self._seconds, self._files, self._cache, self._tag = settings, seconds, files, cache, tag
        self._pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="datahub-index-fetch")
        self._failed: BaseException | None = None

    def __enter__(self) -> Streaming:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._failed = self._failed or error
        self._pool.shutdown(cancel_futures=True)

    def __call__(self, shard: Facts, timeout: float) -> bool:
        try:
            with _alone(self._settings, shard, timeout) as missing:
                if missing:
                    self._scan(shard)
        except LockTimeout as error:
            if timeout:
                self._failed = error
                raise
            return False
        except BaseException as error:
            self._failed = self._failed or error
            raise
        return True

    def _scan(self, shard: Facts) -> None:
        coming = StreamedBytes(shard.named.shown, shard.size, partial(self._fetch, shard), self._pool)
        try:
            found = scan(coming)
            raw = coming.finish()
        finally:
            coming.drop()
        check_same(shard, facts_of.of_remote(shard.named, self._files, self._seconds))
        parts.write(parts.path_of(self._settings, shard), found, coming.seen, raw)

    def _fetch(self, shard: Facts, number: int) -> tuple[Data, bytes]:
        if self._failed is not None:
            raise self._failed
        start = number * BLOCK
        end = min(start + BLOCK, shard.size)
        data = read_range(self._files, shard.named.name, start, end, self._seconds)
        digest = sha256(data).digest()
        if self._cache is not None:
            # Its digest was just taken: the cache need not take it again.
            block = Block(digest.hex(), end - start, None, f"{shard.named.shown} block {number}", self._tag)
            self._cache.fill(block, lambda _: data, seconds=self._seconds, evict=False, through=False)
        return data, digest


def check_same(before: Facts, now: Facts) -> None:
    """Raises `OriginChanged` where the shard was written while it was scanned."""
    if now != before:
        told = (f"{each.size} bytes, {each.mark or 'undated'}" for each in (before, now))
        raise OriginChanged(before.named.shown, *told)
