"""Decoded splits on this machine's disk: ``derived/<fingerprint>/resident/<split>-image.npy`` and what vouches for it.

The array is uint8 (N, C, H, W), NumPy's own format. Beside it stands a JSON note, written last: what it was decoded
from, its digest, and the size and time of writing it had, so that opening it again is a stat. One process decodes,
under a lock; others wait and map what it made. Nothing appears half made, and all of it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from datahub.core import atomic
from datahub.core.errors import NotReadable
from datahub.core.learning import learn
from datahub.core.locks import FileLock
from datahub.core.settings import Settings
from datahub.loader.residency_decode import Shape, decode_split, digest_of
from datahub.store.dataset import Split
from datahub.store.paths import RESIDENT, derived_dir
from datahub.stream.source import ShardSource

SCHEMA = 1
"""Raised when decoding would give other pixels, or the file another form."""
_HEX = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What the array was when it was written."""

    schema: int = SCHEMA
    fingerprint: str
    split: str
    shape: tuple[int, int, int, int]
    bytes: int
    mtime_ns: int
    digest: str
    """What `decode_split` says of its pixels."""
    damaged: list[int]
    """Rows that do not decode, ascending; they are black here."""


@dataclass(frozen=True, slots=True)
class Resident:
    """A split's pixels, uint8 (N, C, H, W), mapped, and the rows that must be streamed all the same."""

    pixels: NDArray[np.uint8]
    damaged: NDArray[np.int64]
    whole: bool = False
    """They are to be held whole by whoever uses them, not mapped."""

    def holds(self, rows: NDArray[np.int64]) -> bool:
        """Whether all of the rows decoded: a batch with one that did not is left to whoever streams, and its errors."""
        return not len(self.damaged) or not np.isin(rows, self.damaged).any()


@dataclass(frozen=True, slots=True)
class Mapped:
    """The file of a split's pixels, for a process to map itself."""

    path: str
    damaged: NDArray[np.int64]

    def open(self) -> Resident:
        return Resident(np.load(self.path, mmap_mode="r"), self.damaged)


def array_path(settings: Settings, split: Split) -> Path:
    """Where the split's pixels are kept on this machine."""
    match = _HEX.fullmatch(split.fingerprint)
    name = match[1] if match else hashlib.sha256(split.fingerprint.encode()).hexdigest()
    return derived_dir(settings.home, name) / RESIDENT / f"{split.name}-image.npy"


def present(settings: Settings, split: Split, shape: Shape) -> bool:
    """Whether the file is there and seems whole; reads no more than its note."""
    path = array_path(settings, split)
    return _stands(path, _note(path, split, shape)) is True


def open_resident(
    settings: Settings, split: Split, source: ShardSource, shape: Shape, *, workers: int, timeout: float
) -> Resident:
    """Map the split's pixels, decoding them first where no process of this machine has.

    Raises `DiskError`, `LockTimeout` after ``timeout`` seconds of another's decoding, or what reading a shard raises.
    """
    path = array_path(settings, split)
    found = _open(path, split, shape)
    if found is not None:
        return found
    lock = settings.locks / f"resident-{path.parent.parent.name}-{split.name}.lock"
    with FileLock(lock, timeout=timeout):
        found = _open(path, split, shape)
        if found is None:
            _make(path, split, source, shape, workers)
            found = _open(path, split, shape)
    if found is None:
        raise NotReadable(str(path), "it changed while it was written")
    return found


def _make(path: Path, split: Split, source: ShardSource, shape: Shape, workers: int) -> None:
    """Decode the split into ``path``; the caller holds the lock, so temporary files here are of killed processes."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        with suppress(OSError):
            left.unlink()
    with atomic.writing(path) as file:
        digest, damaged = decode_split(split, source, shape, file, workers)
    stat = path.stat()
    _write(
        path,
        Note(
            fingerprint=split.fingerprint,
            split=split.name,
            shape=(len(split), *shape),
            bytes=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            digest=digest,
            damaged=damaged,
        ),
    )


def _open(path: Path, split: Split, shape: Shape) -> Resident | None:
    """The array that a note vouches for; None where there is none, or it is not what was written."""
    note = _note(path, split, shape)
    stands = _stands(path, note)
    if note is None or stands is False:
        return None
    try:
        if stands is None:  # copied or touched: is it still the same?
            if digest_of(path, note.shape) != note.digest:
                return None
            with suppress(Exception):  # a home that cannot be written: it is hashed again next time
                _write(path, msgspec.structs.replace(note, mtime_ns=path.stat().st_mtime_ns))
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if pixels.dtype != np.uint8 or pixels.shape != note.shape or not pixels.flags.c_contiguous:
        return None
    return Resident(pixels.view(np.ndarray), np.array(note.damaged, np.int64))


def _note_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _note(path: Path, split: Split, shape: Shape) -> Note | None:
    """The note, if it is of this split decoded as this version decodes it."""
    try:
        note = msgspec.json.decode(_note_path(path).read_bytes(), type=Note)
    except (OSError, msgspec.DecodeError):
        return None
    expected = (SCHEMA, split.fingerprint, split.name, (len(split), *shape))
    return note if (note.schema, note.fingerprint, note.split, note.shape) == expected else None


def _write(path: Path, note: Note) -> None:
    atomic.write_bytes(_note_path(path), msgspec.json.format(msgspec.json.encode(note)) + b"\n")


def _stands(path: Path, note: Note | None) -> bool | None:
    """Whether the file is the note's: True by its size and time, False by its absence or size, None: hash it."""
    try:
        stat = path.stat()
    except OSError:
        return False
    if note is None or stat.st_size != note.bytes:
        return False
    return True if stat.st_mtime_ns == note.mtime_ns else None


learn(Note)
