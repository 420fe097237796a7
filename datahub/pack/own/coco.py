"""``coco:DIR`` or ``coco:FILE.json``: detection, instance masks and keypoints in COCO's form, as it is published.

A folder holds ``annotations/instances_<split>.json`` (or ``person_keypoints_``) and its images in a folder or archive
called after the split (``val2017``, ``val2017.zip``), below ``images`` or not; or ``<split>/_annotations.coco.json``
with the images beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from datahub.core.digests import sha256_hex
from datahub.core.errors import BadArgument, LayoutError
from datahub.core.events import Listener
from datahub.pack import inventory, pictures
from datahub.pack.inventory import Container, Inventory
from datahub.pack.listed import Listed
from datahub.pack.own import key_of, tables
from datahub.pack.own.coco_document import KINDS, Objects, read
from datahub.pack.own.typed_columns import spooled
from datahub.store.arrow import array

if TYPE_CHECKING:
    from datahub.pack.sources import Reading

NAMED = re.compile(r"(?:instances|person_keypoints|lvis_v\d+)_(.+)\.json")
BESIDE = "_annotations.coco.json"
ARCHIVES = ("", ".zip", ".tar", ".tar.gz")
SPLIT = re.compile(r"[a-z]+")
MASKS = "masks.bin"
SHOWN = 3


@dataclass(frozen=True)
class Part:
    """An annotation file, where its images are, and the split that it is; "" where nothing says so."""

    file: Path
    images: Path
    split: str


def open_coco(location: str, reading: Reading, scratch: Path, listener: Listener) -> Listed:
    """Raises `BadArgument` where it is not plain which files are meant, `LayoutError` for what they hold."""
    root = inventory.check_root(Path(location).expanduser())
    given = inventory.check_root(reading.images.expanduser(), "images") if reading.images else None
    parts = list(_parts(root, given))
    read_parts = [read(part.file) for part in parts]
    classes = _same_classes(read_parts)
    identity = inventory.identity([part.images for part in parts])
    facts = {
        "kind": "coco",
        "annotations": [sha256_hex(part.file.read_bytes()) for part in parts],
        "images": identity,
        "split": str(reading.split),
        "masks": reading.masks,
    }
    folder = scratch / f"{key_of(facts)}-samples"
    there, table = _images(parts, read_parts, scratch, listener)
    keypoints = any(each.has_keypoints for each in read_parts)
    columns = [each.fields(keypoints=keypoints) for each in read_parts]
    rows = tables.Rows(
        path=root,
        table=table,
        names=[each.name.encode("utf-8", "surrogateescape") for part in read_parts for each in part.pictures],
        classes=classes,
        splits=_splits(parts, read_parts),
        further={name: [value for part in columns for value in part[name]] for name in columns[0]},
        kinds={**KINDS, "masks": "masks"},
    )
    if reading.masks:
        there, rows.members = _masks(read_parts, there, scratch / f"masks-{key_of(facts)}")
    return tables.write(folder, there, rows, reading.split, facts, _notes(parts, read_parts, reading))


def _notes(parts: Sequence[Part], found: Sequence[Objects], reading: Reading) -> list[str]:
    notes = [
        f"{part.file.name}: {len(each.pictures):,} images in {part.images}, {sum(map(len, each.of)):,} objects"
        for part, each in zip(parts, found, strict=True)
    ]
    if not reading.masks and any(each.has_segmentation for each in found):
        notes.append("segmentations are passed over; --masks packs them as masks")
    return notes


def _parts(root: Path, images: Path | None) -> Iterator[Part]:
    if not root.is_dir():
        found = NAMED.fullmatch(root.name)
        folder = root.parent.parent if root.parent.name == "annotations" else root.parent
        yield Part(root, images or _place(folder, found[1] if found else ""), _split(found[1] if found else ""))
        return
    beside = sorted(root.glob(f"*/{BESIDE}")) + sorted(root.glob(BESIDE))
    if beside:
        yield from (Part(each, images or each.parent, _split(each.parent.name)) for each in beside)
        return
    files = [*sorted((root / "annotations").glob("*.json")), *sorted(root.glob("*.json"))]
    named = [(each, found[1]) for each in files if (found := NAMED.fullmatch(each.name))]
    if len({split for _, split in named}) < len(named):
        options = ", ".join(each.name for each, _ in named)
        raise BadArgument("source", f"coco:{root}", f"holds several files of one split: {options}", "name one of them")
    if not named and len(files) != 1:
        options = ", ".join(each.name for each in files[:8]) or "none"
        reason = f"no file is called instances_<split>.json; its .json files: {options}"
        raise BadArgument("source", f"coco:{root}", reason, "name one: coco:DIR/FILE.json")
    if not named:
        yield Part(files[0], images or root, "")
    yield from (Part(each, images or _place(root, name), _split(name)) for each, name in named)


def _place(folder: Path, name: str) -> Path:
    """The folder or archive of a split's images, or the whole folder where none is called after it."""
    for base in (folder, folder / "images"):
        for ending in ARCHIVES:
            if name and (place := base / f"{name}{ending}").exists():
                return place
    return folder / "images" if (folder / "images").is_dir() else folder


