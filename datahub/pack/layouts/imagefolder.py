"""The image-folder layout of published archives: ``<folder>/<class>/.../<image>``, or a flat folder with a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pyarrow as pa

from datahub.core.digests import sha256_hex
from datahub.core.errors import BadArgument, LayoutError
from datahub.core.events import Listener
from datahub.pack import inventory, listed, pictures
from datahub.pack.inventory import Inventory
from datahub.pack.layouts import options as opt
from datahub.pack.listed import Files, Listed
from datahub.pack.pictures import Found
from datahub.store.arrow import array

if TYPE_CHECKING:
    from datahub.acquire import Verified

LIST_BYTES = 64 << 20


class SplitOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    archive: str
    """Role of the archive."""
    folder: str = ""
    """Where the split's images are in it; ``*``: in the one folder that it holds, whatever that is called."""
    annotations: str | None = None
    """A member of lines ``image class ...`` that names the classes; without it the first folder does."""
    labels: Literal["names", "numbers"] = "names"
    """Whether classes are called by name, or by their labels' numbers (``0`` to ``999``)."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    splits: dict[str, SplitOptions]


def open_source(
    options: Mapping[str, Any],
    files: Mapping[str, Verified],
    *,
    splits: Mapping[str, int],
    classes: Sequence[str],
    scratch: Path,
    listener: Listener,
) -> Listed:
    """Lists the archives. Raises `BadArgument` for options that do not fit, `LayoutError` for archives that do not."""
    read = opt.read(options, Options)
    if set(read.splits) != set(splits):
        listed_ = ", ".join(splits)
        raise BadArgument(f"{opt.PLACE}.splits", ", ".join(read.splits), f"the manifest's splits are {listed_}")
    facts = {
        "kind": "imagefolder",
        "options": msgspec.to_builtins(read),
        "files": {role: each.sha256 for role, each in sorted(files.items())},
    }
    key = sha256_hex(msgspec.json.encode(facts, order="sorted"))[:32]
    found: dict[str, _Split] = {}
    for name, split in read.splits.items():
        if split.archive not in files:
            place = f"{opt.PLACE}.splits.{name}.archive"
            raise BadArgument(place, split.archive, "no file has this role", f"known: {', '.join(sorted(files))}")
        archive = files[split.archive]
        there = inventory.take([archive.path], scratch / f"files-{archive.sha256[:32]}", listener=listener)
        found[name] = _Split(archive.path, split, there)
    known = list(classes) or sorted({each for split in found.values() for each in split.names})
    return _write(found, known, scratch / f"{key}-samples", facts)


class _Split:
    """The images of one split and what they are called."""

    def __init__(self, path: Path, options: SplitOptions, there: Inventory) -> None:
        self.path, self.options, self.inventory = path, options, there
        self.found: Found = pictures.below(there, self._only() if options.folder == "*" else options.folder)
        if not len(self.found):
            raise LayoutError(str(path), options.folder, "holds no images")
        self.names = self._listed() if options.annotations else [self._folder(parts) for parts in self.found.parts]

    def _only(self) -> str:
        """The one folder at the top of the archive."""
        tops = {name.partition(b"/")[0] for name in self.inventory.members["name"].to_pylist() if b"/" in name}
        if len(tops) != 1:
            raise LayoutError(str(self.path), "", f"holds {len(tops)} folders where one is expected")
        return pictures.text(tops.pop())

    def _folder(self, parts: list[bytes]) -> str:
        if len(parts) < 2:
            raise LayoutError(str(self.path), pictures.text(parts[0]), "is in no class folder")
        return pictures.text(parts[0])

    def _listed(self) -> list[str]:
        """The class of every image, from the annotations; each image is in them, and they name no other."""
        member = str(self.options.annotations)
        lines = self._read(member).decode("utf-8", "replace").splitlines()
        class_of: dict[str, str] = {}
        for number, line in enumerate(lines, 1):
            words = line.split()
            if len(words) < 2:
                if words:
                    raise LayoutError(str(self.path), f"{member}, line {number}", "does not name an image and a class")
                continue
            if words[0] in class_of:
                raise LayoutError(str(self.path), f"{member}, line {number}", f"{words[0]} is there twice")
            class_of[words[0]] = words[1]
        names = [pictures.text(b"/".join(parts)) for parts in self.found.parts]
        for name in names:
            if name not in class_of:
                raise LayoutError(str(self.path), name, f"is not in {member}")
        if len(class_of) > len(names):
            missing = next(iter(class_of.keys() - set(names)))
            raise LayoutError(str(self.path), member, f"names {missing}, which is not there")
        return [class_of[name] for name in names]

    def _read(self, member: str) -> bytes:
        rows = self.inventory.members
        try:
            row = rows["name"].to_pylist().index(member.encode())
        except ValueError:
            raise LayoutError(str(self.path), member, "is not in the archive") from None
        place = [rows[name][row].as_py() for name in inventory.SCHEMA.names]
        if place[3] > LIST_BYTES:
            raise LayoutError(str(self.path), member, f"has {place[3]} bytes, too many for a list of images")
        return Files(list(self.inventory.containers), self.inventory.folder).read(*place)

    def labels(self, classes: Sequence[str]) -> list[int]:
        if self.options.labels == "numbers":
            label_of = {str(label): label for label in range(len(classes) or 1_000_000)}
        else:
            label_of = {name: label for label, name in enumerate(classes)}
        for name, parts in zip(self.names, self.found.parts, strict=True):
            if name not in label_of:
                where = pictures.text(b"/".join(parts))
                raise LayoutError(str(self.path), where, f"{name!r} is not one of the {len(classes)} classes")
        return [label_of[name] for name in self.names]


def _write(found: dict[str, _Split], classes: list[str], folder: Path, facts: Mapping[str, Any]) -> Listed:
    tables: dict[str, pa.Table] = {}
    containers: list[inventory.Container] = []
    first_of: dict[Path, int] = {}
    for name, split in found.items():
        there = split.inventory
        if there.folder not in first_of:
            first_of[there.folder] = len(containers)
            containers += [msgspec.structs.replace(c, path=str(there.folder / c.path)) for c in there.containers]
        table = pictures.table(there, split.found.rows, split.labels(classes))
        moved = [each + first_of[there.folder] for each in table["container"].to_pylist()]
        tables[name] = table.set_column(0, "container", array(moved, pa.uint32()))
        pictures.unique(split.path, {name: tables[name]})
    names = [parts[-1] for split in found.values() for parts in split.found.parts]
    return listed.write(
        folder,
        Inventory(folder, tuple(containers), pa.table({})),
        tables,
        classes=classes,
        fields={"image": pictures.image_field(names), "label": pictures.LABEL},
        facts=facts,
        notes=[line for split in found.values() for line in pictures.passed_over(split.found)],
    )
