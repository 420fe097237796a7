"""`export`: a packed variant's files, unchanged, at any fsspec URL or in any folder.

The destination receives exactly the variant's files, so that it is one directory for webdataset, wids, Hugging Face
``datasets`` and Energon. To make a store of it that ``DATAHUB_STORES=/srv/data`` finds, export to
``/srv/data/datasets/NAME/VERSION/VARIANT``. The record goes last: a reader that finds it finds everything.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from datahub.core import atomic, digests
from datahub.core.digests import CHUNK
from datahub.core.errors import (
    BadArgument,
    ConnectionLost,
    DatahubError,
    DiskFull,
    NotYetSupported,
    Problem,
    StoreDamaged,
    from_oserror,
)
from datahub.core.events import Listener, Progress, ignore
from datahub.core.sizes import format_bytes
from datahub.core.urls import shown
from datahub.store import blocks
from datahub.store.find import Located
from datahub.store.gc import TEMPORARY
from datahub.store.record import BLOCKS, FILENAME, FileEntry

FORMS = ("webdataset", "hf", "imagefolder", "croissant")
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Exported:
    """``url`` holds the variant; ``bytes`` of it, in ``files`` files, were written by this export."""

    url: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What an export would do. ``files`` are those that the destination lacks, the record last."""

    url: str
    files: tuple[str, ...]
    bytes: int

    def lines(self) -> list[str]:
        if not self.files:
            return [f"{shown(self.url)} holds it already"]
        return [f"{len(self.files)} files, {format_bytes(self.bytes)}, to {shown(self.url)}"]


def plan(located: Located, dest: str, *, form: str = "webdataset") -> Plan:
    """Look at the destination, write nothing; raises what `export` would before its first byte."""
    if form not in FORMS:
        raise BadArgument("as", form, "is not a form of export", f"known: {', '.join(FORMS)}")
    if form != "webdataset":
        raise NotYetSupported("as", form, "use --as webdataset, which every reader of the README takes")
    target = _Target(dest)
    with target.translating():
        return target.plan(located)


def export(located: Located, dest: str, *, form: str = "webdataset", listener: Listener = ignore) -> Exported:
    """Copy the variant to ``dest``, checking every digest on the way; what is there already is checked and kept.

    Raises `BadArgument` where ``dest`` holds anything else, `StoreDamaged` where the store's own bytes are not what its
    record says (the record is not written then), `DiskFull`, `ConnectionLost`.
    """
    todo = plan(located, dest, form=form)
    target = _Target(dest)
    entries = {entry.path: entry for entry in located.record.files}
    done = 0
    with target.translating():
        for path in todo.files:
            if path in entries:
                target.copy(located, entries[path])
                done += entries[path].bytes
            else:
                if path == BLOCKS:
                    _check_blocks(located)
                target.put(path, (located.path / path).read_bytes())
                done += (located.path / path).stat().st_size
            listener(Progress("export", str(located.ref), done, todo.bytes))
    return Exported(todo.url, len(todo.files), todo.bytes)


def _check_blocks(located: Located) -> None:
    raws = blocks.read(located.path, located.record.files)
    changed = [each.path for each in located.record.files if not blocks.intact(each, raws[each.path])]
    if changed:
        raise StoreDamaged(
            str(located.ref), [Problem(BLOCKS, f"the block digests of {path} changed") for path in changed]
        )