def _split(name: str) -> str:
    """``val2017`` is val; "" for what is no split's name."""
    found = SPLIT.match(name.lower())
    return found[0] if found and found[0] in tables.FOLDERS else ""


def _splits(parts: Sequence[Part], found: Sequence[Objects]) -> list[str] | None:
    """The split of every image. Raises `BadArgument` where several files do not say theirs."""
    if len(parts) == 1 and not parts[0].split:
        return None
    names = [part.split for part in parts]
    if "" in names or len(set(names)) < len(names):
        at = next(at for at, name in enumerate(names) if not name or names.count(name) > 1)
        raise BadArgument("source", str(parts[at].file), "does not say which split it is", "pack the files one by one")
    return [part.split for part, each in zip(parts, found, strict=True) for _ in each.pictures]


def _same_classes(found: Sequence[Objects]) -> list[str]:
    first = found[0]
    for each in found[1:]:
        if (each.classes, each.label) != (first.classes, first.label):
            raise LayoutError(str(each.path), "categories", f"are not those of {first.path.name}")
    return first.classes


def _images(
    parts: Sequence[Part], found: Sequence[Objects], scratch: Path, listener: Listener
) -> tuple[Inventory, pa.Table]:
    """One inventory of all parts' images, and the row of each image."""
    containers: list[Container] = []
    taken = []
    for part, objects in zip(parts, found, strict=True):
        there, rows = _found(part, objects, scratch, listener)
        table = pictures.table(there, rows, None)
        shifted = array([each + len(containers) for each in table["container"].to_pylist()], pa.uint32())
        table = table.set_column(table.column_names.index("container"), "container", shifted)
        names = array([each.name for each in objects.pictures], pa.string())
        taken.append(table.set_column(table.column_names.index("source"), "source", names))
        containers += [
            Container(str(there.path_of(at)), each.folder, each.shown) for at, each in enumerate(there.containers)
        ]
    return Inventory(scratch, tuple(containers), pa.table({})), pa.concat_tables(taken)


def _found(part: Part, objects: Objects, scratch: Path, listener: Listener) -> tuple[Inventory, list[int]]:
    """Where a part's images are. Raises `LayoutError` naming the first that are not there."""
    names = [each.name.encode("utf-8", "surrogateescape") for each in objects.pictures]
    only = None
    if part.images.is_dir():
        facts = inventory.named(part.images, names)
        only = [each for each in facts if each is not None] if None not in facts else None
    identity = inventory.identity([part.images], only)
    there = inventory.take([part.images], scratch / f"files-{identity[:32]}", only=only, listener=listener)
    row_of: dict[bytes, int] = {}
    for row, name in enumerate(there.members["name"].to_pylist()):
        row_of.setdefault(name.rpartition(b"/")[2], row)
    row_of |= {name: row for row, name in enumerate(there.members["name"].to_pylist())}
    rows = [row_of.get(name, row_of.get(name.rpartition(b"/")[2], -1)) for name in names]
    if -1 in rows:
        lacking = [objects.pictures[at].name for at, row in enumerate(rows) if row < 0]
        some = ", ".join(lacking[:SHOWN]) + (f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else "")
        reason = f"{len(lacking)} of {len(rows)} images are not in {part.images}: {some}"
        raise LayoutError(str(part.file), "images", reason, "say where they are: --images DIR|ARCHIVE")
    return there, rows


def _masks(found: Sequence[Objects], there: Inventory, folder: Path) -> tuple[Inventory, dict[str, pa.Table]]:
    """Every image's masks in one file, which joins the inventory."""
    files = (data for part in found for data in part.masks())
    held, table = spooled(folder, MASKS, files, len(there.containers))
    return replace(there, containers=(*there.containers, held)), {"masks": table}
