"""What the server has: variants in local stores and at origins, and each of their files by its digest.

Everything here may touch the disk or an origin and is called from threads, but for `Library.known` and `Library.blob`.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datahub.core.digests import BLOCK, sha256_hex
from datahub.core.errors import DatahubError, RecordInvalid
from datahub.core.events import Listener, Note
from datahub.core.refs import Ref, version_key
from datahub.core.settings import Settings
from datahub.core.urls import shown
from datahub.serve.origins import Found, Origin
from datahub.serve.shelf import Shelf
from datahub.store import blocks, find
from datahub.store import record as records
from datahub.store.blocks import WIDTH
from datahub.store.cache.block import Block
from datahub.store.paths import variant_dir
from datahub.store.record import BLOCKS, FILENAME, Record
from datahub.stream.origin import Files

STAGE = "serve"
FRESH_LOCAL, FRESH_ORIGIN = 2.0, 60.0
"""Seconds after which it is looked again whether a variant is still what it was."""
AGAIN = 2.0
"""Seconds between two searches of everything for digests that nobody knows."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A file by its digest. ``raw``: its block digests end to end. ``sources``: where it is, if not in ``local``."""

    sha256: str
    size: int
    raw: bytes
    ref: str
    path: str
    local: Path | None = None
    sources: tuple[Files, ...] = ()

    def block(self, number: int) -> Block:
        size = min(BLOCK, self.size - number * BLOCK)
        digest = self.raw[number * WIDTH : (number + 1) * WIDTH]
        return Block(digest.hex(), size, digest, f"{self.path} of {self.ref}, block {number}", self.ref)


@dataclass(frozen=True, slots=True)
class Variant:
    """A packed variant; ``etag`` is the SHA-256 of its record as it is written."""

    ref: Ref
    record: Record
    data: bytes
    raws: bytes
    etag: str
    blobs: Mapping[str, Blob]
    folder: Path | None
    checked: float

    def fresh(self, now: float) -> bool:
        return now - self.checked < (FRESH_ORIGIN if self.folder is None else FRESH_LOCAL)


