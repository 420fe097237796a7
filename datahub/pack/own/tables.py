"""From rows of samples to the tables of a `Listed`: labels, types of further fields, splits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from datahub.core.errors import BadArgument, LayoutError
from datahub.core.refs import SPLIT
from datahub.pack import listed, pictures
from datahub.pack.inventory import Inventory
from datahub.pack.layouts import options as opt
from datahub.pack.listed import TYPES, Listed
from datahub.pack.own import objects
from datahub.pack.own.values import integer, missing, text, typed
from datahub.pack.splitting import Shares, assign
from datahub.store.arrow import array

FOLDERS = {"train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval", "extra", "unlabeled"}
"""Names of folders, files and values that are taken for splits where all of them are."""
LONGEST = 40
"""Letters of a column's name that the field's keeps: room for what tells it from others."""


@dataclass(kw_only=True)
class Rows:
    """n samples, found."""

    path: Path
    """What errors name."""
    table: pa.Table
    """The inventory's columns and ``source``."""
    names: list[bytes]
    """File names, for the images' format."""
    labels: list[Any] | None = None
    """Class names or numbers."""
    classes: list[str] | None = None
    """The classes in order, where the source says so; else they are the labels' names, sorted."""
    splits: list[str] | None = None
    further: dict[str, list[Any]] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    """The further fields' types, where they are known; the others' are found from the values."""
    members: Mapping[str, pa.Table] = field(default_factory=dict)
    """Of the fields with a member of their own: the inventory's columns, null where a sample has none."""
    places: Sequence[str] = ()
    """Where each sample is told of ("row 17"), for errors; empty: by its source."""

    def place(self, at: int) -> str:
        return self.places[at] if self.places else str(self.table["source"][at].as_py())


def write(
    folder: Path, there: Inventory, rows: Rows, shares: Shares | None, facts: Mapping[str, Any], notes: list[str]
) -> Listed:
    """The `Listed` of these rows. ``shares``: the splits that were asked for; None: those of the rows, else train.

    Raises `LayoutError` for labels that are none, and where a split has no sample or a sample twice.
    """
    table = rows.table
    if not len(table):
        raise LayoutError(str(rows.path), "", "has no rows")
    fields = {"image": pictures.image_field(rows.names)}
    classes: list[str] | None = None
    numbers, further = rows.labels, dict(rows.further)
    if rows.labels is not None or objects.label_fields(rows):
        numbers, further, classes = _all_numbered(rows)
        notes.append(f"{len(classes)} classes: {_some(classes)}")
    if numbers is not None:
        table = table.append_column("label", array(numbers, pa.int64()))
        fields["label"] = pictures.LABEL
    for name, values in further.items():
        kind, made = (rows.kinds[name], values) if name in rows.kinds else typed(values)
        opt.field_name(name, "columns")
        fields[name] = objects.field_of(name, kind, made)
        table = table.append_column(name, array(made, TYPES[fields[name].type]))
    for name, places in rows.members.items():
        fields[name] = objects.field_of(name, rows.kinds[name], [])
        for column in places.column_names:
            table = table.append_column(f"{name}/{column}", places[column])
    told = [name for name in fields if name not in ("image", "label")]
    if told:
        notes.append("fields: " + ", ".join(f"{name} ({fields[name].type})" for name in told))
    objects.check_columns(fields)
    tables = _split(table, rows, shares, notes)
    pictures.unique(rows.path, tables)
    return listed.write(folder, there, tables, classes=classes, fields=fields, facts=facts, notes=notes)


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _all_numbered(rows: Rows) -> tuple[list[int] | None, dict[str, list[Any]], list[str]]:
    """The samples' labels and the further fields, classes as numbers, and the classes."""
    if not objects.label_fields(rows):
        numbers, classes = numbered(rows)
        return numbers, dict(rows.further), classes
    labels, places = objects.pooled(rows)
    if not labels:
        return rows.labels, dict(rows.further), list(rows.classes or [])
    numbers, classes = numbered(replace(rows, labels=labels, places=places))
    return *objects.numbered(rows, numbers), classes


def numbered(rows: Rows) -> tuple[list[int], list[str]]:
    """Numbers of the labels, and the classes."""
    labels = rows.labels or []
    for at, label in enumerate(labels):
        if missing(label):
            raise LayoutError(str(rows.path), rows.place(at), "has no label")
        if isinstance(label, dict | list | tuple):
            raise LayoutError(str(rows.path), rows.place(at), "has no one label: a class name or number is read")
    whole = [_whole(label) for label in labels]
    if rows.classes is not None:
        return _known(rows, labels, whole, rows.classes)
    numbers = [number for number in whole if number is not None and number >= 0]
    if len(numbers) == len(labels) and (most := max(numbers)) < 10 * len(numbers) + 1000:
        return numbers, [str(number) for number in range(most + 1)]
    names = [text(label) for label in labels]
    classes = sorted(set(names))
    place = {name: at for at, name in enumerate(classes)}
    return [place[name] for name in names], classes


def _whole(label: Any) -> int | None:
    """A label that is a number; numbers that were floats for a while (``3.0``) are those they were."""
    return integer(int(label) if isinstance(label, float) and label.is_integer() else label)


def _known(
    rows: Rows, labels: Sequence[Any], whole: Sequence[int | None], classes: list[str]
) -> tuple[list[int], list[str]]:
    place = {name: at for at, name in enumerate(classes)}
    numbers = []
    for at, label in enumerate(labels):
        number = place.get(label) if isinstance(label, str) else whole[at]
        if number is None or not 0 <= number < len(classes):
            raise LayoutError(str(rows.path), rows.place(at), f"{label!r} is not one of the {len(classes)} classes")
        numbers.append(number)
    return numbers, classes


def _split(table: pa.Table, rows: Rows, shares: Shares | None, notes: list[str]) -> dict[str, pa.Table]:
    if shares is not None:
        if rows.splits is not None:
            listed_ = ", ".join(sorted(set(rows.splits)))
            raise BadArgument("split", str(shares), f"the source has splits already: {listed_}", "leave --split out")
        chosen = assign(table["source"].to_pylist(), shares)
        if left := int((chosen < 0).sum()):
            notes.append(f"{left:,} of {len(table):,} images are in no split")
        found = {name: table.filter(pa.array(chosen == at)) for at, name in enumerate(shares.of)}
    elif rows.splits is not None:
        names = list(dict.fromkeys(rows.splits))
        for name in names:
            if not SPLIT.fullmatch(name):
                raise LayoutError(str(rows.path), "", f"{name!r} is not a split's name: lower-case letters and digits")
        values = np.array(rows.splits)
        found = {name: table.filter(pa.array(values == name)) for name in names}
    else:
        found = {"train": table}
    for name, each in found.items():
        if not len(each):
            raise LayoutError(str(rows.path), f"split {name}", f"gets none of the {len(table)} images")
    return found


def field_names(columns: Sequence[str]) -> dict[str, str]:
    """Column -> the field it becomes: lower case, ``_`` for what a field's name may not hold, never a reserved one."""
    found: dict[str, str] = {}
    for column in columns:
        name = re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_") or "field"
        name = (name if name[0].isalpha() else f"f_{name}")[:LONGEST]
        try:
            opt.field_name(name, "columns")
        except BadArgument:
            name = f"{name}_field"
        if name == "label":
            name = "label_field"
        while name in found.values():
            name += "_2"
        found[column] = name
    return found
