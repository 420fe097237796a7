"""What a manifest may say about layouts: the kinds there are, and which of its files and splits their options name.

How a layout reads its files, and which further options it takes, is the `pack` room's concern.

    idx     options.splits.SPLIT = {images = ROLE, labels = ROLE, images_member, labels_member, start, count};
            options.label_column, label_columns, label_offset
    cifar   options.archive = ROLE; options.splits.SPLIT = [MEMBER, ...];
            options.meta, meta_key, label_key, extra, member_md5
    ilsvrc  options.train, options.val, options.devkit = ROLE; splits train and val, or one of them
    imagefolder  options.splits.SPLIT = {archive = ROLE, folder = FOLDER, annotations = MEMBER, labels = names|numbers}
    shapes  a generator: options.seed and what its image style takes; no files
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from datahub.registry.nearest import hint
from datahub.registry.rules import ROLE
from datahub.registry.walk import Report, under

Table = Mapping[str, Any]
Place = Callable[[str], str]
"""Option name -> its dotted place, in the manifest's layout or in a variant's."""
Roles = set[str] | None

GENERATORS = frozenset({"shapes"})
"""Layouts that make their samples: they need no published files."""


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
    roles = _roles(table.get("files", []))
    for name, variant in table.get("variants", {"published": {}}).items():
        _variant(table, name, variant or {}, roles, report)


def _roles(files: Sequence[Table | None]) -> Roles:
    """The roles there are; None where a file's own mistake hides its role, so that no second one is made of it."""
    roles = [each.get("role", "") if each else "" for each in files]
    right = all(ROLE.fullmatch(role) for role in roles) and len(set(roles)) == len(roles)
    return set(roles) if roles and right else None


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
        if name not in ("train", "val"):
            report(under("splits", name), "this layout has the splits train and val")


def _imagefolder(options: Table, splits: Table | None, place: Place, roles: Roles, report: Report) -> None:
    for name, split in _splits(options, splits, place, report):
        here = under(place("splits"), name)
        if not isinstance(split, dict):
            report(here, "must be a table: archive = ROLE, folder = FOLDER")
            continue
        if "archive" in split:
            _role(split["archive"], under(here, "archive"), roles, report)
        else:
            report(under(here, "archive"), "is missing: name the role of the archive")
        for key in ("folder", "annotations"):
            if key in split and not _inside(split[key]):
                report(under(here, key), f"{split[key]!r} is not a path inside the archive")
        if split.get("labels", "names") not in ("names", "numbers"):
            report(under(here, "labels"), "must be names or numbers")


def _inside(path: object) -> bool:
    return isinstance(path, str) and not path.startswith("/") and ".." not in path.split("/")


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
    elif roles is not None and role not in roles:
        report(place, f"no file has the role {role!r}; {hint(role, roles)}")
