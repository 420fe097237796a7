"""Finding packed variants: read-only stores first, then home. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datahub.core.errors import DatahubError, NotInStore, NotReadable, UnknownDataset, UnknownVersion
from datahub.core.refs import NAME, Ref, version_key
from datahub.core.settings import Settings
from datahub.registry import catalog
from datahub.store import record as records
from datahub.store.paths import variant_dir
from datahub.store.record import Record

FALLBACK_VARIANT = "published"
"""The default variant of datasets no manifest knows."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a packed variant stands: its full reference, its folder, the store's datasets folder above it."""

    ref: Ref
    path: Path
    root: Path


@dataclass(frozen=True, slots=True)
class Located(Place):
    """A packed variant and what its record says."""

    record: Record


def roots(settings: Settings) -> tuple[Path, ...]:
    """The datasets folders to search, in order."""
    return (*(store / "datasets" for store in settings.stores), settings.datasets)


def find(settings: Settings, ref: Ref) -> Located:
    """The variant ``ref`` names: the newest packed version by default, the manifest's default variant.

    Raises `NotInStore`, or `RecordInvalid` where its record cannot be read.
    """
    place = find_place(settings, ref)
    try:
        return Located(place.ref, place.path, place.root, records.read(place.path))
    except FileNotFoundError:  # removed this instant
        raise NotInStore(str(ref), str(settings.home)) from None
    except OSError as error:
        raise NotReadable(str(place.path / records.FILENAME), error.strerror or str(error)) from error


def find_place(settings: Settings, ref: Ref) -> Place:
    """Like `find`, for a variant whose record may be damaged; raises `NotInStore`."""
    for version in [ref.version] if ref.version else packed_versions(settings, ref.name):
        variant = ref.variant or default_variant(settings, Ref(ref.name, version))
        for root in roots(settings):
            path = variant_dir(root, ref.name, version, variant)
            if (path / records.FILENAME).is_file():
                return Place(Ref(ref.name, version, variant), path, root)
    raise NotInStore(str(ref), str(settings.home), _nearest(settings, ref))


def default_variant(settings: Settings, ref: Ref) -> str:
    """The manifest's default, never "whichever is there"; of a version no manifest describes, the newest one's."""
    known = catalog(settings)
    try:
        return known.find(ref).default_variant
    except UnknownDataset:
        return FALLBACK_VARIANT
    except UnknownVersion:
        return known.find(Ref(ref.name)).default_variant


def list_local(settings: Settings) -> list[Located]:
    """Every packed variant, sorted by name, version and variant; a shadowed one and a broken one are left out."""
    found: dict[tuple[str, str, str], Located] = {}
    for root in roots(settings):
        for path in _variants(root):
            key = (path.parent.parent.name, path.parent.name, path.name)
            if key not in found:
                try:
                    found[key] = Located(Ref(*key), path, root, records.read(path))
                except (DatahubError, OSError):
                    continue  # `verify` says what is wrong with it; a listing must not fail for it
    return [found[key] for key in sorted(found, key=lambda key: (key[0], version_key(key[1]), key[2]))]


def packed_versions(settings: Settings, name: str) -> list[str]:
    """Versions of which any variant is packed, newest first."""
    found: set[str] = set()
    for root in roots(settings):
        folder = root / name
        if NAME.fullmatch(name) and folder.is_dir():
            found |= {each.name for each in folder.iterdir() if any(each.glob(f"*/{records.FILENAME}"))}
    return sorted(found, key=lambda version: (version_key(version), version), reverse=True)


def _variants(root: Path) -> Iterator[Path]:
    if root.is_dir():
        for path in root.glob(f"[!.]*/*/*/{records.FILENAME}"):
            yield path.parent


def _nearest(settings: Settings, ref: Ref) -> tuple[str, ...]:
    """Names like ``ref``'s, where that is one nobody knows."""
    try:
        catalog(settings).find(Ref(ref.name))
    except UnknownDataset as error:
        return error.nearest
    except DatahubError:
        pass  # its manifest is broken: that is another matter, and `manifest check` says it
    return ()
