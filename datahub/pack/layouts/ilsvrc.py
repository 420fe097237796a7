"""The ILSVRC2012 layout: a train tar of class tars, a flat val tar, and the devkit that says what val shows.

Labels are numbers of the wnids in sorted order, as torchvision and every published model have them. The devkit's own
`ILSVRC2012_ID` (1 to 1000, another order) is only used to read its ground truth.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datahub.core.digests import sha256_hex
from datahub.core.errors import BadArgument, LayoutError, MissingExtra
from datahub.core.events import Listener
from datahub.pack import archives, inventory, listed
from datahub.pack.layouts import options as opt
from datahub.pack.listed import Listed
from datahub.pack.members import Limits
from datahub.store.arrow import array, numbers
from datahub.store.record import FieldSpec

if TYPE_CHECKING:
    from datahub.acquire import Verified

WNID = re.compile(r"n[0-9]{8}")
VAL = re.compile(rb"(?:.*/)?ILSVRC2012_val_([0-9]{8})\.JPEG")
META, TRUTH = "data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"
DEVKIT = Limits(members=1000, member=64 << 20, total=256 << 20)
"""The published one holds a few megabytes."""
FIELDS = {"image": FieldSpec(type="image", extension="jpeg"), "label": FieldSpec(type="label", extension="cls")}
SPLITS = ("train", "val")


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Roles of the three archives."""

    train: str
    val: str
    devkit: str


@dataclass(frozen=True, slots=True)
class Devkit:
    path: Path
    wnids: tuple[str, ...]
    """Of the classes (synsets without children), sorted: a label is a place here."""
    words: tuple[str, ...]
    truth: tuple[int, ...]
    """The label of each validation image, by its number less one."""


def open_source(
    options: Mapping[str, Any],
    files: Mapping[str, Verified],
    *,
    splits: Mapping[str, int],
    classes: Sequence[str],
    scratch: Path,
    listener: Listener,
) -> Listed:
    """Lists the archives. Raises `BadArgument` for a role that no file has, else as `list_archives`."""
    read = opt.read(options, Options)
    for key, role in (("train", read.train), ("val", read.val), ("devkit", read.devkit)):
        if role not in files:
            raise BadArgument(f"{opt.PLACE}.{key}", role, "no file has this role", f"known: {', '.join(sorted(files))}")
    paths = {"train": files[read.train].path, "val": files[read.val].path}
    identity = {role: each.sha256 for role, each in sorted(files.items())}
    wanted = {split: paths[split] for split in splits}
    return list_archives(wanted, files[read.devkit].path, identity, scratch, listener, classes)


def list_archives(
    paths: Mapping[str, Path],
    devkit_path: Path,
    identity: Mapping[str, str],
    scratch: Path,
    listener: Listener,
    classes: Sequence[str] = (),
) -> Listed:
    """The samples of the archives at ``paths`` (split -> path). ``identity`` tells these archives from any others.

    Raises `LayoutError` where archives, devkit and ``classes`` (wnids that must be those of the devkit) disagree.
    """
    devkit = read_devkit(devkit_path)
    if classes and list(classes) != list(devkit.wnids):
        known = set(devkit.wnids)
        odd = next((each for each in classes if each not in known), None)
        what = f"does not know the class {odd}" if odd else f"has {len(known)} classes, not {len(classes)}"
        raise LayoutError(str(devkit_path), META, what)
    facts = {"kind": "ilsvrc", "files": dict(identity), "splits": list(paths)}
    key = sha256_hex(msgspec.json.encode(facts, order="sorted"))[:32]
    tables: dict[str, pa.Table] = {}
    containers: list[inventory.Container] = []
    for split, path in paths.items():
        found = inventory.take([path], scratch / f"{key}-{split}", listener=listener)
        labels, rows = (_train if split == "train" else _val)(found, path, devkit)
        # One list of containers for all splits: the later ones' numbers move up.
        table = found.members.take(array(rows, pa.int64()))
        moved = array(numbers(table["container"]) + np.uint32(len(containers)), pa.uint32())
        containers += [msgspec.structs.replace(c, path=str(found.folder / c.path)) for c in found.containers]
        table = table.set_column(0, "container", moved)
        tables[split] = table.append_column("source", _text(table["name"])).append_column(
            "label", array(labels, pa.int64())
        )
    everything = inventory.Inventory(scratch, tuple(containers), pa.table({}))
    return listed.write(
        scratch / f"{key}-samples",
        everything,
        tables,
        classes=list(devkit.wnids),
        words=list(devkit.words),
        fields=FIELDS,
        facts=facts,
        notes=_notes(tables, devkit),
    )


def _notes(tables: Mapping[str, pa.Table], devkit: Devkit) -> list[str]:
    notes = [f"{len(devkit.wnids)} classes from {devkit.path.name}, labels in the order of their wnids"]
    if "train" in tables:
        seen = len(np.unique(numbers(tables["train"]["label"])))
        if seen < len(devkit.wnids):
            notes.append(f"train holds images of {seen} of the {len(devkit.wnids)} classes")
    return notes


