"""Columns that a person says the type of: ``--types boxes=boxes:xywh,kinds=labels,mask=mask``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa

from datahub.core import atomic
from datahub.core.errors import BadArgument, LayoutError, from_oserror
from datahub.pack import authored, inventory, objects
from datahub.pack.inventory import Container
from datahub.store import rle, typed
from datahub.store.arrow import array
from datahub.store.record import FieldSpec

Wrong = Callable[[int, str], LayoutError]
"""The error of a row and what is wrong with it."""


def specs(
    types: Mapping[str, str], columns: Sequence[str], used: Mapping[str, str], path: Path
) -> dict[str, FieldSpec]:
    """Column -> its field. Raises `BadArgument` for columns and types that are none."""
    found = {}
    for column, kind in types.items():
        if column not in columns:
            raise BadArgument("types", column, f"{path.name} has no such column", f"it has {', '.join(columns)}")
        if column in used.values():
            raise BadArgument("types", column, "is the column of images, labels or splits already", "leave it out")
        try:
            found[column] = typed.spec(column, kind)
        except ValueError as error:
            hint = f"known: {', '.join(typed.TYPES)}; boxes may say boxes:xywh"
            raise BadArgument("types", kind, str(error), hint) from None
    return found


def listed(column: str, spec: FieldSpec, values: Sequence[Any], wrong: Wrong) -> list[list[Any]]:
    """The rows of every sample's objects; nothing is no object. Raises what ``wrong`` makes."""
    found = []
    for at, value in enumerate(values):
        try:
            plain = _parsed(value)
            if spec.type == "labels":
                found.append([authored.label(each, True, None) for each in objects.each(column, plain)])
            else:
                found.append(objects.rows(column, spec, plain))
        except BadArgument as error:
            raise wrong(at, f"{column} {error.reason}") from error
        except ValueError as error:
            raise wrong(at, f"{column} is no JSON: {error}") from error
    return found


def masks(column: str, values: Sequence[Any], wrong: Wrong) -> list[bytes]:
    """Files of run lengths, whose image is of the size that they say."""
    found = []
    for at, value in enumerate(values):
        try:
            given = _parsed(value)
            if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
                raise ValueError('is no list of run lengths {"size": [height, width], "counts": ...}')
            size = given[0].get("size") if given else None
            if given and not (isinstance(size, list) and len(size) == 2 and all(isinstance(s, int) for s in size)):
                raise ValueError("does not say the size of its masks, [height, width]")
            made = [rle.text_of(each, (size[0], size[1]), f"mask {n}") for n, each in enumerate(given) if size]
            found.append(json.dumps(made, separators=(",", ":")).encode())
        except ValueError as error:
            raise wrong(at, f"{column} {error}") from error
    return found


def made(
    specs: Mapping[str, FieldSpec], values: Mapping[str, Sequence[Any]], wrong: Wrong
) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
    """Of the columns with a row an object: the rows, and the files of masks. Raises what ``wrong`` makes."""
    rows = {name: listed(name, spec, values[name], wrong) for name, spec in specs.items() if spec.type in typed.ROWS}
    files = {name: masks(name, values[name], wrong) for name, spec in specs.items() if spec.type == "masks"}
    check_counts(specs, {**rows, **files}, wrong)
    return rows, files


def kind(spec: FieldSpec) -> str:
    """The type as people say it."""
    return f"{spec.type}:{spec.format}" if spec.format else spec.type


def check_counts(specs: Mapping[str, FieldSpec], columns: Mapping[str, Sequence[Any]], wrong: Wrong) -> None:
    """``columns``: what `listed` and `masks` made."""
    counted = [name for name in columns if specs[name].type in typed.OBJECTS]
    if not counted:
        return
    for at in range(len(columns[counted[0]])):
        try:
            objects.check_counts(specs, {name: columns[name][at] for name in counted})
        except BadArgument as error:
            raise wrong(at, error.reason) from error


def spooled(folder: Path, name: str, files: Iterable[bytes], container: int) -> tuple[Container, pa.Table]:
    """The files in one of their own, which becomes that container, and where each is in it."""
    atomic.make_dir(folder)
    sizes: list[int] = []
    try:
        with atomic.writing(folder / name) as out:
            for data in files:
                out.write(data)
                sizes.append(len(data))
    except OSError as error:
        raise from_oserror(error, folder, writing=True) from error
    return Container(str(folder / name)), places(container, list(accumulate([0, *sizes]))[:-1], sizes)


def places(container: int, offsets: Sequence[int], sizes: Sequence[int]) -> pa.Table:
    """The inventory's columns of files that lie in a container as they are."""
    columns: dict[str, Any] = {
        "container": [container] * len(sizes),
        "offset": offsets,
        "stored": sizes,
        "size": sizes,
        "method": [inventory.PLAIN] * len(sizes),
        "crc": [0] * len(sizes),
        "name": [b"member"] * len(sizes),
    }
    return pa.Table.from_arrays([array(columns[f.name], f.type) for f in inventory.SCHEMA], schema=inventory.SCHEMA)


def _parsed(value: Any) -> Any:
    """Cells of a CSV are JSON. Raises ``ValueError``."""
    if value is None or value == "":
        return []
    return json.loads(value) if isinstance(value, str) else value
