"""`gc`: what killed runs left in the home store. Removes only what datahub itself made and nobody uses any more."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from datahub.acquire.receipts import Receipt
from datahub.core import atomic
from datahub.core.errors import DatahubError, LockTimeout, NotReadable, from_oserror
from datahub.core.locks import FileLock
from datahub.core.settings import Settings
from datahub.store.find import list_local
from datahub.store.paths import BUILDING, DERIVED, RESIDENT, pack_lock, pack_locks
from datahub.store.record import Record, read
from datahub.store.remove import files_under, size_of

DAY = 86_400.0
TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]{8}\.tmp")
"""The names `datahub.core.atomic.writing` gives."""
DIGEST = re.compile(r"[0-9a-f]{64}")

Kind = Literal["trash", "building", "temporary", "partial download", "receipt", "resident"]


@dataclass(frozen=True, slots=True)
class Leftover:
    path: Path
    kind: Kind
    bytes: int


def leftovers(settings: Settings, *, older_than: float = DAY) -> list[Leftover]:
    """What `gc` would remove, and why. ``older_than``: seconds since the last write; younger ones may be in use."""
    before = time.time() - older_than
    found = [
        *(Leftover(path, "trash", size_of(path)) for path in _entries(settings.trash)),
        *_building(settings, before),
        *_temporaries(settings, before),
        *_partials(settings, before),
        *_receipts(settings),
        *_residents(settings, before),
    ]
    return sorted(found, key=lambda each: (each.kind, each.path))


def gc(settings: Settings, *, dry_run: bool = False, older_than: float = DAY) -> list[Leftover]:
    """Remove what killed runs left behind; returns what was removed (``dry_run``: what would be)."""
    found = leftovers(settings, older_than=older_than)
    return found if dry_run else [each for each in found if _remove(each, settings)]


def _remove(leftover: Leftover, settings: Settings) -> bool:
    """True if it is gone; False if somebody took it up again meanwhile."""
    path = leftover.path
    if leftover.kind == "building":
        try:
            with FileLock(pack_lock(settings.locks, path.name), timeout=0):
                atomic.discard(path, settings.trash)
        except LockTimeout:
            return False
    elif leftover.kind in ("trash", "resident"):
        atomic.discard(path, settings.trash)
    else:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise from_oserror(error, path, writing=True) from error
    return True


def _building(settings: Settings, before: float) -> Iterator[Leftover]:
    """Variants that were being packed: old ones that no packer holds the lock of."""
    for path in _entries(settings.datasets / BUILDING):
        if not DIGEST.fullmatch(path.name) or not path.is_dir():
            continue
        held = any(FileLock(each).held() for each in pack_locks(settings.locks, path.name))
        if _last_write(path) < before and not held:
            yield Leftover(path, "building", size_of(path))


def _temporaries(settings: Settings, before: float) -> Iterator[Leftover]:
    """Files of writes that never ended, wherever datahub writes but in `.building` and the trash."""
    for folder in (settings.downloads, settings.receipts, settings.datasets, settings.home / DERIVED):
        for path in files_under(folder):
            inside = path.relative_to(folder).parts
            if TEMPORARY.fullmatch(path.name) and inside[0] != BUILDING and _mtime(path) < before:
                yield Leftover(path, "temporary", size_of(path))


def _partials(settings: Settings, before: float) -> Iterator[Leftover]:
    """``<filename>.part`` with its ``.part.json``, both old: the next download of it starts anew."""
    for path in files_under(settings.downloads):
        part = path if path.suffix == ".part" else path.with_suffix("")
        state = part.with_name(f"{part.name}.json")
        if part.suffix == ".part" and path in (part, state) and max(_mtime(part), _mtime(state)) < before:
            yield Leftover(path, "partial download", size_of(path))


def _receipts(settings: Settings) -> Iterator[Leftover]:
    """Receipts of files that are gone. What is no receipt is left alone."""
    for path in _entries(settings.receipts):
        if path.suffix == ".json" and DIGEST.fullmatch(path.stem):
            with suppress(OSError, msgspec.DecodeError):
                if not Path(msgspec.json.decode(path.read_bytes(), type=Receipt).path).exists():
                    yield Leftover(path, "receipt", size_of(path))


def _residents(settings: Settings, before: float) -> Iterator[Leftover]:
    """Decoded pixels of splits that no store holds any more: the next loader over such a split decodes it anew."""
    found = [each for each in _entries(settings.home / DERIVED) if DIGEST.fullmatch(each.name)]
    if not found:
        return
    records = [each.record for each in list_local(settings)] + list(_foreign(found))
    local = (split.fingerprint for each in records for split in each.splits.values())
    held = {fingerprint.removeprefix("sha256:") for fingerprint in local}
    for folder in found:
        path = folder / RESIDENT
        if folder.name not in held and path.is_dir() and _last_write(path) < before:
            yield Leftover(path, "resident", size_of(path))


def _foreign(folders: list[Path]) -> Iterator[Record]:
    """The records of indexes of shards that stand elsewhere."""
    for folder in folders:
        with suppress(OSError, DatahubError):
            yield read(folder)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise NotReadable(str(folder), error.strerror or str(error)) from error


def _mtime(path: Path) -> float:
    """Last write, in seconds; 0 for what is not there."""
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _last_write(folder: Path) -> float:
    """The newest write to a folder or anything in it."""
    return max(_mtime(path) for path in (folder, *files_under(folder)))