class _Target:
    """A folder behind fsspec. Local files appear whole by rename; object stores publish an object when it is closed."""

    def __init__(self, dest: str) -> None:
        try:
            self.fs, root = fsspec.url_to_fs(dest)
        except (ValueError, ImportError) as error:
            raise BadArgument(
                "DEST", dest, str(error), "give a folder or a URL whose fsspec package is installed"
            ) from error
        self.root = root.rstrip("/")
        self.local = isinstance(self.fs, LocalFileSystem)
        self.url = self.root if self.local else self.fs.unstrip_protocol(self.root)

    @contextlib.contextmanager
    def translating(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self.local or error.filename:
                raise from_oserror(error, error.filename or self.root) from error
            raise ConnectionLost(self.url, str(error) or type(error).__name__) from error

    def plan(self, located: Located) -> Plan:
        there = self._listing()
        record = (located.path / FILENAME).read_bytes()
        if FILENAME in there and self._read(FILENAME) != record:
            raise self._refusal("holds another dataset.json")
        entries = {entry.path: entry for entry in located.record.files}
        sizes = {path: entry.bytes for path, entry in entries.items()}
        sizes |= {BLOCKS: blocks.size(located.record.files), FILENAME: len(record)}
        strays = sorted(there.keys() - sizes.keys())
        if strays:
            more = f" and {len(strays) - SHOWN} more" if len(strays) > SHOWN else ""
            raise self._refusal(f"holds other files ({', '.join(strays[:SHOWN])}{more})")
        for path in there.keys() & sizes.keys():
            if there[path] != sizes[path] or (path in entries and self._digest(path) != entries[path].sha256):
                raise self._refusal(f"holds another {path}")
        files = tuple(path for path in sizes if path not in there)
        missing = Plan(self.url, files, sum(sizes[path] for path in files))
        self._room(missing.bytes)
        return missing

    def _refusal(self, reason: str) -> BadArgument:
        return BadArgument("DEST", self.url, reason, "export to an empty folder, or remove what is there first")

    def _room(self, needed: int) -> None:
        if self.local:
            folder = Path(self.root)
            while not folder.exists():
                folder = folder.parent
            free = shutil.disk_usage(folder).free
            if free < needed:
                raise DiskFull(self.root, needed, free)

    def _listing(self) -> dict[str, int]:
        """Relative path -> bytes of everything under the root, but for the dot-files of file systems and ourselves."""
        if self.fs.isfile(self.root):
            raise self._refusal("is a file")
        found = self.fs.find(self.root, detail=True) if self.fs.exists(self.root) else {}
        # Object stores know no folders, and some list an empty one as an object of its own.
        sizes = {path[len(self.root) :].lstrip("/"): int(facts["size"] or 0) for path, facts in found.items()}
        return {path: size for path, size in sizes.items() if path and not self._ours(path)}

    @staticmethod
    def _ours(path: str) -> bool:
        name = path.rpartition("/")[2]
        return bool(TEMPORARY.fullmatch(name)) or name in (".DS_Store", ".directory") or name.startswith(".nfs")

    def _path(self, path: str) -> str:
        return f"{self.root}/{path}"

    def _read(self, path: str) -> bytes:
        data: bytes = self.fs.cat_file(self._path(path))
        return data

    def _digest(self, path: str) -> str:
        hasher = digests.new("sha256")
        with self.fs.open(self._path(path), "rb") as handle:
            while data := handle.read(CHUNK):
                hasher.update(data)
        return hasher.hexdigest()

    def copy(self, located: Located, entry: FileEntry) -> None:
        """Copy one file; one whose bytes are not the record's is not left behind."""
        hasher = digests.new("sha256")
        try:
            source = (located.path / entry.path).open("rb", buffering=0)
        except FileNotFoundError:
            raise StoreDamaged(str(located.ref), [Problem(entry.path, "missing")]) from None
        with source, self._writing(entry.path) as handle:
            while data := source.read(CHUNK):
                hasher.update(data)
                handle.write(data)
            if hasher.hexdigest() != entry.sha256:
                message = f"changed: SHA-256 is {hasher.hexdigest()}, the record says {entry.sha256}"
                raise StoreDamaged(str(located.ref), [Problem(entry.path, message)])

    def put(self, path: str, data: bytes) -> None:
        with self._writing(path) as handle:
            handle.write(data)

    @contextlib.contextmanager
    def _writing(self, path: str) -> Iterator[BinaryIO]:
        full = self._path(path)
        if self.local:
            with atomic.writing(Path(full)) as handle:
                yield handle
            return
        self.fs.makedirs(full.rpartition("/")[0], exist_ok=True)
        stream: Any = self.fs.open(full, "wb")
        try:
            yield stream
        except (DatahubError, OSError):
            # Closing publishes what was written so far, on most object stores: it is taken away again.
            with contextlib.suppress(OSError):
                stream.close()
                self.fs.rm_file(full)
            raise
        stream.close()
