"""Finding packed variants: read-only stores first, then home. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datahub.core.errors import DatahubError, NotInStore, UnknownDataset, UnknownVersion
from datahub.core.refs import Ref, version_key
from datahub.core.settings import Settings
from datahub.registry import catalog
from datahub.store import record as records
from datahub.store.paths import variant_dir
from datahub.store.record import Record

FALLBACK_VARIANT = "published"
"""The default variant of datasets no manifest knows."""


@dataclass(frozen=True, slots=True)
class Located:
    """A packed variant: its full reference, its folder, the store's datasets folder it stands in, its record."""

    ref: Ref
    path: Path
    root: Path
    record: Record


def roots(settings: Settings) -> tuple[Path, ...]:
    """The datasets folders to search, in order."""
    return (*(store / "datasets" for store in settings.stores), settings.datasets)


def find(settings: Settings, ref: Ref) -> Located:
    """The variant ``ref`` names: newest packed version by default, default variant by the manifest; `NotInStore`."""
    versions = [ref.version] if ref.version else _packed_versions(settings, ref.name)
    for version in versions:
        variant = ref.variant or default_variant(settings, Ref(ref.name, version))
        for root in roots(settings):
            path = variant_dir(root, ref.name, version, variant)
            if (path / records.FILENAME).is_file():
                return Located(Ref(ref.name, version, variant), path, root, records.read(path))
    raise NotInStore(str(ref), str(settings.home))


def default_variant(settings: Settings, ref: Ref) -> str:
    """The manifest's default, never "whichever is there"."""
    try:
        return catalog(settings).find(ref).default_variant
    except (UnknownDataset, UnknownVersion):
        return FALLBACK_VARIANT


def list_local(settings: Settings) -> list[Located]:
    """Every packed variant, sorted by name, version and variant; a shadowed one and a broken one are left out."""
    found: dict[tuple[str, str, str], Located] = {}
    for root in roots(settings):
        for path in _variants(root):
            key = (path.parent.parent.name, path.parent.name, path.name)
            if key not in found:
                try:
                    found[key] = Located(Ref(*key), path, root, records.read(path))
                except DatahubError:
                    continue  # `verify` says what is wrong with it; a listing must not fail for it
    return [found[key] for key in sorted(found, key=lambda key: (key[0], version_key(key[1]), key[2]))]


def _variants(root: Path) -> Iterator[Path]:
    if root.is_dir():
        for path in root.glob(f"[!.]*/*/*/{records.FILENAME}"):
            yield path.parent


def _packed_versions(settings: Settings, name: str) -> list[str]:
    """Versions with anything packed, newest first."""
    found: set[str] = set()
    for root in roots(settings):
        folder = root / name
        if folder.is_dir():
            found |= {each.name for each in folder.iterdir() if any(each.glob(f"*/{records.FILENAME}"))}
    return sorted(found, key=version_key, reverse=True)
