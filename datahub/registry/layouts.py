"""What a manifest may say about layouts: the kinds there are, and which of its files and splits their options name.

How a layout reads its files, and which further options it takes, is the `pack` room's concern.

    idx     options.splits.SPLIT = {images = ROLE, labels = ROLE, images_member, labels_member, start, count};
            options.label_column, label_columns, label_offset
    cifar   options.archive = ROLE; options.splits.SPLIT = [MEMBER, ...];
            options.meta, meta_key, label_key, extra, member_md5
    ilsvrc  options.train, options.val, options.devkit = ROLE; splits train and val, or one of them
    imagefolder
            options.splits.SPLIT = {archive = ROLE, folder, annotations = MEMBER, labels = "names" or "numbers"};
            folder is a path inside the archive, "" its root and "*" its only folder
    shapes  a generator: options.seed and what its image style takes; no files
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from datahub.registry.nearest import hint
from datahub.registry.rules import roles_of
from datahub.registry.walk import Report, under

Table = Mapping[str, Any]
Place = Callable[[str], str]
"""Option name -> its dotted place, in the manifest's layout or in a variant's."""


@dataclass(frozen=True, slots=True)
class Known:
    """The roles that options may name."""

    roles: frozenset[str]
    whose: str
    """What has these roles: ``file``, or ``file of variants.NAME`` where that names its files."""


Roles = Known | None
"""None where it is not known which roles there are, so that none is called wrong."""

GENERATORS = frozenset({"shapes"})
"""Layouts that make their samples: they need no published files."""

ILSVRC = ("train", "val")
LABELS = ("names", "numbers")
"""What the folders or annotations of an image folder call the classes."""


def check(table: Table, report: Report) -> None:
    """The layout's kind, that files are there if and only if it reads any, and its options in every variant."""
    layout: Table = table.get("layout", {})
    kind = layout.get("kind")
    if kind is None:
        return
    if kind not in KINDS:
        report("layout.kind", f"{kind!r} is not a layout; {hint(kind, KINDS)}")
        return
    if kind in GENERATORS:
        if table.get("files"):
            report("files", f"must be left out: the layout {kind!r} makes its samples")
        return
    if not table.get("files"):
        report("files", f"is missing: the layout {kind!r} reads published files")
    roles = roles_of(table.get("files", []))
    for name, variant in table.get("variants", {"published": {}}).items():
        _variant(table, name, variant or {}, _known(name, variant or {}, roles), report)


def _known(name: str, variant: Table, roles: frozenset[str] | None) -> Roles:
    """The roles of the files that the variant is packed from."""
    if not roles:  # no files at all is a problem of its own, reported elsewhere
        return None
    if "files" not in variant:
        return Known(roles, "file")
    own = frozenset(variant["files"])
    # A wrong entry there may be a misspelt one of these, so nothing can be said of what the options name.
    return Known(own, f"file of {under('variants', name)}") if own and own <= roles else None


def _variant(table: Table, name: str, variant: Table, roles: Roles, report: Report) -> None:
    base: Table = table["layout"].get("options", {})
    own: Table = variant.get("layout", {})
    options = {**base, **own}

    def place(option: str) -> str:
        above = under(under("variants", name), "layout") if option in own else "layout.options"
        return under(above, option)

    splits = variant.get("splits", table.get("splits"))
    KINDS[table["layout"]["kind"]](options, splits, place, roles, report)


def _idx(options: Table, splits: Table | None, place: Place, roles: Roles, report: Report) -> None:
    for name, files in _splits(options, splits, place, report):
        here = under(place("splits"), name)
        if not isinstance(files, dict):
            report(here, "must be a table: images = ROLE, labels = ROLE")
            continue
        for key in ("images", "labels"):
            if key in files:
                _role(files[key], under(here, key), roles, report)
            else:
                report(under(here, key), "is missing: name the role of the file that holds them")


def _cifar(options: Table, splits: Table | None, place: Place, roles: Roles, report: Report) -> None:
    if "archive" in options:
        _role(options["archive"], place("archive"), roles, report)
    else:
        report(place("archive"), "is missing: name the role of the archive")
    for name, members in _splits(options, splits, place, report):
        if not isinstance(members, list) or not members or not all(isinstance(each, str) for each in members):
            report(under(place("splits"), name), "must be a list of the archive's members")


def _ilsvrc(options: Table, splits: Table | None, place: Place, roles: Roles, report: Report) -> None:
    for key in ("train", "val", "devkit"):
        if key in options:
            _role(options[key], place(key), roles, report)
        else:
            report(place(key), "is missing: name the role of the archive")
    for name in splits or ():
        if name not in ILSVRC:
            report(under("splits", name), f"this layout has no split {name!r}; {hint(name, ILSVRC)}")


def _imagefolder(options: Table, splits: Table | None, place: Place, roles: Roles, report: Report) -> None:
    for name, split in _splits(options, splits, place, report):
        here = under(place("splits"), name)
        if not isinstance(split, dict):
            report(here, "must be a table: archive = ROLE, folder = PATH")
            continue
        if "archive" in split:
            _role(split["archive"], under(here, "archive"), roles, report)
        else:
            report(under(here, "archive"), "is missing: name the role of the archive")
        if "folder" in split:
            _inside(split["folder"], under(here, "folder"), report)
        if "annotations" in split:
            _inside(split["annotations"] or None, under(here, "annotations"), report)
        if (labels := split.get("labels", LABELS[0])) not in LABELS:
            near = f"; {hint(labels, LABELS)}" if isinstance(labels, str) else ""
            report(under(here, "labels"), f"must be 'names' or 'numbers'{near}")


def _inside(path: object, place: str, report: Report) -> None:
    """A path in an archive, as its members are named: ``train/images``, without ``.``, ``..`` or doubled ``/``."""
    if not isinstance(path, str):
        report(place, "must be a path inside the archive")
    elif path and not {"", ".", ".."}.isdisjoint(path.split("/")):
        report(place, f"{path!r} is not a path inside the archive: write it like folder/train")


def _shapes(options: Table, splits: Table | None, place: Place, roles: Roles, report: Report) -> None:
    """A generator names no files."""


KINDS: Mapping[str, Callable[[Table, Table | None, Place, Roles, Report], None]] = {
    "idx": _idx,
    "cifar": _cifar,
    "ilsvrc": _ilsvrc,
    "imagefolder": _imagefolder,
    "shapes": _shapes,
}


def _splits(options: Table, splits: Table | None, place: Place, report: Report) -> Iterable[tuple[str, Any]]:
    """The entries of ``options.splits``, having checked that they are those of the manifest."""
    here = place("splits")
    found = options.get("splits")
    if found is None:
        report(here, "is missing: say which files hold each split")
        return ()
    if not isinstance(found, dict):
        report(here, "must be a table with an entry for each split")
        return ()
    if not splits:  # a problem of its own, reported elsewhere
        return found.items()
    for name in splits:
        if name not in found:
            report(under(here, name), f"is missing: the manifest has a split {name!r}")
    for name in found:
        if name not in splits:
            report(under(here, name), f"the manifest has no split {name!r}; {hint(name, splits)}")
    return [(name, entry) for name, entry in found.items() if name in splits]


def _role(role: object, place: str, roles: Roles, report: Report) -> None:
    if not isinstance(role, str):
        report(place, "must be the role of a file")
    elif roles is not None and role not in roles.roles:
        report(place, f"no {roles.whose} has the role {role!r}; {hint(role, roles.roles)}")
