"""What raw files hold: every file of folders and archives, nested ones too, and where its bytes stand.

A header scan makes it; nothing is extracted and no member's data are read. After it any member can be read at random,
by any process. What cannot be read at random (a compressed tar, an archive deflated into a zip) is decompressed once
into a plain file beside the inventory, which the caller may delete with it.

On disk: ``members.arrow`` (Arrow IPC file, mapped) with the columns of `SCHEMA`, and ``containers.json``.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec
import pyarrow as pa

from datahub.core import atomic
from datahub.core.errors import BadArgument, DiskFull, NotReadable, UnsafeArchive, from_oserror
from datahub.core.events import Listener, Progress, ignore
from datahub.pack import archives, untar, unzip
from datahub.pack.inflate import STEP, Stream, Window
from datahub.pack.members import DEFAULT, Limits, Member
from datahub.store.arrow import array

SCHEMA = pa.schema(
    [
        ("container", pa.uint32()),
        ("offset", pa.uint64()),
        ("stored", pa.uint64()),
        ("size", pa.uint64()),
        ("method", pa.uint8()),
        ("crc", pa.uint32()),
        ("name", pa.binary()),
    ]
)
"""``stored`` bytes at ``offset`` of a container make ``size`` bytes by ``method``; ``crc`` is zip's, else 0."""
PLAIN, DEFLATED, FILE = 0, 8, 255
"""Methods: as it stands; raw deflate (zip); a whole file of a folder, ``name`` below the container."""
FileFacts = tuple[bytes, int, int]
"""A file of a folder: path below it, bytes, mtime in ns."""
BATCH = 65_536
DEPTH = 3
"""Archives inside archives are opened this deep."""
ARCHIVE = re.compile(rb"\.(?:tar|tar\.gz|tgz|tar\.bz2|tbz2?|tar\.xz|txz|zip)$", re.IGNORECASE)
MEMBERS, CONTAINERS = "members.arrow", "containers.json"


class Container(msgspec.Struct, frozen=True):
    """A file that holds members, or a folder of files. ``path`` is relative to the inventory for spooled ones."""

    path: str
    folder: bool = False
    shown: str = ""
    """The archive a spooled one was decompressed from."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """An inventory on disk, open."""

    folder: Path
    containers: tuple[Container, ...]
    members: pa.Table

    def __len__(self) -> int:
        return len(self.members)

    def path_of(self, container: int) -> Path:
        return self.folder / self.containers[container].path


def open_inventory(folder: Path) -> Inventory:
    """Raises ``FileNotFoundError`` where there is none."""
    containers = msgspec.json.decode((folder / CONTAINERS).read_bytes(), type=tuple[Container, ...])
    return Inventory(folder, containers, read_table(folder / MEMBERS))


def read_table(path: Path) -> pa.Table:
    """An Arrow IPC file, mapped."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def take(
    roots: Sequence[Path],
    folder: Path,
    *,
    only: Sequence[FileFacts] | None = None,
    limits: Limits = DEFAULT,
    listener: Listener = ignore,
) -> Inventory:
    """The inventory of ``roots`` (folders, archives) at ``folder``, made unless it is there.

    ``only``: of the one root, a folder, these files and nothing else; no archive in it is looked into.
    Raises `UnsafeArchive`, `LayoutError`, `NotReadable`, `DiskFull`.
    """
    try:
        return open_inventory(folder)
    except FileNotFoundError:
        pass
    except (pa.ArrowException, msgspec.DecodeError, OSError):  # cut off by a crash of the machine: made again
        shutil.rmtree(folder, ignore_errors=True)
    building = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    atomic.make_dir(building)
    try:
        scan = _Scan(building, limits, listener)
        for root in roots:
            scan.root(root, only)
        scan.end()
        try:
            building.rename(folder)
        except OSError:
            if not (folder / CONTAINERS).exists():  # else somebody else made it meanwhile
                raise
    except OSError as error:
        raise from_oserror(error, folder) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return open_inventory(folder)


