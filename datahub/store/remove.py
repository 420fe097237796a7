"""`remove`: a packed variant, and its downloads if asked, out of the store at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from datahub.acquire import receipts
from datahub.core import atomic
from datahub.core.errors import NotWritable
from datahub.core.settings import Settings
from datahub.store.find import Place


@dataclass(frozen=True, slots=True)
class Removal:
    """What removing a variant takes away: folders with everything in them."""

    paths: tuple[Path, ...]
    bytes: int


def plan(place: Place, settings: Settings, *, downloads: bool = False) -> Removal:
    """What `remove` would remove. Raises `NotWritable` for a variant of a read-only store.

    Downloads belong to a dataset's version, so other variants of it lose theirs, too. Files that were read in place
    (``--from DIR``) are not downloads.
    """
    if place.root != settings.datasets:
        reason = "it stands in a read-only store (DATAHUB_STORES)"
        raise NotWritable(str(place.path), reason)
    paths = [place.path]
    fetched = settings.downloads / place.ref.name / str(place.ref.version)
    if downloads and fetched.is_dir():
        paths.append(fetched)
    return Removal(tuple(paths), sum(size_of(path) for path in paths))


def remove(place: Place, settings: Settings, *, downloads: bool = False) -> Removal:
    """Remove a packed variant: renamed into the trash first, so that no reader finds half of it."""
    removal = plan(place, settings, downloads=downloads)
    for path in removal.paths:
        if path.is_relative_to(settings.downloads):
            for file in files_under(path):
                receipts.path_of(settings, file).unlink(missing_ok=True)
        atomic.discard(path, settings.trash)
        _prune(path.parent, settings)
    return removal


def _prune(folder: Path, settings: Settings) -> None:
    """Remove the folders that are empty now, up to (not including) those of the store itself."""
    with suppress(OSError):  # not empty: something else stands there
        while folder not in (settings.datasets, settings.downloads) and folder.is_relative_to(settings.home):
            folder.rmdir()
            folder = folder.parent


def files_under(path: Path) -> Iterator[Path]:
    """Every file at or under ``path``; links are not followed."""
    if not path.is_dir() or path.is_symlink():
        yield path
        return
    for folder, _, names in os.walk(path):
        yield from (Path(folder, name) for name in names)


def size_of(path: Path) -> int:
    """Bytes of the files at or under ``path``; those that vanish meanwhile count nothing."""
    total = 0
    for file in files_under(path):
        with suppress(OSError):
            total += file.lstat().st_size
    return total
