"""Opening shards that were not packed by datahub: found, compared with what was indexed, indexed if need be."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from datahub.core.digests import sha256_hex
from datahub.core.errors import DiskError, LayoutError, NotReadable, Offline
from datahub.core.events import Note
from datahub.core.locks import FileLock
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.store import record as records
from datahub.store.cache.blockcache import BlockCache
from datahub.store.paths import derived_dir
from datahub.store.record import Record
from datahub.stream.foreign import facts as facts_of
from datahub.stream.foreign import parts
from datahub.stream.foreign.dataset import ForeignDataset
from datahub.stream.foreign.facts import Facts
from datahub.stream.foreign.indexing import index
from datahub.stream.foreign.local import HINT
from datahub.stream.foreign.naming import Named, find_shards
from datahub.stream.foreign.places import ShardFiles
from datahub.stream.foreign.tables import VARIANT, Merging
from datahub.stream.pieces import Shard
from datahub.stream.remote import LOCAL, STAGE, Here, RemoteVariant, remove_folder


def open_foreign(ref: Ref, source: str, here: Here, settings: Settings, *, cached: bool = False) -> ForeignDataset:
    """The shards that ``source`` names, as a dataset called ``ref``.

    ``cached``: shards of this machine, too, are read through the block cache. Raises `BadArgument` for what names no
    shards, `LayoutError` and `UnsafeArchive` for shards that are not in webdataset's form, `OriginError`s, `Offline`.
    """
    shards = _placed(find_shards(source), cached)
    if settings.offline and any(_network(each) for each in shards):
        raise Offline(f"source={source!r}")
    files = ShardFiles(shards)
    facts = facts_of.of_shards(shards, files, here.seconds)
    try:
        return _dataset(ref, *_indexed(ref, source, facts, files, here, settings), facts, files, here)
    except DiskError as error:
        if not Path(error.path).is_relative_to(settings.home):
            raise
        spare = _elsewhere(error, here, settings)
        made = _dataset(ref, *_indexed(ref, source, facts, files, here, spare), facts, files, here)
        weakref.finalize(made, remove_folder, spare.home, os.getpid())
        return made


def _placed(shards: list[Named], cached: bool) -> list[Named]:
    """The shards as they are to be read: all where they are on this machine, or all through the cache."""
    if all(each.local for each in shards) and not cached:
        return shards
    return [replace(each, url=Path(each.url).as_uri()) if each.local else each for each in shards]


def _network(shard: Named) -> bool:
    return not shard.local and shard.url.partition("://")[0] not in LOCAL


def _elsewhere(error: DiskError, here: Here, settings: Settings) -> Settings:
    """Settings of a home that is there until the program ends: the index cannot be kept."""
    folder = Path(tempfile.mkdtemp(prefix="datahub-"))
    here.listener(Note(STAGE, f"{error.message}; the index is kept until the program ends", warning=True))
    return replace(settings, home=folder)


def _dataset(
    ref: Ref, folder: Path, record: Record, facts: Sequence[Facts], files: ShardFiles, here: Here
) -> ForeignDataset:
    """Without a version of the caller's own it goes by one that its content decides."""
    content = sha256_hex(" ".join(each.fingerprint for each in record.splits.values()).encode())
    ref = Ref(ref.name, ref.version or content[:8], ref.variant or VARIANT)
    manifest = records.ManifestEntry(name=ref.name, version=str(ref.version), digest="")
    record = msgspec.structs.replace(record, manifest=manifest, variant=str(ref.variant))
    elsewhere = None if facts[0].named.local else ForeignVariant(files, record, folder, here)
    return ForeignDataset(ref, folder, record, facts, elsewhere=elsewhere)


def _indexed(
    ref: Ref, source: str, facts: Sequence[Facts], files: ShardFiles, here: Here, settings: Settings
) -> tuple[Path, Record]:
    """The folder of the index, and its record."""
    identity = facts_of.identity(facts)
    folder = derived_dir(settings.home, identity)
    record = _kept(folder)
    if record is not None:
        return folder, record
    local = facts[0].named.local
    cache = None if local else BlockCache(here.folder, here.limit, listener=here.listener)
    try:
        index(facts, settings, here.seconds, here.listener, files=files, cache=cache, tag=str(ref))
    finally:
        if cache is not None:
            cache.close()
    with FileLock(settings.locks / f"shards-{identity[:32]}.lock", timeout=here.seconds):
        record = _kept(folder)
        if record is None:
            record = _merged(source, facts, folder, here, settings)
    return folder, record


def _kept(folder: Path) -> Record | None:
    try:
        return records.read(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise NotReadable(str(folder), error.strerror or str(error)) from error


def _merged(source: str, facts: Sequence[Facts], folder: Path, here: Here, settings: Settings) -> Record:
    found = []
    for each in facts:
        path = parts.path_of(settings, each)
        part = parts.read(path)
        if part is None:
            path.unlink(missing_ok=True)
            raise LayoutError(str(path), "", "what was scanned cannot be read any more", "open the shards again")
        found.append(part)
    if not any(len(part.table) for part in found):
        kinds = sorted({kind for part in found for kind in part.about.passed})
        there = f"; they hold .{', .'.join(kinds)}" if kinds else ""
        raise LayoutError(source, "", f"holds no samples with images{there}", "images are .jpg, .png, .webp, ...")
    merging = Merging(facts, found, source)
    for kind, count in sorted(merging.passed().items()):
        here.listener(Note(STAGE, f"{count} samples without an image are passed over: .{kind}"))
    return merging.write(folder)


class ForeignVariant(RemoteVariant):
    """Foreign shards at an origin. Their block digests were taken when they were indexed, and vouch for them since."""

    def __init__(self, files: ShardFiles, record: Record, folder: Path, here: Here) -> None:
        self.files, self.record, self._here, self.folder = files, record, here, folder
        self._begin()

    def file(self, name: str) -> Path:
        return self.folder / name

    def _shard(self, path: str) -> Shard:
        hint = f"{HINT}; if neither their size nor their ETag changed, remove {self.folder}"
        return replace(super()._shard(path), hint=hint)
