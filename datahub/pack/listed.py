"""`Listed`: a source whose samples are files of an inventory, one row each, in tables on the disk.

Layouts decide which files are samples and what their labels are, once, and write it down; every worker maps the tables,
so that a source of a million samples travels as a folder's name.

On disk: ``source.json`` (`About`) and ``<split>.arrow``: the columns of `inventory.SCHEMA`, ``source`` (the original
name, for people), ``label`` where there are labels, and a column for each further field; for one with a member of its
own those of `inventory.SCHEMA` again, as ``<field>/<column>``, null where a sample has none.
"""

from __future__ import annotations

import os
import secrets
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datahub.core import atomic
from datahub.core.errors import LayoutError, NotReadable, from_oserror
from datahub.core.learning import learn
from datahub.pack.inventory import DEFLATED, FILE, SCHEMA, Container, Inventory, read_table
from datahub.pack.source import Chunk
from datahub.pack.tar import BLOCK
from datahub.store import index, typed
from datahub.store.arrow import array, numbers
from datahub.store.record import FieldSpec

ABOUT = "source.json"
LARGEST = 1 << 30
"""Bytes of an image file above which it is taken for damage, not for an image."""
OPEN = 64
"""Archives a process keeps open."""
_PAIRS = pa.list_(pa.list_(pa.float64()))
TYPES = {
    **{"label": pa.int64(), "int": pa.int64(), "float": pa.float64(), "text": pa.string(), "json": pa.string()},
    **index.LISTS,
    **{"boxes": _PAIRS, "keypoints": pa.list_(_PAIRS)},
}
"""Coordinates in 64 bits, for their decimals are as short as 32 bits allow, and stay so."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    splits: dict[str, int]
    classes: list[str] | None
    words: list[str] = []
    fields: dict[str, FieldSpec]
    facts: dict[str, Any]
    containers: list[Container]
    """Paths relative to ``inventory``, or absolute."""
    inventory: str
    notes: list[str] = []
    """What was understood, and what was passed over, a line each, for people."""


def write(
    folder: Path,
    inventory: Inventory,
    tables: Mapping[str, pa.Table],
    *,
    classes: list[str] | None,
    fields: Mapping[str, FieldSpec],
    facts: Mapping[str, Any],
    words: list[str] | None = None,
    notes: list[str] | None = None,
) -> Listed:
    """Write the tables at ``folder``, in place of any that stand there, and open them."""
    about = About(
        splits={name: len(table) for name, table in tables.items()},
        classes=classes,
        words=words or [],
        fields=dict(fields),
        facts=dict(facts),
        containers=list(inventory.containers),
        inventory=str(inventory.folder),
        notes=notes or [],
    )
    building = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    atomic.make_dir(building)
    try:
        for name, table in tables.items():
            whole = table.combine_chunks()
            with pa.OSFile(str(building / f"{name}.arrow"), "wb") as file, pa.ipc.new_file(file, whole.schema) as out:
                out.write_table(whole, max_chunksize=max(1, len(whole)))
        (building / ABOUT).write_bytes(msgspec.json.encode(about))
        shutil.rmtree(folder, ignore_errors=True)
        building.rename(folder)
    except OSError as error:
        if not (folder / ABOUT).exists():  # else another process wrote the same
            raise from_oserror(error, folder, writing=True) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Listed(folder)


class Listed:
    """See the module; pickles as the folder's name."""

    random_access = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.about = msgspec.json.decode((folder / ABOUT).read_bytes(), type=About)
        except OSError as error:
            raise NotReadable(str(folder / ABOUT), error.strerror or str(error)) from error
        self._tables: dict[str, pa.Table] = {}
        self._files = Files(self.about.containers, Path(self.about.inventory))

    def __reduce__(self) -> tuple[Any, ...]:
        return Listed, (self.folder,)

    def splits(self) -> Mapping[str, int]:
        return self.about.splits

    def classes(self) -> list[str] | None:
        return self.about.classes

    def words(self) -> list[str]:
        """What the classes are called in words; may be empty."""
        return self.about.words

    def notes(self) -> list[str]:
        return self.about.notes

    def fields(self) -> Mapping[str, FieldSpec]:
        return self.about.fields

    def facts(self) -> dict[str, Any]:
        return self.about.facts

    def estimate(self, split: str) -> NDArray[np.int64]:
        return self._column(split, "size").astype(np.int64)

    def beside(self, split: str) -> NDArray[np.int64] | None:
        """Bytes in the shard of what has members of its own, int64 (n,); None where nothing has."""
        table, names = self._table(split), self._own
        if not names:
            return None
        sizes = [np.array(table[f"{name}/size"].fill_null(0).to_pylist(), np.int64) for name in names]
        found: NDArray[np.int64] = np.sum([BLOCK + -(-each // BLOCK) * BLOCK for each in sizes], axis=0, dtype=np.int64)
        return found

    def read(self, split: str, indices: NDArray[np.int64]) -> Chunk:
        rows = self._table(split).take(array(indices, pa.int64()))
        labels = numbers(rows["label"]) if "label" in self.about.fields else None
        kinds = typed.kinds(self.about.fields)
        return Chunk(
            images=self._read(rows, ""),
            labels=labels,
            sources=rows["source"].to_pylist(),
            scalars={name: rows[name].to_pylist() for name in kinds if name not in self._own},
            members={name: self._read(rows, f"{name}/") for name in self._own},
        )

    @property
    def _own(self) -> list[str]:
        """Fields with a member of their own."""
        return [name for name, kind in typed.kinds(self.about.fields).items() if kind in typed.MEMBERS]

    def _read(self, rows: pa.Table, prefix: str) -> list[bytes]:
        """The files that columns of `SCHEMA` behind ``prefix`` name; empty where they are null."""
        wanted = list(zip(*(rows[prefix + name].to_pylist() for name in SCHEMA.names), strict=True))
        files = [b""] * len(wanted)
        there = [i for i, place in enumerate(wanted) if place[0] is not None]
        order = sorted(there, key=lambda i: wanted[i][:2])
        for i in order:
            self._files.expect(*wanted[i][:3])
        for i in order:  # as they lie on the disk
            files[i] = self._files.read(*wanted[i])
        return files

    def _table(self, split: str) -> pa.Table:
        if split not in self._tables:
            try:
                self._tables[split] = read_table(self.folder / f"{split}.arrow")
            except (OSError, pa.ArrowException) as error:
                raise NotReadable(str(self.folder / f"{split}.arrow"), str(error)) from error
        return self._tables[split]

    def _column(self, split: str, name: str) -> NDArray[Any]:
        found: NDArray[Any] = numbers(self._table(split)[name])
        return found


class Files:
    """Reads members where the inventory found them. Keeps archives open; for one thread."""

    def __init__(self, containers: list[Container], base: Path) -> None:
        self._containers = [(base / each.path, each.folder) for each in containers]
        self._open: dict[int, int] = {}

    def expect(self, container: int, offset: int, stored: int) -> None:
        """Tell the kernel what will be read, so that several reads are on their way at once."""
        path, folder = self._containers[container]
        if not folder:
            os.posix_fadvise(self._descriptor(container, path), offset, stored, os.POSIX_FADV_WILLNEED)

    def read(self, container: int, offset: int, stored: int, size: int, method: int, crc: int, name: bytes) -> bytes:
        """The bytes of one member. Raises `LayoutError` where they are no longer as they were found."""
        path, folder = self._containers[container]
        shown = name.decode("utf-8", "backslashreplace")
        if max(size, stored) > LARGEST:
            raise LayoutError(str(path), shown, f"has {size} bytes: an image has at most {LARGEST}")
        if folder or method == FILE:
            return self._whole(path, name, size, shown)
        try:
            data = os.pread(self._descriptor(container, path), stored, offset)
        except OSError as error:
            raise NotReadable(str(path), error.strerror or str(error)) from error
        if len(data) != stored:
            raise LayoutError(str(path), shown, f"truncated: {len(data)} of {stored} bytes are there")
        return _inflated(data, size, crc, path, shown) if method == DEFLATED or crc else data

    @staticmethod
    def _whole(folder: Path, name: bytes, size: int, shown: str) -> bytes:
        try:
            descriptor = os.open(os.fsencode(folder) + b"/" + name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.pread(descriptor, size + 1, 0)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise NotReadable(f"{folder}/{shown}", error.strerror or str(error)) from error
        if len(data) != size:
            raise LayoutError(str(folder), shown, f"changed while it was packed: it had {size} bytes")
        return data

    def _descriptor(self, container: int, path: Path) -> int:
        found = self._open.get(container)
        if found is None:
            try:
                found = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise NotReadable(str(path), error.strerror or str(error)) from error
            while len(self._open) >= OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[container] = found
        return found

    def __del__(self) -> None:
        for descriptor in getattr(self, "_open", {}).values():
            os.close(descriptor)


def _inflated(data: bytes, size: int, crc: int, path: Path, shown: str) -> bytes:
    """A zip member's data: raw deflate or stored, checked against its size and CRC-32."""
    if len(data) != size or zlib.crc32(data) != crc:
        machine = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = machine.decompress(data, size + 1)
        except zlib.error as error:
            raise LayoutError(str(path), shown, f"damaged deflate data: {error}") from error
    if len(data) != size or zlib.crc32(data) != crc:
        raise LayoutError(str(path), shown, "damaged: its CRC-32 is not the one in the directory")
    return data


learn(About)
