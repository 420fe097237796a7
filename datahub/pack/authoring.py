"""`Writer`: a dataset made of samples that a Python program has. Nothing of it is seen before all of it is written.

Samples gather in a file of the writer's own below ``datasets/.building``; the last writer to close packs them all by
their names, so that neither the number of writers nor their pace shows in the bytes.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import pyarrow as pa

from datahub.core import atomic
from datahub.core.digests import sha256_hex
from datahub.core.errors import BadArgument, from_oserror
from datahub.core.events import Listener, ignore
from datahub.core.locks import FileLock
from datahub.core.refs import SPLIT, Ref
from datahub.core.settings import Settings
from datahub.pack import authored, images, inventory
from datahub.pack.authored import Picture
from datahub.pack.fetch import Options, Target, check_name, of_manifest, pack_files
from datahub.pack.inventory import Container, Inventory
from datahub.pack.listed import LARGEST, Listed
from datahub.pack.own import tables
from datahub.pack.own.objects import task_of
from datahub.pack.own.values import text
from datahub.pack.run import Part
from datahub.registry.parse import digest_of
from datahub.registry.schema import Layout, Licence, Manifest, Tried
from datahub.store.arrow import array
from datahub.store.paths import building_dir, pack_lock, part_lock

BYTES, ROWS, DONE = "images.bin", "rows.json", "part.json"


class _Done(msgspec.Struct, frozen=True):
    """What a writer that has closed leaves."""

    fields: dict[str, str]
    classes: list[str] | None
    samples: int


class _Row(msgspec.Struct, array_like=True):
    split: str
    source: str
    offset: int
    size: int
    format: str
    digest: str
    """SHA-256 of the image: content is part of what tells two datasets apart."""
    label: int | str | None
    further: dict[str, Any]
    members: dict[str, tuple[int, int, str]] = {}
    """Fields with a member of their own: offset, size, SHA-256."""


class Writer:
    """Write samples one by one; `close` packs them and publishes the dataset, all or nothing.

    ``fields``: name -> type, of ``image`` (always), ``label``, ``int``, ``float``, ``text``, ``json``, ``bytes``,
    ``video``; with a row an object ``boxes`` (``boxes:xywh``), ``labels``, ``ints``, ``floats``, ``keypoints``,
    ``visibility`` and ``masks``; and ``mask``, a class number a pixel: see `datahub.store.typed`. ``classes``: in the
    order of their labels; without them they are the labels' names, sorted. Several processes write one dataset as
    ``part="1/4"`` to ``"4/4"``: the last of them to close publishes. Left by an exception, a writer throws away what
    it wrote. Threads may share one.
    """

    def __init__(
        self,
        ref: str | Ref,
        fields: Mapping[str, str] | None = None,
        *,
        settings: Settings,
        classes: Sequence[str] | None = None,
        part: str = "1/1",
        replace: bool = False,
        damaged: str = "keep",
        jobs: int | None = None,
        listener: Listener = ignore,
    ) -> None:
        self.ref = Ref.parse(ref) if isinstance(ref, str) else ref
        self.path: Path | None = None
        """The packed variant, once it is published by this writer."""
        self._fields = authored.fields(fields)
        self._specs = authored.specs(self._fields)
        self._classes = authored.classes(classes)
        check_name(self.ref, settings)
        self._settings, self._listener = settings, listener
        self._options = Options(replace=replace, damaged=damaged, jobs=jobs)
        self._part = Part.parse(part)
        self._digest = sha256_hex(f"writer {self.ref} {self._part.parts}".encode())
        self._building = building_dir(settings.datasets, self._digest)
        self._folder = self._building / f"part-{self._part.number}"
        self._rows: list[_Row] = []
        self._seen: set[tuple[str, str]] = set()
        self._guard = threading.Lock()
        self._closed = False
        self._held = FileLock(part_lock(settings.locks, self._digest, str(self._part)))
        self._held.acquire()
        try:
            shutil.rmtree(self._folder, ignore_errors=True)  # of one that was killed
            atomic.make_dir(self._folder)
            self._file = (self._folder / BYTES).open("wb")
        except OSError as error:
            self._held.release()
            raise from_oserror(error, self._folder, writing=True) from error

    def write(
        self,
        *,
        image: Picture | None = None,
        split: str = "train",
        source: str | None = None,
        label: int | str | None = None,
        **further: Any,
    ) -> None:
        """Add a sample. ``image``: a file's path, an encoded file's bytes, a PIL image, or a uint8 array (H, W) or
        (H, W, 3); the last two are stored losslessly. Beside a ``video`` it may be left out, and is then the video's
        first frame. ``source`` is its name in the index, unique in its split.

        Raises `BadArgument` for values that do not fit the fields, `NotReadable`, `DiskFull`.
        """
        if self._closed:
            raise BadArgument("write", str(self.ref), "this writer is closed")
        if not isinstance(split, str) or not SPLIT.fullmatch(split):
            raise BadArgument("split", split, "is not a split's name", "use lower-case letters, digits and '_'")
        data, further = authored.pictured(image, self._specs, further)
        look = _looked(data, source)
        found = authored.label(label, "label" in self._fields, self._classes)
        values, members = authored.further(self._specs, further, (look.height, look.width), self._classes)
        if source is not None and (not isinstance(source, str) or text(source) != source):
            raise BadArgument("source", source, "is not a text that UTF-8 holds")
        with self._guard:
            name = source if source is not None else f"{split}-{self._part.number:04d}-{len(self._rows):09d}"
            if (split, name) in self._seen:
                raise BadArgument("source", name, f"is written twice in split {split}")
            try:
                offset = self._file.tell()
                self._file.write(data)
                places = {field: self._put(file) for field, file in members.items()}
            except OSError as error:
                raise from_oserror(error, self._folder, writing=True) from error
            self._seen.add((split, name))
            row = _Row(split, name, offset, len(data), look.format, sha256_hex(data), found, values, places)
            self._rows.append(row)

    def _put(self, data: bytes) -> tuple[int, int, str]:
        offset = self._file.tell()
        self._file.write(data)
        return offset, len(data), sha256_hex(data)

    def close(self) -> Path | None:
        """Publish; returns the variant's folder, or None where other parts are not closed yet.

        Raises `BadArgument` where nothing was written or parts disagree, `AlreadyPacked`, `DiskFull`, ...
        """
        if self._closed:
            return self.path
        self._closed = True
        try:
            with self._file as file:
                file.flush()
                os.fsync(file.fileno())
            atomic.write_bytes(self._folder / ROWS, msgspec.json.encode(self._rows))
            done = _Done(dict(self._fields), self._classes, len(self._rows))
            atomic.write_bytes(self._folder / DONE, msgspec.json.encode(done))
        except OSError as error:
            raise from_oserror(error, self._folder, writing=True) from error
        finally:
            self._held.release()
        with FileLock(pack_lock(self._settings.locks, self._digest)):
            folders = [self._building / f"part-{number}" for number in range(1, self._part.parts + 1)]
            if not all((folder / DONE).exists() for folder in folders):
                return None
            try:
                self.path = self._publish(folders)
            except BaseException:
                self._clear()  # other parts stay: written again, this one publishes them
                raise
            shutil.rmtree(self._building, ignore_errors=True)
        return self.path

    def discard(self) -> None:
        """Throw away what this writer wrote."""
        if not self._closed:
            self._closed = True
            self._file.close()
            self._clear()
            self._held.release()

    def _clear(self) -> None:
        """Remove what this writer wrote, and the folder of all parts where no other is there."""
        for folder in (self._folder, self._building / "samples"):
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            self._building.rmdir()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()

    def _publish(self, folders: Sequence[Path]) -> Path:
        wanted = self._target(self._gathered(folders))
        found = pack_files(wanted, (), self._settings, self._options, self._listener)
        assert found is not None  # one run packs every shard
        return Path(found)

    def _target(self, source: Listed) -> Target:
        manifest = Manifest(
            name=self.ref.name,
            version=self.ref.version or "1.0",
            title=self.ref.name,
            licence=Licence(note="the writer's own data"),
            task=task_of(self._specs),
            classes=list(source.classes() or []),
            splits=dict(source.splits()),
            tried=Tried(how="published files"),
            layout=Layout(kind="written"),
        )
        manifest = msgspec.structs.replace(manifest, digest=digest_of(manifest))
        target = of_manifest(manifest, self.ref.variant)
        return replace(target, source=source)

    def _gathered(self, folders: Sequence[Path]) -> Listed:
        """All parts' samples, in the order of their names."""
        rows: list[tuple[str, str, int, _Row]] = []
        for container, folder in enumerate(folders):
            done = msgspec.json.decode((folder / DONE).read_bytes(), type=_Done)
            if (done.fields, done.classes) != (dict(self._fields), self._classes):
                raise BadArgument(
                    "fields", done.fields, f"part {container + 1} was written with other fields or classes"
                )
            read = msgspec.json.decode((folder / ROWS).read_bytes(), type=list[_Row])
            rows += [(row.split, row.source, container, row) for row in read]
        if not rows:
            raise BadArgument("write", str(self.ref), "no sample was written", "write at least one")
        rows.sort(key=lambda each: each[:3])
        there = Inventory(
            self._building, tuple(Container(f"{folder.name}/{BYTES}") for folder in folders), pa.table({})
        )
        own = [row for *_, row in rows]
        made = tables.Rows(
            path=self._building,
            table=_table(rows),
            names=[b"x." + row.format.encode() for row in own],
            labels=[row.label for row in own] if "label" in self._fields else None,
            classes=self._classes,
            splits=[row.split for row in own],
            further={name: [row.further[name] for row in own] for name in own[0].further},
            kinds={name: kind for name, kind in self._fields.items() if name not in ("image", "label")},
            members={name: _members(rows, name) for name in own[0].members},
        )
        told = [
            (row.split, row.source, row.digest, row.label, {**row.further, **{n: m[2] for n, m in row.members.items()}})
            for row in own
        ]
        facts = {"kind": "written", "rows": sha256_hex(msgspec.json.encode(told, order="sorted"))}
        return tables.write(self._building / "samples", there, made, None, facts, [])


