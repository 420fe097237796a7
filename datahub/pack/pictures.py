"""Which files of an inventory are samples: what the image-folder layout and folders of people's own share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datahub.core.errors import LayoutError
from datahub.pack.inventory import Inventory
from datahub.store.arrow import array
from datahub.store.record import FieldSpec

IMAGE = re.compile(rb"\.(?:jpe?g|png|webp|avif|gif|bmp|tiff?|p[pg]m|jpe|jfif)$", re.IGNORECASE)
FORMAT = {b"jpg": "jpeg", b"jpe": "jpeg", b"jfif": "jpeg", b"tif": "tiff", b"pgm": "ppm"}
HIDDEN = re.compile(rb"(?:^|/)(?:\.|__MACOSX/|Thumbs\.db$)")
SHOWN = 3


@dataclass(slots=True)
class Found:
    """Images below one folder, in the order of their names."""

    rows: list[int] = field(default_factory=list)
    """Of the inventory."""
    parts: list[list[bytes]] = field(default_factory=list)
    """Each name below the folder, cut at ``/``."""
    passed: list[bytes] = field(default_factory=list)
    """Names that are no images."""

    def __len__(self) -> int:
        return len(self.rows)


def below(inventory: Inventory, folder: str = "") -> Found:
    """The images below ``folder`` of everything in the inventory."""
    found = Found()
    prefix = folder.strip("/").encode("utf-8", "surrogateescape")
    prefix += b"/" if prefix else b""
    names = inventory.members["name"].to_pylist()
    for row in sorted(range(len(names)), key=names.__getitem__):
        name = names[row]
        if not name.startswith(prefix) or HIDDEN.search(name):
            continue
        rest = name[len(prefix) :]
        if IMAGE.search(rest):
            found.rows.append(row)
            found.parts.append(rest.split(b"/"))
        else:
            found.passed.append(rest)
    return found


def table(inventory: Inventory, rows: Sequence[int] | NDArray[np.int64], labels: Sequence[int] | None) -> pa.Table:
    """The inventory's ``rows`` with ``source`` and, where there are labels, ``label``."""
    taken = inventory.members.take(array(rows, pa.int64()))
    sources = [text(name) for name in taken["name"].to_pylist()]
    taken = taken.append_column("source", array(sources, pa.string()))
    if labels is not None:
        taken = taken.append_column("label", array(labels, pa.int64()))
    return taken


def image_field(names: Sequence[bytes]) -> FieldSpec:
    """The image field: the extension that most of the files have."""
    counted: dict[str, int] = {}
    for name in names:
        extension = name.rpartition(b".")[2].lower()
        kind = FORMAT.get(extension, extension.decode("ascii", "replace"))
        counted[kind] = counted.get(kind, 0) + 1
    best = min(counted, key=lambda kind: (-counted[kind], kind))
    return FieldSpec(type="image", extension=best)


LABEL = FieldSpec(type="label", extension="cls")


def text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def passed_over(found: Found) -> list[str]:
    """A line that tells of files that are no images."""
    if not found.passed:
        return []
    some = ", ".join(text(each) for each in found.passed[:SHOWN])
    more = ", ..." if len(found.passed) > SHOWN else ""
    return [f"{len(found.passed)} files are no images and are passed over: {some}{more}"]


def unique(path: Path, tables: dict[str, pa.Table]) -> None:
    """Raises `LayoutError` where a name comes twice in a split: tar allows it, and one would be lost to a person."""
    for split, each in tables.items():
        counted = each["source"].value_counts()
        twice = counted.filter(pa.compute.greater(pa.compute.struct_field(counted, 1), 1))
        if len(twice):
            name = twice[0]["values"].as_py()
            raise LayoutError(str(path), name, f"is there {twice[0]['counts'].as_py()} times in split {split}")