def _text(names: pa.ChunkedArray) -> pa.Array:
    return array([each.decode("utf-8", "backslashreplace") for each in names.to_pylist()], pa.string())


def _train(found: inventory.Inventory, path: Path, devkit: Devkit) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(labels, rows of the inventory) of the class tars' images, in archive order."""
    label_of = {wnid: label for label, wnid in enumerate(devkit.wnids)}
    labels = np.empty(len(found), np.int64)
    known: dict[bytes, int] = {}
    for row, name in enumerate(found.members["name"].to_pylist()):
        folder, slash, rest = name.rpartition(b"/")
        label = known.get(folder)
        if label is None:
            label = known[folder] = _class_of(folder.rpartition(b"/")[2], slash, label_of, path, name, devkit)
        if not rest.endswith(b".JPEG"):
            raise LayoutError(str(path), _shown(name), "is no image: a class tar holds .JPEG files only")
        labels[row] = label
    if not len(labels):
        raise LayoutError(str(path), "", "holds no images: a tar of class tars (n01440764.tar, ...) is expected")
    return labels, np.arange(len(found))


def _class_of(folder: bytes, slash: bytes, label_of: Mapping[str, int], path: Path, name: bytes, devkit: Devkit) -> int:
    wnid = _shown(folder)
    if not slash or not WNID.fullmatch(wnid):
        what = "is not in a class tar: their names are wnids, like n01440764.tar"
        raise LayoutError(str(path), _shown(name), what)
    if wnid not in label_of:
        raise LayoutError(str(path), f"{wnid}.tar", f"is a class that {devkit.path.name} does not know")
    return label_of[wnid]


def _val(found: inventory.Inventory, path: Path, devkit: Devkit) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(labels, rows) of the validation images, by their numbers."""
    numbers = np.empty(len(found), np.int64)
    for row, name in enumerate(found.members["name"].to_pylist()):
        match = VAL.fullmatch(name)
        if match is None:
            raise LayoutError(str(path), _shown(name), "is not named like ILSVRC2012_val_00000001.JPEG")
        numbers[row] = int(match[1])
    order = np.argsort(numbers, kind="stable")
    count = len(devkit.truth)
    if len(numbers) != count or not np.array_equal(numbers[order], np.arange(1, count + 1)):
        what = f"holds {len(numbers)} images, {devkit.path.name} has the labels of {count}"
        twice = len(numbers) - len(np.unique(numbers))
        raise LayoutError(str(path), "", f"{what}; {twice} numbers come twice" if twice else what)
    return np.asarray(devkit.truth, np.int64), order


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def read_devkit(path: Path) -> Devkit:
    """The devkit's classes and ground truth. Raises `LayoutError` for what is none, `MissingExtra` without scipy."""
    wanted: dict[str, bytes] = {}
    for member in archives.walk(path, DEVKIT):
        for ending in (META, TRUTH):
            if member.name.endswith(ending):
                wanted[ending] = member.read()
    for ending in (META, TRUTH):
        if ending not in wanted:
            raise LayoutError(str(path), "", f"is not the ILSVRC2012 devkit: it has no {ending}")
    leaves = _leaves(wanted[META], path)
    wnids = sorted(wnid for wnid, _ in leaves.values())
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    if len(label_of) != len(leaves):
        raise LayoutError(str(path), META, "names a wnid twice")
    words = dict(leaves.values())
    truth = []
    for line, text in enumerate(wanted[TRUTH].split(), 1):
        number = int(text) if text.isdigit() and len(text) < 9 else -1
        if number not in leaves:
            raise LayoutError(str(path), f"{TRUTH}, line {line}", f"{_shown(text)[:20]!r} is not the ID of a class")
        truth.append(label_of[leaves[number][0]])
    return Devkit(path, tuple(wnids), tuple(words[wnid] for wnid in wnids), tuple(truth))


def _leaves(data: bytes, path: Path) -> dict[int, tuple[str, str]]:
    """ILSVRC2012_ID -> (wnid, words) of the synsets without children."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MissingExtra("matlab", "reading the devkit's meta.mat") from error
    try:
        synsets = loadmat(io.BytesIO(data), squeeze_me=True)["synsets"]
        found = {
            int(each["ILSVRC2012_ID"]): (str(each["WNID"]), str(each["words"]))
            for each in np.atleast_1d(synsets)
            if int(each["num_children"]) == 0
        }
    except Exception as error:
        # scipy's reader of foreign bytes raises whatever its parsing meets.
        raise LayoutError(str(path), META, f"cannot be read: {error}") from error
    if not found or not all(WNID.fullmatch(wnid) for wnid, _ in found.values()):
        raise LayoutError(str(path), META, "lists no synsets with wnids")
    return found
