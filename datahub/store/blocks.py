"""`blocks.bin`: the raw SHA-256 of every 4 MiB block of every file the record lists, in the record's order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from datahub.core import atomic
from datahub.core.digests import BLOCK, CHUNK
from datahub.core.errors import NotReadable, RecordInvalid
from datahub.store.record import BLOCKS, FileEntry

WIDTH = 32
"""Bytes of one block digest."""
Raw = bytes
"""Block digests end to end, as they stand in `blocks.bin`."""


@dataclass(frozen=True, slots=True)
class FileDigests:
    """One pass over a file: its size, whole SHA-256 (hex), and raw block digests end to end."""

    bytes: int
    sha256: str
    raw: Raw

    @property
    def blocks(self) -> str:
        """What the record says of the blocks: the SHA-256 of `raw`."""
        return hashlib.sha256(self.raw).hexdigest()


class BlockHasher:
    """Hashes a stream whole and by blocks at once."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256()
        self._block = hashlib.sha256()
        self._filled = 0
        self._raw = bytearray()
        self.bytes = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self.update_whole(data)
        self.update_blocks(data)

    def update_whole(self, data: bytes | bytearray | memoryview) -> None:
        """The whole-file half of `update`; the halves may run on two threads."""
        self._whole.update(data)
        self.bytes += len(data)

    def update_blocks(self, data: bytes | bytearray | memoryview) -> None:
        """The block half of `update`."""
        view = memoryview(data)
        while view:
            piece = view[: BLOCK - self._filled]
            self._block.update(piece)
            self._filled += len(piece)
            if self._filled == BLOCK:
                self._end_block()
            view = view[len(piece) :]

    def _end_block(self) -> None:
        self._raw += self._block.digest()
        self._block = hashlib.sha256()
        self._filled = 0

    def result(self) -> FileDigests:
        if self._filled:
            self._end_block()
        return FileDigests(self.bytes, self._whole.hexdigest(), bytes(self._raw))


def count(size: int) -> int:
    """How many blocks a file of ``size`` bytes has."""
    return -(-size // BLOCK)


def of_file(path: Path) -> FileDigests:
    hasher = BlockHasher()
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as handle:
        while read := handle.readinto(buffer):
            hasher.update(view[:read])
    return hasher.result()


def of_bytes(data: bytes) -> FileDigests:
    hasher = BlockHasher()
    hasher.update(data)
    return hasher.result()


def write(folder: Path, raws: Iterable[Raw]) -> None:
    """Write `blocks.bin` from the files' raw block digests, in the order of the record's files."""
    atomic.write_bytes(folder / BLOCKS, b"".join(raws))


def size(files: Sequence[FileEntry]) -> int:
    """Bytes of the `blocks.bin` that belongs to these files."""
    return sum(WIDTH * count(each.bytes) for each in files)


def read(folder: Path, files: Sequence[FileEntry]) -> dict[str, Raw]:
    """Path -> raw block digests of each of the record's files.

    Slices are not yet compared with `FileEntry.blocks`; `intact` does that. Raises `RecordInvalid` where `blocks.bin`
    is missing or has another length.
    """
    path = folder / BLOCKS
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RecordInvalid(str(path), "is missing") from None
    except OSError as error:
        raise NotReadable(str(path), error.strerror or str(error)) from error
    if len(data) != size(files):
        raise RecordInvalid(str(path), f"has {len(data)} bytes, the files of the record need {size(files)}")
    slices = {}
    at = 0
    for each in files:
        end = at + WIDTH * count(each.bytes)
        slices[each.path] = data[at:end]
        at = end
    return slices


def intact(entry: FileEntry, raw: Raw) -> bool:
    """Whether ``raw`` are the block digests that the record vouches for."""
    return hashlib.sha256(raw).hexdigest() == entry.blocks


def changed(expected: Raw, actual: Raw) -> list[int]:
    """Numbers of the blocks whose digests differ, of two files of one size."""
    return [
        at // WIDTH for at in range(0, len(expected), WIDTH) if expected[at : at + WIDTH] != actual[at : at + WIDTH]
    ]