@dataclass(slots=True)
class _Columns:
    container: list[int] = field(default_factory=list)
    offset: list[int] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    method: list[int] = field(default_factory=list)
    crc: list[int] = field(default_factory=list)
    name: list[bytes] = field(default_factory=list)

    def batch(self) -> pa.RecordBatch:
        columns = [getattr(self, each.name) for each in SCHEMA]
        return pa.RecordBatch.from_arrays(
            [array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
        )


class _Scan:
    def __init__(self, folder: Path, limits: Limits, listener: Listener) -> None:
        self._folder, self._limits, self._listener = folder, limits, listener
        self._containers: list[Container] = []
        self._columns = _Columns()
        self._file = pa.OSFile(str(folder / MEMBERS), "wb")
        self._writer = pa.ipc.new_file(self._file, SCHEMA)
        self._count = 0
        self._spooled = 0
        self._item = ""

    def root(self, path: Path, only: Sequence[FileFacts] | None) -> None:
        self._item = path.name
        if only is not None:
            container = self._container(path.resolve(), folder=True)
            for name, size, _ in only:
                self._add(container, 0, size, size, FILE, 0, name)
        elif path.is_dir():
            self._tree(path)
        else:
            self._archive_file(path, b"", 0, str(path))
        self._listener(Progress("scan", self._item, self._count, self._count, "files"))

    def end(self) -> None:
        self._flush()
        self._writer.close()
        self._file.close()
        (self._folder / CONTAINERS).write_bytes(msgspec.json.encode(self._containers))

    def _add(self, container: int, offset: int, stored: int, size: int, method: int, crc: int, name: bytes) -> None:
        columns = self._columns
        columns.container.append(container)
        columns.offset.append(offset)
        columns.stored.append(stored)
        columns.size.append(size)
        columns.method.append(method)
        columns.crc.append(crc)
        columns.name.append(name)
        self._count += 1
        if self._count > self._limits.members:
            raise UnsafeArchive(self._item, name.decode("utf-8", "replace"), f"is one of over {self._limits.members}")
        if len(columns.name) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_batch(self._columns.batch())
        self._columns = _Columns()
        self._listener(Progress("scan", self._item, self._count, None, "files"))

    def _container(self, path: Path, *, folder: bool = False, shown: str = "") -> int:
        self._containers.append(Container(str(path), folder, shown))
        return len(self._containers) - 1

    # Folders

    def _tree(self, root: Path) -> None:
        container = self._container(root.resolve(), folder=True)
        for relative, size, _ in _files(root):
            if ARCHIVE.search(relative):
                path = root / os.fsdecode(relative)
                self._archive_file(path, ARCHIVE.sub(b"", relative) + b"/", 0, str(path))
            else:
                self._add(container, 0, size, size, FILE, 0, relative)

    # Archives

    def _archive_file(self, path: Path, prefix: bytes, depth: int, shown: str) -> None:
        """An archive that is a file of its own."""
        with archives.opened(path) as (handle, zipped):
            if zipped:
                self._zip(handle, path, prefix, depth, shown)
                return
            end = os.fstat(handle.fileno()).st_size
            stream = Stream(Window(handle.fileno(), 0, end), shown)
            if stream.kind:
                spool = self._spool(stream)
                self._spooled_tar(spool, prefix, depth, shown)
            else:
                self._tar(handle.fileno(), 0, stream, self._container(path.resolve()), prefix, depth)

    def _spooled_tar(self, spool: Path, prefix: bytes, depth: int, shown: str) -> None:
        with spool.open("rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            stream = Stream(Window(handle.fileno(), 0, size), shown)
            self._tar(handle.fileno(), 0, stream, self._container(Path(spool.name), shown=shown), prefix, depth)

    def _tar(self, descriptor: int, base: int, stream: Stream, container: int, prefix: bytes, depth: int) -> None:
        """Members of a plain tar that begins at byte ``base`` of the container."""
        for member in untar.walk(stream, self._limits):
            name = prefix + _plain(member.name)
            start = base + member.offset
            if not ARCHIVE.search(name):
                self._add(container, start, member.size, member.size, PLAIN, 0, name)
                continue
            below, shown = self._below(name, depth, stream.path, member.name)
            inner = Stream(Window(descriptor, start, start + member.size), shown)
            if inner.kind or _zipped(descriptor, start):
                self._nested(self._spool(member), below, depth, shown)
            else:
                self._tar(descriptor, start, inner, container, below, depth + 1)

    def _nested(self, spool: Path, prefix: bytes, depth: int, shown: str) -> None:
        """A nested archive that was copied out because it cannot be walked where it stands."""
        before = len(self._containers)
        self._archive_file(spool, prefix, depth + 1, shown)
        for number in range(before, len(self._containers)):
            path = Path(self._containers[number].path)
            if path.is_absolute() and path.parent == self._folder.resolve():
                self._containers[number] = Container(path.name, shown=shown)

    def _zip(self, handle: BinaryIO, path: Path, prefix: bytes, depth: int, shown: str) -> None:
        container = self._container(path.resolve())
        for member in unzip.walk(handle, shown, self._limits):
            name = prefix + _plain(member.name)
            if ARCHIVE.search(name):
                below, inner = self._below(name, depth, shown, member.name)
                self._nested(self._spool(member), below, depth, inner)
            else:
                data = member.source
                assert isinstance(data, unzip.Packed)  # what unzip's members are read from
                self._add(container, data.start, data.packed, member.size, data.method, data.crc, name)

    def _below(self, name: bytes, depth: int, path: str, member: str) -> tuple[bytes, str]:
        if depth >= DEPTH:
            raise UnsafeArchive(path, member, f"is an archive inside archives, more than {DEPTH} deep")
        return ARCHIVE.sub(b"", name) + b"/", f"{path}/{member}"

    def _spool(self, source: Stream | Member) -> Path:
        """The whole of ``source`` in a file of its own."""
        path = self._folder / f"spool-{len(list(self._folder.glob('spool-*')))}"
        try:
            with path.open("xb") as handle:
                while piece := source.read(STEP):
                    self._spooled += len(piece)
                    if self._spooled > self._limits.total:
                        raise UnsafeArchive(self._item, path.name, f"decompresses to over {self._limits.total} bytes")
                    handle.write(piece)
                    self._room(len(piece))
        except OSError as error:
            raise from_oserror(error, path, writing=True) from error
        return path

    def _room(self, written: int) -> None:
        """Stop a bomb before the disk is full, not after: others write to it as well."""
        if self._spooled // SPARE == (self._spooled - written) // SPARE:
            return
        free = shutil.disk_usage(self._folder).free
        if free < SPARE:
            raise DiskFull(str(self._folder), SPARE, free)
        self._listener(Progress("decompress", self._item, self._spooled, None))


SPARE = 256 << 20
"""Bytes of disk that decompressing leaves free."""


def _zipped(descriptor: int, start: int) -> bool:
    return os.pread(descriptor, 4, start) in archives.ZIP


def _plain(name: str) -> bytes:
    """A member's name without the ``./`` that tar writes for ``tar c .``."""
    raw = name.encode("utf-8", "surrogateescape")
    while raw.startswith(b"./"):
        raw = raw[2:]
    return raw


def named(root: Path, names: Sequence[bytes]) -> list[FileFacts | None]:
    """What is known of these files below the folder ``root``; None where there is no such file."""
    found: list[FileFacts | None] = []
    for name in names:
        facts = None
        if not name.startswith(b"/") and b".." not in name.split(b"/"):
            with suppress(OSError, ValueError):
                status = (root / os.fsdecode(name)).stat()
                if stat.S_ISREG(status.st_mode):
                    facts = name, status.st_size, status.st_mtime_ns
        found.append(facts)
    return found


def _files(root: Path) -> Iterator[FileFacts]:
    """Every file below ``root``, sorted by path; links are followed, not in circles."""
    try:
        top = root.stat()
        pending: list[tuple[bytes, tuple[tuple[int, int], ...]]] = [(b"", ((top.st_dev, top.st_ino),))]
        found: list[FileFacts] = []
        while pending:
            folder, above = pending.pop()
            with os.scandir(os.fsencode(root) + b"/" + folder) as entries:
                for entry in entries:
                    name = folder + b"/" + entry.name if folder else entry.name
                    if entry.is_dir():
                        here = entry.stat()
                        if (identity := (here.st_dev, here.st_ino)) not in above:
                            pending.append((name, (*above, identity)))
                    elif entry.is_file():
                        found.append((name, entry.stat().st_size, entry.stat().st_mtime_ns))
    except OSError as error:
        raise NotReadable(str(root), error.strerror or str(error)) from error
    return iter(sorted(found))


def identity(roots: Sequence[Path], only: Sequence[FileFacts] | None = None) -> str:
    """Hex digest that changes when a file below ``roots`` is added, removed or written; their content is not read.

    ``only``: these files of the one root alone count.
    """
    whole = hashlib.sha256()
    for root in roots:
        if root.is_dir():
            for name, size, written in _files(root) if only is None else only:
                whole.update(b"%s\0%d %d\n" % (name, size, written))
        else:
            try:
                found = root.stat()
            except OSError as error:
                raise NotReadable(str(root), error.strerror or str(error)) from error
            whole.update(b"%s\0%d %d\n" % (os.fsencode(root.name), found.st_size, found.st_mtime_ns))
        whole.update(b"\n")
    return whole.hexdigest()


def check_root(path: Path, name: str = "source") -> Path:
    """``path`` if it is there; raises `BadArgument` naming the argument it came in."""
    if not path.exists():
        raise BadArgument(name, str(path), "there is no such file or folder", "check the path")
    return path