def _looked(data: bytes, source: str | None) -> images.Looks:
    if len(data) > LARGEST:
        raise BadArgument("image", source or "bytes", f"has {len(data)} bytes: at most {LARGEST} are packed")
    try:
        return images.look(data)
    except ValueError as error:
        raise BadArgument("image", source or "bytes", str(error)) from error


def _table(rows: Sequence[tuple[str, str, int, _Row]]) -> pa.Table:
    """Where the images are, and their names."""
    table = _places(rows, [(row.offset, row.size) for *_, row in rows])
    return table.append_column("source", array([row.source for *_, row in rows], pa.string()))


def _members(rows: Sequence[tuple[str, str, int, _Row]], name: str) -> pa.Table:
    """Where the files of a field are."""
    return _places(rows, [row.members[name][:2] for *_, row in rows])


def _places(rows: Sequence[tuple[str, str, int, _Row]], places: Sequence[tuple[int, int]]) -> pa.Table:
    sizes = [size for _, size in places]
    columns: dict[str, Any] = {
        "container": [container for _, _, container, _ in rows],
        "offset": [offset for offset, _ in places],
        "stored": sizes,
        "size": sizes,
        "method": [inventory.PLAIN] * len(rows),
        "crc": [0] * len(rows),
        "name": [row.source.encode("utf-8", "surrogateescape") for *_, row in rows],
    }
    return pa.Table.from_arrays(
        [array(columns[each.name], each.type) for each in inventory.SCHEMA], schema=inventory.SCHEMA
    )
