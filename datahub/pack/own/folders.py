"""``imagefolder:PLACE``: a folder or archive of ``<class>/<image>``, ``<split>/<class>/<image>``, or just images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from datahub.core.errors import LayoutError
from datahub.core.events import Listener
from datahub.pack import inventory, pictures
from datahub.pack.listed import Listed
from datahub.pack.own import key_of, tables
from datahub.pack.pictures import Found, text

if TYPE_CHECKING:
    from datahub.pack.sources import Reading


def open_folder(location: str, reading: Reading, scratch: Path, listener: Listener) -> Listed:
    root = inventory.check_root(Path(location).expanduser())
    identity = inventory.identity([root])
    there = inventory.take([root], scratch / f"files-{identity[:32]}", listener=listener)
    found = pictures.below(there)
    if not len(found):
        raise LayoutError(str(root), "", "holds no images")
    parts = found.parts if root.is_dir() else _unwrapped(found.parts)
    splits = [each[0].decode().lower() for each in parts] if _by_split(parts) else None
    inner = [each[1:] for each in parts] if splits else parts
    labels = _labels(root, inner, found)
    notes = [_shape(splits, labels), *pictures.passed_over(found)]
    classes = None
    if labels is not None:
        classes = sorted({*labels, *_empty(root, splits, set(labels), reading.empty_classes)})
    rows = tables.Rows(
        path=root,
        table=pictures.table(there, found.rows, None),
        names=[each[-1] for each in parts],
        labels=list(labels) if labels is not None else None,
        classes=classes,
        splits=splits,
    )
    facts = {"kind": "imagefolder", "identity": identity, "split": str(reading.split), "classes": classes}
    return tables.write(scratch / f"{key_of(facts)}-samples", there, rows, reading.split, facts, notes)


def _shape(splits: list[str] | None, labels: list[str] | None) -> str:
    shape = f"{'<split>/' if splits else ''}{'<class>/' if labels else ''}<image>"
    if splits:
        return f"folders are read as {shape}; splits: {', '.join(dict.fromkeys(splits))}"
    return f"folders are read as {shape}" if labels else "images lie side by side: no labels"


def _unwrapped(parts: list[list[bytes]]) -> list[list[bytes]]:
    """Without the one folder that archives of a folder hold everything in."""
    while all(len(each) > 2 for each in parts) and len({each[0] for each in parts}) == 1 and not _by_split(parts):
        parts = [each[1:] for each in parts]
    return parts


def _by_split(parts: list[list[bytes]]) -> bool:
    return all(len(each) > 1 and text(each[0]).lower() in tables.FOLDERS for each in parts)


def _labels(root: Path, inner: list[list[bytes]], found: Found) -> list[str] | None:
    """The class of each image, None where no image is in a folder."""
    flat = [len(each) == 1 for each in inner]
    if all(flat):
        return None
    if any(flat):
        where = text(b"/".join(found.parts[flat.index(True)]))
        raise LayoutError(str(root), where, "is in no class folder, as others are")
    return [text(each[0]) for each in inner]


def _empty(root: Path, splits: list[str] | None, seen: set[str], allowed: bool) -> set[str]:
    """Class folders that hold no image. Raises `LayoutError` unless they are ``allowed``."""
    if not root.is_dir():
        return set()
    tops = [each for each in root.iterdir() if each.is_dir() and each.name.lower() in splits] if splits else [root]
    folders = [each for top in tops for each in top.iterdir() if each.is_dir() and not each.name.startswith(".")]
    empty = {text(os.fsencode(each.name)) for each in folders} - seen
    if empty and not allowed:
        reason = f"{len(empty)} class folders hold no image; remove them, or say --empty-classes"
        raise LayoutError(str(root), min(empty), reason)
    return empty
