"""A packed variant at a URL: its record and tables fetched, verified and kept here, its shards read through the cache.

What is kept stands in ``sources/<digest of the record>/`` beside the cache's blocks, so it is fetched once for all
processes, and a variant that changed at its URL is another one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from datahub.core import atomic
from datahub.core.digests import Digest, MultiHash, sha256_hex
from datahub.core.errors import BadArgument, DigestMismatch, DiskError, HttpError, NotReadable, Offline, RecordInvalid
from datahub.core.events import Listener, Note, ignore
from datahub.core.locks import FileLock
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.core.sizes import format_bytes
from datahub.core.urls import below
from datahub.registry import catalog
from datahub.store import blocks
from datahub.store import record as records
from datahub.store.cache.blockcache import BlockCache
from datahub.store.dataset import Dataset, Split
from datahub.store.find import default_variant
from datahub.store.record import BLOCKS, FILENAME, FileEntry, Record
from datahub.stream.cached import SHARE, CachedShards
from datahub.stream.finding import at_servers
from datahub.stream.origin import Files, ManyFiles, doubt, open_files
from datahub.stream.patience import read_range, read_whole
from datahub.stream.pieces import Shard
from datahub.stream.samples import Vouchers

STAGE = "source"
PIECE = 8 << 20
"""Bytes of one request for a table."""
TRIES = 3
LOCAL = ("memory", "file", "local")
"""Schemes that need no network."""


@dataclass(frozen=True, slots=True)
class Here:
    """Where this machine keeps what comes from sources: tables in ``folder``, blocks up to ``limit`` bytes."""

    folder: Path
    limit: int | None = None
    seconds: float = 600.0
    """What one answer may take before its origin is reported."""
    listener: Listener = ignore


def open_remote(ref: Ref, url: str, here: Here, settings: Settings) -> Dataset:
    """Open the variant of ``ref`` that stands at ``url``, or at NAME/VERSION/VARIANT below it.

    Raises `BadArgument` where there is none or another, `Offline`, and `OriginError`s.
    """
    if settings.offline and url.partition("://")[0] not in LOCAL:
        raise Offline(f"source={url!r}")
    served, place = at_servers(ref, url, here.seconds)
    for files in [served] if served else map(open_files, _places(ref, place, settings)):
        try:
            data = read_whole(files, FILENAME, here.seconds)
        except HttpError as error:
            if error.status == 404:
                continue
            raise
        record = records.decode(data, files.name(FILENAME))
        found = Ref.parse(record.ref)
        _check(ref, found, url)
        variant = RemoteVariant(files, record, data, here)
        return Dataset(found, variant.folder, record, elsewhere=variant)
    hint = "give the URL that `datahub export REF URL` or `datahub pack --to URL` wrote"
    raise BadArgument("source", url, f"holds no {FILENAME} of {ref}", hint)


def open_local(ref: Ref, folder: Path, settings: Settings) -> Dataset:
    """The same for a folder of this machine, which is read where it is."""
    for place in _places(ref, str(folder), settings):
        try:
            record = records.read(Path(place))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise NotReadable(place, error.strerror or str(error)) from error
        found = Ref.parse(record.ref)
        _check(ref, found, str(folder))
        return Dataset(found, Path(place), record)
    hint = "give the folder that `datahub export REF DIR` wrote"
    raise BadArgument("source", str(folder), f"holds no {FILENAME} of {ref}", hint)


def _places(ref: Ref, url: str, settings: Settings) -> Iterator[str]:
    """Where to look: the URL itself, then the URL as a store."""
    yield url.rstrip("/")
    versions = [ref.version] if ref.version else catalog(settings).versions(ref.name)[::-1]
    for version in versions:
        variant = ref.variant or default_variant(settings, Ref(ref.name, version))
        path = f"{ref.name}/{version}/{variant}"
        yield below(url, path)
        yield below(url, f"datasets/{path}")


def _check(wanted: Ref, found: Ref, url: str) -> None:
    for part in ("name", "version", "variant"):
        asked = getattr(wanted, part)
        if asked is not None and asked != getattr(found, part):
            raise BadArgument(
                "source", url, f"holds {found}, not {wanted}", "give its own URL, or ask for what it holds"
            )


class RemoteVariant:
    """What a `Dataset` asks for files that are not here (`datahub.store.dataset.Elsewhere`), and its shard sources."""

    def __init__(self, files: Files, record: Record, data: bytes, here: Here) -> None:
        self.files, self.record, self._here = files, record, here
        self.folder = here.folder / "sources" / sha256_hex(data)[:32]
        try:
            _keep(self.folder / FILENAME, data)
        except DiskError as error:
            self.folder = Path(tempfile.mkdtemp(prefix="datahub-"))
            weakref.finalize(self, remove_folder, self.folder, os.getpid())
            here.listener(Note(STAGE, f"{error.message}; tables are kept until the program ends", warning=True))
            _keep(self.folder / FILENAME, data)
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._sources: dict[str, CachedShards] = {}

    def file(self, name: str) -> Path:
        """Raises `DigestMismatch` where the origin's file is not the record's, `OriginError`s."""
        path = self.folder / name
        if path.exists():
            return path
        entry = next((each for each in self.record.files if each.path == name), None)
        if entry is None and name != BLOCKS:
            raise RecordInvalid(self.files.name(FILENAME), f"does not list {name}")
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=self._here.seconds):
            if not path.exists():
                self._fetch(path, name, entry)
        return path

    def read(self, shard: str, offset: int, size: int) -> bytes | memoryview:
        """Bytes of a shard, for reads of single samples."""
        for name, split in self.record.splits.items():
            for number, each in enumerate(split.shards):
                if each.path == shard:
                    return self._source(name).read(number, offset, size)
        raise RecordInvalid(self.files.name(FILENAME), f"does not list {shard}")

    def source(self, split: Split, *, spread: int = 0, ranks: int = 1) -> CachedShards:
        """The shards of a split, with a cache handle of their own.

        ``spread``: bytes among which reads are scattered at a time. Where the cache cannot keep so many, it is filled
        once and samples are read by themselves; also where it cannot keep the split and samples come many at a time,
        for then blocks that pass through are written, read again and evicted for nothing.
        """
        limit = self._here.limit
        alone = limit is not None and sum(self._sizes(split.name)) > limit
        wide = limit is not None and spread > limit * SHARE
        scattered = alone and (wide or (spread > 0 and isinstance(self.files, ManyFiles)))
        return self._shards(split.name, ranks, Vouchers(split) if scattered else None)

    def _sizes(self, split: str) -> list[int]:
        return [self._entries[each.path].bytes for each in self.record.splits[split].shards]

    def _source(self, split: str) -> CachedShards:
        with self._lock:
            if split not in self._sources:
                self._sources[split] = self._shards(split, 1)
            return self._sources[split]

    def _shards(self, split: str, ranks: int, vouchers: Vouchers | None = None) -> CachedShards:
        here = self._here
        cache = BlockCache(here.folder, here.limit, listener=here.listener)
        shards = [self._shard(each.path) for each in self.record.splits[split].shards]
        return CachedShards(self.record.ref, self.files, shards, cache, here.seconds, ranks=ranks, vouchers=vouchers)

    def _shard(self, path: str) -> Shard:
        entry = self._entries[path]
        raw = self._raws[path]
        if not blocks.intact(entry, raw):
            raise RecordInvalid(self.files.name(BLOCKS), f"the block digests of {path} are not the record's")
        return Shard(path, entry.bytes, raw)

    @cached_property
    def _entries(self) -> dict[str, FileEntry]:
        return {each.path: each for each in self.record.files}

    @cached_property
    def _raws(self) -> dict[str, bytes]:
        self.file(BLOCKS)
        return blocks.read(self.folder, self.record.files)

    def _fetch(self, path: Path, name: str, entry: FileEntry | None) -> None:
        """Bring a file here whole; once more where its bytes are wrong."""
        for attempt in range(1, TRIES + 1):
            try:
                self._receive(path, name, entry)
                break
            except DigestMismatch:
                if attempt == TRIES:
                    raise
                doubt(self.files)

    def _receive(self, path: Path, name: str, entry: FileEntry | None) -> None:
        size = blocks.size(self.record.files) if entry is None else entry.bytes
        # The record vouches for blocks.bin by the digests of its parts, which are looked at one by one.
        expected = [] if entry is None else [Digest("sha256", entry.sha256)]
        hashes = MultiHash(["sha256"])
        with atomic.writing(path) as handle:
            for start in range(0, size, PIECE):
                data = read_range(self.files, name, start, min(start + PIECE, size), self._here.seconds)
                hashes.update(data)
                handle.write(data)
            hashes.check(self.files.name(name), expected)

    def __str__(self) -> str:
        limit = "" if self._here.limit is None else f", at most {format_bytes(self._here.limit)} of them"
        return f"at {self.files.name('')[:-1]}, kept in {self._here.folder}{limit}"

    def __getstate__(self) -> dict[str, Any]:
        own = ("_lock", "_sources", "_raws")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()


def remove_folder(folder: Path, process: int) -> None:
    """Take away what ``process`` kept until its end."""
    if process == os.getpid():  # a forked child has it from its parent
        shutil.rmtree(folder, ignore_errors=True)


def _keep(path: Path, data: bytes) -> None:
    if not path.exists():
        atomic.write_bytes(path, data)
