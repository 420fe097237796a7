"""``csv:``, ``json:`` and ``jsonl:`` files: a row an image: its path, perhaps label and split, and whatever else."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from datahub.core.digests import sha256_hex
from datahub.core.errors import BadArgument, LayoutError, NotReadable
from datahub.core.events import Listener
from datahub.pack import inventory, pictures
from datahub.pack.inventory import FileFacts, Inventory
from datahub.pack.listed import Listed
from datahub.pack.own import key_of, tables, typed_columns
from datahub.pack.own.values import text
from datahub.store.arrow import array
from datahub.store.record import FieldSpec

if TYPE_CHECKING:
    from datahub.pack.sources import Reading

NAMES = {
    "image": (
        "image",
        "path",
        "image_path",
        "file_name",
        "filename",
        "file",
        "filepath",
        "file_path",
        "img",
        "img_path",
    ),
    "label": ("label", "class", "category", "target", "class_name", "label_name", "class_id", "y"),
    "split": ("split", "subset", "set", "partition"),
}
"""Column names that are taken for what they say, the first that is there."""
SHOWN = 3
CELL = 16 << 20


def open_annotations(scheme: str, location: str, reading: Reading, scratch: Path, listener: Listener) -> Listed:
    path = inventory.check_root(Path(location).expanduser())
    rows, first = _read(scheme, path)
    if not rows:
        raise LayoutError(str(path), "", "has no rows")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    used = _columns(columns, reading.columns, path)
    base = inventory.check_root(reading.images.expanduser(), "images") if reading.images else path.parent
    places = [f"row {first + at}" for at in range(len(rows))]
    names = _names(path, rows, used["image"], places)
    specs = typed_columns.specs(reading.types, columns, used, path)
    beside = {
        name: _named(path, rows, name, places)
        for name, spec in specs.items()
        if spec.type in ("mask", "bytes", "video")
    }
    every = [*names, *(each for some in beside.values() for each in some)]
    told = places * (1 + len(beside))
    only = _files(path, base, every, told, anywhere=reading.images is not None)
    identity = inventory.identity([base], only)
    there = inventory.take([base], scratch / f"files-{identity[:32]}", only=only, listener=listener)
    found = _find(path, base, there, every, told)
    further = tables.field_names([name for name in columns if name not in used.values()])
    label, split = used.get("label"), used.get("split")
    made = tables.Rows(
        path=path,
        table=pictures.table(there, found[: len(names)], None),
        names=[name.encode("utf-8", "surrogateescape") for name in names],
        labels=[row.get(label) for row in rows] if label else None,
        splits=[str(row.get(split) or "train").strip().lower() for row in rows] if split else None,
        further={field: [row.get(name) for row in rows] for name, field in further.items() if name not in specs},
        places=places,
    )
    at = {name: found[len(names) * n :][: len(names)] for n, name in enumerate(beside, 1)}
    members = {further[name]: there.members.take(array(each, pa.int64())) for name, each in at.items()}
    facts = {
        "kind": scheme,
        "annotations": sha256_hex(path.read_bytes()),
        "images": identity,
        "split": str(reading.split),
        "columns": used,
        **({"types": dict(sorted(reading.types.items()))} if specs else {}),
    }
    if specs:
        made, there = _typed(path, rows, specs, further, made, members, there, scratch / f"masks-{key_of(facts)}")
    notes = [f"{len(rows):,} rows; " + ", ".join(f"{what}: column {name}" for what, name in used.items())]
    return tables.write(scratch / f"{key_of(facts)}-samples", there, made, reading.split, facts, notes)


def _typed(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    specs: Mapping[str, FieldSpec],
    fields: Mapping[str, str],
    made: tables.Rows,
    members: dict[str, pa.Table],
    there: Inventory,
    folder: Path,
) -> tuple[tables.Rows, Inventory]:
    """The rows with the columns whose types were said, and the inventory with what of them is no file."""

    def wrong(at: int, reason: str) -> LayoutError:
        return LayoutError(str(path), made.places[at], reason)

    columns, files = typed_columns.made(specs, {name: [row.get(name) for row in rows] for name in specs}, wrong)
    for name, blobs in files.items():
        held, members[fields[name]] = typed_columns.spooled(folder, f"{fields[name]}.bin", blobs, len(there.containers))
        there = replace(there, containers=(*there.containers, held))
    kinds = {fields[name]: typed_columns.kind(spec) for name, spec in specs.items()}
    further = {fields[name]: column for name, column in columns.items()}
    return replace(made, further={**made.further, **further}, kinds=kinds, members=members), there


def _read(scheme: str, path: Path) -> tuple[list[dict[str, Any]], int]:
    """(rows, the number of the first as a person would count it)."""
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LayoutError(str(path), f"byte {error.start}", "is not UTF-8", "save it as UTF-8") from error
    except OSError as error:
        raise NotReadable(str(path), error.strerror or str(error)) from error
    if scheme == "csv":
        return _csv(path, content), 2
    if scheme == "jsonl":
        # Not splitlines: JSON texts may hold separators of lines that it knows and JSON does not.
        return [_row(path, line, number) for number, line in enumerate(content.split("\n"), 1) if line.strip()], 1
    return _json(path, content), 1


def _csv(path: Path, content: str) -> list[dict[str, Any]]:
    csv.field_size_limit(CELL)
    delimiter = max(",\t;", key=content.partition("\n")[0].count)
    lines = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    rows = []
    try:
        names = [name.strip() for name in next(lines, [])]
        if twice := [name for name in names if names.count(name) > 1]:
            raise LayoutError(str(path), "line 1", f"names the column {twice[0]!r} twice")
        for cells in lines:
            if not cells:  # an empty line
                continue
            if len(cells) != len(names):
                reason = f"has {len(cells)} fields, the header {len(names)}"
                raise LayoutError(str(path), f"line {lines.line_num}", reason)
            rows.append(dict(zip(names, cells, strict=True)))
    except csv.Error as error:
        raise LayoutError(str(path), f"line {lines.line_num}", str(error)) from error
    return rows


def _row(path: Path, line: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LayoutError(str(path), f"line {number}", f"is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise LayoutError(str(path), f"line {number}", "is not a JSON object")
    return row


def _json(path: Path, content: str) -> list[dict[str, Any]]:
    try:
        rows = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise LayoutError(str(path), "", f"is not JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        hint = 'write [{"image": "a.jpg", "label": "cat"}, ...]; COCO\'s form is read as coco:FILE.json'
        raise LayoutError(str(path), "", "is not a JSON list of objects, one an image", hint)
    return rows


def _columns(columns: Sequence[str], given: Mapping[str, str], path: Path) -> dict[str, str]:
    """``image``, ``label`` and ``split`` -> their columns."""
    used: dict[str, str] = {}
    by_name = {name.lower(): name for name in reversed(columns)}
    for what, names in NAMES.items():
        if what in given:
            if given[what] not in columns:
                known = ", ".join(columns)
                raise BadArgument("columns", given[what], f"{path.name} has no such column", f"it has {known}")
            used[what] = given[what]
        elif name := next((by_name[each] for each in names if each in by_name), None):
            used[what] = name
    if "image" not in used:
        reason = f"no column of {path.name} is known to name images ({', '.join(columns)})"
        raise BadArgument("columns", "", reason, "say which: --columns image=NAME")
    return used


def _names(path: Path, rows: Sequence[Mapping[str, Any]], column: str, places: Sequence[str]) -> list[str]:
    """The images' names as the rows give them; each once."""
    seen: dict[str, str] = {}
    for row, place in zip(rows, places, strict=True):
        name = row.get(column)
        if not isinstance(name, str) or not name:
            raise LayoutError(str(path), place, f"names no image in column {column}")
        name = text(name)
        if name in seen:
            raise LayoutError(str(path), place, f"{name} is in {seen[name]} already: one row an image is read")
        seen[name] = place
    return list(seen)


