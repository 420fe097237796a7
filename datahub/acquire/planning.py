"""What must be downloaded, decided before anything is: printable, and free of side effects."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from datahub.acquire.files import vouched
from datahub.core.errors import ManualFiles
from datahub.core.settings import Settings
from datahub.core.sizes import format_bytes
from datahub.core.urls import below, shown
from datahub.registry.schema import File, Manifest

State = Literal["verified", "present", "partial", "missing"]


@dataclass(frozen=True, slots=True)
class Item:
    """One published file: where it is or will be, how much of it is there, and where it can come from, in order."""

    file: File
    state: State
    path: Path
    have: int
    sources: tuple[str, ...]
    in_place: bool
    """True: read where it stands (a site mirror folder), never copied."""
    looked: tuple[str, ...] = ()
    """The places of a site mirror folder that were looked at, where the file is at none of them."""


@dataclass(frozen=True, slots=True)
class Plan:
    name: str
    version: str
    items: tuple[Item, ...]
    disk_free: int
    folder: Path
    """Where downloads go."""
    instructions: str = ""

    @property
    def missing(self) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.state in ("partial", "missing"))

    @property
    def bytes_missing(self) -> int | None:
        """Bytes still to come; None while the size of a missing file is unknown."""
        sizes = [None if item.file.bytes is None else item.file.bytes - item.have for item in self.missing]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def disk_needed(self) -> int:
        """Bytes this will take on the disk of `folder`; files of unknown size count as nothing."""
        return sum((item.file.bytes or 0) - min(item.have, item.file.bytes or 0) for item in self.missing)

    def lines(self) -> list[str]:
        """The plan for people."""
        rows = []
        for item in self.items:
            size = "size unknown" if item.file.bytes is None else format_bytes(item.file.bytes)
            where = f"at {item.path}" if item.state in ("verified", "present") else f"from {_first(item.sources)}"
            had = f" ({format_bytes(item.have)} here)" if item.state == "partial" else ""
            rows.append(f"{item.state:<9} {item.file.filename}  {size}{had}  {where}")
        if self.missing:
            to_come = self.bytes_missing
            known = "unknown size" if to_come is None else format_bytes(to_come)
            rows.append(f"to download: {known}; free on that disk: {format_bytes(self.disk_free)}")
        return rows

    def to_dict(self) -> dict[str, Any]:
        files = [
            {
                "filename": item.file.filename,
                "state": item.state,
                "bytes": item.file.bytes,
                "have": item.have,
                "path": str(item.path),
                "sources": [each if each in item.file.mirrors else shown(each) for each in item.sources],
            }
            for item in self.items
        ]
        return {
            "files": files,
            "bytes_missing": self.bytes_missing,
            "disk_needed": self.disk_needed,
            "disk_free": self.disk_free,
        }


def _first(sources: tuple[str, ...]) -> str:
    return shown(sources[0]) if sources else "nowhere that is known"


def plan(manifest: Manifest, settings: Settings, variant: str | None = None) -> Plan:
    """Look at what is here of the files that ``variant`` needs (None: of all).

    Raises `ManualFiles` where a person must bring files that no mirror has.
    """
    folder = settings.downloads / manifest.name / manifest.version
    items = tuple(
        _item(manifest, file, folder, settings)
        for file in (manifest.files if variant is None else manifest.files_of(variant))
    )
    found = Plan(manifest.name, manifest.version, items, _free(settings.home), folder, manifest.access.instructions)
    unreachable = [item.file.filename for item in found.missing if not item.sources and not item.looked]
    if unreachable and manifest.access.kind != "open":
        raise ManualFiles(manifest.name, unreachable, manifest.access.instructions)
    return found


def local_folder(from_: str | None) -> Path | None:
    """The folder that ``--from`` names, if it is one and not a URL."""
    if not from_:
        return None
    parts = urlsplit(from_)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if "://" in from_ else Path(from_).expanduser()


def _item(manifest: Manifest, file: File, folder: Path, settings: Settings) -> Item:
    target = folder / file.filename
    site = local_folder(settings.from_)
    if site is not None and vouched(file, target, settings) is None:
        looked = (site / manifest.name / file.filename, site / file.filename)
        for path in looked:
            if path.is_file():
                state: State = "verified" if vouched(file, path, settings) else "present"
                return Item(file, state, path.absolute(), path.stat().st_size, (), True)
        return Item(file, "missing", target, 0, (), False, tuple(str(path) for path in looked))
    sources = tuple(file.mirrors)
    if settings.from_ and site is None:
        sources = (below(settings.from_, f"{manifest.name}/{file.filename}"),)
    if target.is_file():
        state = "verified" if vouched(file, target, settings) else "present"
        return Item(file, state, target, target.stat().st_size, sources, False)
    from datahub.acquire.partial import progress

    have = progress(target)
    return Item(file, "partial" if have else "missing", target, have, sources, False)


def _free(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
