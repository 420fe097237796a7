"""``parquet:PLACE``: a file or folder of Parquet files with the images' bytes in a column, as Hugging Face stores them.

Rows cannot be read at random, so the images are copied out once, into one file beside the list.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datahub.core import atomic
from datahub.core.errors import BadArgument, DiskFull, LayoutError, NotReadable, from_oserror
from datahub.core.events import Listener, Progress
from datahub.pack import inventory
from datahub.pack.inventory import Container, Inventory
from datahub.pack.listed import Listed
from datahub.pack.own import key_of, tables, typed_columns
from datahub.pack.own.annotations import NAMES
from datahub.store.arrow import array
from datahub.store.record import FieldSpec

if TYPE_CHECKING:
    from datahub.pack.sources import Reading

BATCH = 64
"""Rows read at once: of images of a megabyte, 64 MB."""
SPOOL = "images.bin"


def open_parquet(location: str, reading: Reading, scratch: Path, listener: Listener) -> Listed:
    root = inventory.check_root(Path(location).expanduser())
    files = sorted(root.rglob("*.parquet")) if root.is_dir() else [root]
    if not files:
        raise LayoutError(str(root), "", "holds no .parquet files")
    identity = inventory.identity([root])
    schema = _schemas(files)
    image = _image(schema, reading, files[0])
    used = {"image": image, **_others(schema, reading, files[0])}
    label, split = used.get("label"), used.get("split")
    specs = typed_columns.specs(reading.types, schema.names, used, files[0])
    blobs = [name for name, spec in specs.items() if spec.type in ("mask", "bytes", "video")]
    _check_bytes(schema, blobs, specs)
    facts: dict[str, Any] = {"kind": "parquet", "identity": identity, "split": str(reading.split), "columns": used}
    facts |= {"types": dict(sorted(reading.types.items()))} if specs else {}
    folder = scratch / f"files-{key_of(facts)}"
    spool = _Spool(root, files, image, blobs, folder, listener)
    others = [name for name in schema.names if name not in used.values() and _plain(schema.field(name).type)]
    columns = spool.copy([*others, *(each for each in (label, split) if each)])
    further = tables.field_names([*others, *blobs])
    there = Inventory(folder, (Container(SPOOL),), spool.table)
    there, rows_of, members = _typed(root, specs, further, columns, spool, there)
    rows = tables.Rows(
        path=root,
        table=spool.table,
        names=[b"x." + each.rpartition(".")[2].encode("utf-8", "replace") for each in spool.names],
        labels=columns[label] if label else None,
        classes=_classes(schema, label) if label else None,
        splits=_named(columns[split]) if split else _splits(root, files, spool.counts),
        further={further[name]: columns[name] for name in others if name not in specs} | rows_of,
        kinds={further[name]: typed_columns.kind(spec) for name, spec in specs.items()},
        members=members,
    )
    notes = [f"{len(spool.table):,} rows; " + ", ".join(f"{what}: column {name}" for what, name in used.items())]
    return tables.write(scratch / f"{key_of(facts)}-samples", there, rows, reading.split, facts, notes)


def _check_bytes(schema: pa.Schema, blobs: list[str], specs: Mapping[str, FieldSpec]) -> None:
    for name in blobs:
        if not _holds_bytes(schema.field(name).type):
            raise BadArgument("types", specs[name].type, f"the column {name} holds no bytes")


def _typed(
    root: Path,
    specs: Mapping[str, FieldSpec],
    fields: Mapping[str, str],
    columns: Mapping[str, list[Any]],
    spool: _Spool,
    there: Inventory,
) -> tuple[Inventory, dict[str, list[Any]], dict[str, pa.Table]]:
    """The inventory with what is no image, the rows of objects, and where files beside the images are."""

    def wrong(at: int, reason: str) -> LayoutError:
        return LayoutError(str(root), spool.names[at], reason)

    members = {fields[name]: typed_columns.places(0, *spool.beside(name)) for name in spool.blobs}
    listed = {name: spec for name, spec in specs.items() if name not in spool.blobs}
    rows, files = typed_columns.made(listed, columns, wrong)
    for name, blobs in files.items():
        at = len(there.containers)
        held, members[fields[name]] = typed_columns.spooled(there.folder, f"{fields[name]}.bin", blobs, at)
        there = replace(there, containers=(*there.containers, held))
    return there, {fields[name]: column for name, column in rows.items()}, members


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise LayoutError(str(path), "", f"is not a Parquet file: {_line(error)}") from error


def _schemas(files: list[Path]) -> pa.Schema:
    """The schema of all files. Raises `LayoutError` naming the first that has another than the first."""
    first = _schema(files[0])
    for path in files[1:]:
        if odd := sorted(_forms(first) ^ _forms(_schema(path))):
            raise LayoutError(str(path), f"column {odd[0][0]}", f"is not as in {files[0].name}: all must have one form")
    return first


def _forms(schema: pa.Schema) -> set[tuple[str, bool]]:
    """What files must share: names, and which columns hold bytes. Numbers may be narrow in one and wide in another."""
    return {(field.name, _holds_bytes(field.type)) for field in schema}


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _plain(kind: pa.DataType) -> bool:
    """Whether no bytes are anywhere in it: those are no field."""
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return False
    return all(_plain(kind.field(at).type) for at in range(kind.num_fields))


def _others(schema: pa.Schema, reading: Reading, path: Path) -> dict[str, str]:
    """``label`` and ``split`` -> their columns, where there are such."""
    used: dict[str, str] = {}
    for what in ("label", "split"):
        given = reading.columns.get(what)
        if given is not None and given not in schema.names:
            raise BadArgument("columns", given, f"{path.name} has no such column", f"it has {', '.join(schema.names)}")
        if found := given or next((name for name in NAMES[what] if name in schema.names), None):
            used[what] = found
    return used


def _image(schema: pa.Schema, reading: Reading, path: Path) -> str:
    given = reading.columns.get("image")
    able = [name for name in schema.names if _holds_bytes(schema.field(name).type)]
    if given is not None and given not in able:
        what = f"is not a column of {path.name} that holds bytes"
        raise BadArgument("columns", given, what, f"such are: {', '.join(able) or 'none'}")
    found = given or next((name for name in NAMES["image"] if name in able), able[0] if len(able) == 1 else None)
    if found is None:
        reason = f"{'none' if not able else 'more than one'} of the columns {', '.join(schema.names)} holds image bytes"
        raise LayoutError(str(path), "", reason, "say which: --columns image=NAME" if able else "pack another file")
    return found


def _classes(schema: pa.Schema, label: str) -> list[str] | None:
    """The names that Hugging Face keeps with a ClassLabel column."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])
        names = info["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) and names else None


def _splits(root: Path, files: list[Path], counts: list[int]) -> list[str] | None:
    """By the files' names, ``train-00000-of-00004.parquet``, or their folders', where all of them are a split's."""
    names = [path.name.split(".")[0].split("-")[0].lower() for path in files]
    folders = [path.parent.name.lower() if path.parent != root else "" for path in files]
    heads = next((each for each in (names, folders) if set(each) <= tables.FOLDERS), None)
    if heads is None:
        return None
    return [head for head, count in zip(heads, counts, strict=True) for _ in range(count)]


def _named(values: list[Any]) -> list[str]:
    return [str(each or "train").strip().lower() for each in values]


class _Spool:
    """Copies the images of all files into one, and says where each is."""

    def __init__(
        self, root: Path, files: list[Path], image: str, blobs: list[str], folder: Path, listener: Listener
    ) -> None:
        self._root, self._files, self._image, self.blobs = root, files, image, blobs
        self._beside: dict[str, list[tuple[int, int]]] = {name: [] for name in blobs}
        self._folder, self._listener = folder, listener
        self.names: list[str] = []
        self.counts: list[int] = []
        self._offsets: list[int] = []
        self._sizes: list[int] = []

    @property
    def table(self) -> pa.Table:
        count = len(self._sizes)
        columns: dict[str, Any] = {
            "container": [0] * count,
            "offset": self._offsets,
            "stored": self._sizes,
            "size": self._sizes,
            "method": [inventory.PLAIN] * count,
            "crc": [0] * count,
            "name": [name.encode("utf-8", "surrogateescape") for name in self.names],
        }
        table = pa.Table.from_arrays(
            [array(columns[each.name], each.type) for each in inventory.SCHEMA], schema=inventory.SCHEMA
        )
        return table.append_column("source", array(self.names, pa.string()))

    def copy(self, columns: list[str]) -> dict[str, list[Any]]:
        """Write the images; returns the other columns' values."""
        values: dict[str, list[Any]] = {name: [] for name in columns}
        self._room()
        building = self._folder.with_name(f".{self._folder.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        atomic.make_dir(building)
        try:
            with (building / SPOOL).open("wb") as out:
                for path in self._files:
                    before = len(self._sizes)
                    for row, batch in self._batches(path, columns):
                        self._images(out, path, row, batch.column(self._image))
                        for name in self.blobs:
                            self._blobs(out, path, row, name, batch.column(name))
                        for name in columns:
                            values[name] += batch.column(name).to_pylist()
                    self.counts.append(len(self._sizes) - before)
            if not (self._folder / SPOOL).exists():
                shutil.rmtree(self._folder, ignore_errors=True)
                building.rename(self._folder)
        except OSError as error:
            raise from_oserror(error, self._folder, writing=True) from error
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return values

    def beside(self, name: str) -> tuple[list[int], list[int]]:
        """Offsets and sizes of a further column's bytes."""
        return [offset for offset, _ in self._beside[name]], [size for _, size in self._beside[name]]

    def _blobs(self, out: Any, path: Path, first: int, name: str, column: pa.Array) -> None:
        if pa.types.is_struct(column.type):
            column = pc.struct_field(column, "bytes")
        for at, data in enumerate(column.to_pylist()):
            if data is None:
                raise LayoutError(str(path), f"row {first + at}", f"has no bytes in column {name}")
            self._beside[name].append((out.tell(), len(data)))
            out.write(data)

    def _room(self) -> None:
        """Raises `DiskFull` before anything is copied: images hardly compress, so they take what the files take."""
        needed = sum(path.stat().st_size for path in self._files)
        atomic.make_dir(self._folder.parent)
        free = shutil.disk_usage(self._folder.parent).free
        if not (self._folder / SPOOL).exists() and free < needed:
            raise DiskFull(str(self._folder.parent), needed, free)

    def _batches(self, path: Path, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        row = 0
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH, columns=[self._image, *self.blobs, *columns]):
                    yield row, batch
                    row += len(batch)
                    self._listener(Progress("scan", path.name, row, file.metadata.num_rows, "rows"))
        except (pa.ArrowException, OSError) as error:  # damaged pages are an OSError without a number
            if isinstance(error, OSError) and error.errno is not None:
                raise NotReadable(str(path), error.strerror or str(error)) from error
            raise LayoutError(str(path), f"after row {row}", f"cannot be read: {_line(error)}") from error

    def _images(self, out: Any, path: Path, first: int, column: pa.Array) -> None:
        paths: list[str | None] = [None] * len(column)
        if pa.types.is_struct(column.type):
            if column.type.get_field_index("path") >= 0:
                paths = column.field("path").to_pylist()
            column = pc.struct_field(column, "bytes")  # null where the struct is
        for at, data in enumerate(column.to_pylist()):
            if data is None:
                raise LayoutError(str(path), f"row {first + at}", f"has no image in column {self._image}")
            self._offsets.append(out.tell())
            self._sizes.append(len(data))
            shown = paths[at] or _format(data)
            self.names.append(
                f"{path.relative_to(self._root) if path != self._root else path.name}#{first + at}/{shown}"
            )
            out.write(data)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _format(data: bytes) -> str:
    from datahub.pack import images

    try:
        found = images.look(data).format
    except ValueError:
        return "image.jpg"
    return f"image.{images.EXTENSIONS.get(found, found)}"