def _named(path: Path, rows: Sequence[Mapping[str, Any]], column: str, places: Sequence[str]) -> list[str]:
    """The files that a column names; several rows may name one."""
    found = []
    for row, place in zip(rows, places, strict=True):
        name = row.get(column)
        if not isinstance(name, str) or not name:
            raise LayoutError(str(path), place, f"names no file in column {column}")
        found.append(text(name))
    return found


def _files(
    path: Path, base: Path, names: Sequence[str], places: Sequence[str], *, anywhere: bool
) -> list[FileFacts] | None:
    """The images as files below ``base``; None where ``base`` has to be looked through, and may be: ``anywhere``.

    What else lies beside the annotations is nobody's business: it may be large, damaged, or change.
    """
    if not base.is_dir():
        return None
    found = inventory.named(base, [_relative(name, base) for name in names])
    files = [each for each in found if each is not None]
    if len(files) == len(names):
        return files
    if not anywhere:
        _missing(path, base, [at for at, each in enumerate(found) if each is None], names, places)
    return None


def _find(path: Path, base: Path, there: Inventory, names: Sequence[str], places: Sequence[str]) -> list[int]:
    """The inventory's rows of these images. Raises `LayoutError` naming the first that are not there."""
    row_of = {name: row for row, name in enumerate(there.members["name"].to_pylist())}
    found = [row_of.get(_relative(name, base), -1) for name in names]
    _missing(path, base, [at for at, row in enumerate(found) if row < 0], names, places)
    return found


def _missing(path: Path, base: Path, lacking: Sequence[int], names: Sequence[str], places: Sequence[str]) -> None:
    if lacking:
        some = ", ".join(f"{places[at]} ({names[at]})" for at in lacking[:SHOWN])
        more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
        reason = f"{len(lacking)} of {len(names)} images are not in {base}: {some}{more}"
        raise LayoutError(str(path), "", reason, "mend the rows, or say where the images are: --images DIR|ARCHIVE")


def _relative(name: str, base: Path) -> bytes:
    pure = PurePosixPath(name.replace("\\", "/"))
    for root in (base, base.resolve()):
        if pure.is_absolute() and pure.is_relative_to(root):
            pure = pure.relative_to(root)
    return str(pure).encode("utf-8", "surrogateescape")
