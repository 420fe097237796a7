"""What a list of datasets shows of each: one `Entry`, read from the shipped listing without parsing any TOML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from datahub.core.errors import ManifestInvalid, NotReadable, Problem
from datahub.core.learning import learn
from datahub.registry.schema import Manifest

FILENAME = "listing.json"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One manifest, as far as a list of them shows it."""

    name: str
    version: str
    title: str
    task: str
    licence: str | None
    """SPDX identifier; None where the publisher states none."""
    classes: int
    """Of the default variant, as are the splits."""
    splits: dict[str, int]
    variants: list[str]
    bytes: int | None
    """To download; None where the size of a file is not known."""
    tried: str
    file: str
    """The manifest's file name beside the listing; of a user's manifest its path, "" for one made in Python."""

    @property
    def samples(self) -> int:
        return sum(self.splits.values())

    def to_dict(self) -> dict[str, Any]:
        facts: dict[str, Any] = msgspec.to_builtins(self)
        return facts


def shipped_folder() -> Path:
    """Where the shipped manifests are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "manifests"
    return inside if inside.is_dir() else package.parent / "manifests"


def entry_of(manifest: Manifest, file: str) -> Entry:
    sizes = [each.bytes for each in manifest.files_of(manifest.default_variant)]
    known = [size for size in sizes if size is not None]
    return Entry(
        name=manifest.name,
        version=manifest.version,
        title=manifest.title,
        task=manifest.task,
        licence=manifest.licence.id,
        classes=len(manifest.classes_of(manifest.default_variant)),
        splits=manifest.splits_of(manifest.default_variant),
        variants=sorted(manifest.variants),
        bytes=sum(known) if len(known) == len(sizes) else None,
        tried=manifest.tried.how,
        file=file,
    )


def read(folder: Path) -> list[Entry]:
    """The listing in ``folder``. Raises `ManifestInvalid` where it is not one, `NotReadable`."""
    path = folder / FILENAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Entry])
    except OSError as error:
        raise NotReadable(str(path), error.strerror or str(error)) from error
    except msgspec.DecodeError as error:
        raise ManifestInvalid(str(path), [Problem("the whole file", f"is not a listing: {error}")]) from error


learn(Entry)
