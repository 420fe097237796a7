"""`blocks.bin`: the raw SHA-256 of every 4 MiB block of every file the record lists, in the record's order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from datahub.core.digests import BLOCK, CHUNK

WIDTH = 32
"""Bytes of one block digest."""


@dataclass(frozen=True, slots=True)
class FileDigests:
    """One pass over a file: its size, whole SHA-256 (hex), and raw block digests end to end."""

    bytes: int
    sha256: str
    raw: bytes

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
        self._whole.update(data)
        view = memoryview(data)
        self.bytes += len(view)
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