class Library:
    """``settings`` say where the local stores are; ``shelf`` keeps records that came from ``origins``."""

    def __init__(self, settings: Settings, origins: Sequence[Origin], shelf: Shelf, listener: Listener) -> None:
        self._settings, self._origins, self._shelf, self._listener = settings, tuple(origins), shelf, listener
        self._lock, self._searching, self._seeking = threading.RLock(), threading.Lock(), threading.Lock()
        """No origin is asked while the first is held: one that is slow must hold up nothing that is here."""
        self._variants: dict[Ref, Variant] = {}
        self._blobs: dict[str, Blob] = {}
        self._scanned, self._told = -AGAIN, 0
        self._sought: dict[str, tuple[float, tuple[Files, ...]]] = {}

    # -- what is known; no disk, no network -----------------------------------------------------------------------

    def known(self, ref: Ref) -> Variant | None:
        """The variant of a full reference, unless it has to be looked for."""
        found = self._variants.get(ref)
        return found if found is not None and found.fresh(time.monotonic()) else None

    def blob(self, sha256: str) -> Blob | None:
        return self._blobs.get(sha256)

    def variants(self) -> list[Variant]:
        """Newest versions first."""
        found = list(self._variants.values())
        found.sort(key=lambda each: each.ref.variant or "")
        found.sort(key=lambda each: (version_key(each.ref.version or ""), each.ref.version or ""), reverse=True)
        return sorted(found, key=lambda each: each.ref.name)

    def served(self, ref: Ref) -> Variant | None:
        """What came from an origin, however long ago."""
        found = self._variants.get(ref)
        return found if found is not None and found.folder is None else None

    # -- looking --------------------------------------------------------------------------------------------------

    def look(self, ref: Ref) -> Variant | None:
        """The variant of a full reference, here or at an origin. Raises `RecordInvalid` and `OriginError`s."""
        return self.here(ref) or self.afar(ref)

    def here(self, ref: Ref) -> Variant | None:
        """The variant, if a local store has it. Raises `RecordInvalid`."""
        with self._lock:
            for root in find.roots(self._settings):
                folder = variant_dir(root, str(ref.name), str(ref.version), str(ref.variant))
                if (folder / FILENAME).is_file():
                    return self._new(self._variants.get(ref), self._local(ref, folder))
            known = self._variants.get(ref)
            if known is not None and known.folder is not None:
                self._forget(known)  # it was removed from the store
        return None

    def scan(self) -> None:
        """Take in every variant of the local stores and of the shelf; what is broken is told and left out."""
        for ref, folder in self._folders():
            with self._telling(f"{folder}"), self._lock:  # for each alone: who looks for one need not wait for all
                self._local(ref, folder)
        for found in self._shelf.all(self._origins):
            with self._telling(str(found.ref)), self._lock:
                if found.ref not in self._variants:
                    self._add(_variant(found.ref, found.data, found.raws, None, (found.files,)))

    def search(self) -> None:
        """For digests that are not known: take in what came to the stores or the shelf since."""
        with self._searching:
            told = self._shelf.told()  # a client that had a record from another process asks for its files at once
            if told != self._told or time.monotonic() - self._scanned >= AGAIN:
                self.scan()
                self._told, self._scanned = told, time.monotonic()

    def elsewhere(self, blob: Blob) -> tuple[Files, ...]:
        """Where else a blob is that is damaged here. Raises nothing: an origin that fails has it not."""
        with self._seeking:
            when, found = self._sought.get(blob.ref, (-FRESH_ORIGIN, ()))
            if time.monotonic() - when >= FRESH_ORIGIN:
                found = tuple(self._places(blob.ref))
                self._sought[blob.ref] = time.monotonic(), found
        return found

    def origins(self) -> tuple[Origin, ...]:
        return self._origins

    # -- details --------------------------------------------------------------------------------------------------

    def _folders(self) -> Iterator[tuple[Ref, Path]]:
        seen = set()
        for root in find.roots(self._settings):
            for path in sorted(root.glob(f"[!.]*/*/*/{FILENAME}")) if root.is_dir() else ():
                ref = Ref(path.parent.parent.parent.name, path.parent.parent.name, path.parent.name)
                if ref not in seen:
                    seen.add(ref)
                    yield ref, path.parent

    def _local(self, ref: Ref, folder: Path) -> Variant:
        data = (folder / FILENAME).read_bytes()
        known = self._variants.get(ref)
        if known is not None and known.folder == folder and known.data == data:
            return self._add(replace(known, checked=time.monotonic()))
        record = records.decode(data, str(folder / FILENAME))
        blocks.read(folder, record.files)  # its length is right
        return self._add(_variant(ref, data, (folder / BLOCKS).read_bytes(), folder, ()))

    def _places(self, ref: str) -> Iterator[Files]:
        """Where a variant is at the first origin that has it."""
        for origin in self._origins:
            with self._telling(f"{ref} at {shown(origin.url)}"):
                found = origin.find(Ref.parse(ref))
                if found is not None:
                    yield found.files
                    return

    def afar(self, ref: Ref) -> Variant | None:
        """The variant, if an origin has it; as it was, where none can be asked. Raises `RecordInvalid` and
        `OriginError`s."""
        known = self.served(ref)
        error: DatahubError | None = None
        for origin in self._origins:
            try:
                found = origin.find(ref)
            except DatahubError as caught:
                error = caught
                continue
            if found is not None:
                return self._taken(found, known)
        if error is None:
            if known is not None:
                self._forget(known)
            return None
        if known is None:
            raise error
        self._listener(Note(STAGE, f"{ref} is served as it was: {error.message}", warning=True))
        return self._add(replace(known, checked=time.monotonic()))

    def _taken(self, found: Found, known: Variant | None) -> Variant:
        """A variant of an origin, kept on the shelf, so that its blobs are known after a restart."""
        if known is not None and known.data == found.data:
            return self._add(replace(known, checked=time.monotonic()))
        variant = _variant(found.ref, found.data, found.raws, None, (found.files,))
        with self._lock:
            self._shelf.keep(found)
            return self._new(known, self._add(variant))

    def _new(self, known: Variant | None, found: Variant) -> Variant:
        """What was found, told to the server's other processes where it is not what was known here."""
        if known is None or known.data != found.data:
            self._shelf.tell()
        return found

    def _add(self, variant: Variant) -> Variant:
        with self._lock:
            held = self._variants.get(variant.ref)
            if variant.folder is None and held is not None and held.folder is not None:
                return held  # it came to the store while its origin was asked
            self._variants[variant.ref] = variant
            for blob in variant.blobs.values():
                self._blobs[blob.sha256] = _merged(self._blobs.get(blob.sha256), blob)
        return variant

    def _forget(self, variant: Variant) -> None:
        with self._lock:
            self._variants.pop(variant.ref, None)
            for blob in variant.blobs.values():
                known = self._blobs.get(blob.sha256)
                if known is not None and known.local == blob.local:
                    del self._blobs[blob.sha256]
            for other in self._variants.values():
                for blob in other.blobs.values():
                    self._blobs.setdefault(blob.sha256, blob)

    def _telling(self, what: str) -> _Telling:
        return _Telling(self._listener, what)


class _Telling:
    """A broken variant is told about once it is met, and does not stop the others."""

    def __init__(self, listener: Listener, what: str) -> None:
        self._listener, self._what = listener, what

    def __enter__(self) -> None:
        """Nothing to do yet."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, DatahubError | OSError):
            self._listener(Note(STAGE, f"{self._what} is not served: {error}", warning=True))
            return True
        return False


def _variant(ref: Ref, data: bytes, raws: bytes, folder: Path | None, sources: tuple[Files, ...]) -> Variant:
    """Raises `RecordInvalid` where the record is another's, or does not vouch for the block digests."""
    where = str(folder / FILENAME) if folder else f"{FILENAME} of {ref}"
    record = records.decode(data, where)
    if record.ref != str(ref):
        raise RecordInvalid(where, f"describes {record.ref}, not {ref}")
    blobs, at = {}, 0
    for entry in record.files:
        raw = raws[at : at + WIDTH * blocks.count(entry.bytes)]
        at += len(raw)
        if hashlib.sha256(raw).hexdigest() != entry.blocks:
            raise RecordInvalid(where, f"the block digests of {entry.path} are not the record's")
        local = folder / entry.path if folder else None
        blobs[entry.path] = Blob(entry.sha256, entry.bytes, raw, str(ref), entry.path, local, sources)
    return Variant(ref, record, data, raws, sha256_hex(data), blobs, folder, time.monotonic())


def _merged(known: Blob | None, new: Blob) -> Blob:
    """One blob in several places: on this disk, if in any, and all origins."""
    if known is None or known.raw != new.raw:
        return new
    urls = {each.url for each in new.sources}
    others = tuple(each for each in known.sources if each.url not in urls)
    return replace(new, local=new.local or known.local, sources=new.sources + others)
