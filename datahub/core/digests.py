"""Digests in one written form, ``algorithm:hex``, and hashing of files and streams."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from datahub.core.errors import DigestMismatch

LENGTHS = {"md5": 32, "sha256": 64}
CHUNK = 1 << 20
BLOCK = 4 << 20
"""Bytes of one verified block: `blocks.bin` holds a raw SHA-256 for each."""


class Hash(Protocol):
    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def digest(self) -> bytes: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``sha256:<64 hex>`` or ``md5:<32 hex>``; raises ``ValueError``."""
        algorithm, colon, value = text.partition(":")
        length = LENGTHS.get(algorithm)
        if not colon or length is None or not re.fullmatch(rf"[0-9a-f]{{{length}}}", value):
            raise ValueError(f"{text!r} is not a digest: write sha256:<64 hex digits> or md5:<32 hex digits>")
        return cls(algorithm, value)

    def fits(self, actual: Digest) -> bool:
        """Whether ``actual``, a whole digest, is this one, or begins like it where only its first digits are known."""
        return actual.algorithm == self.algorithm and actual.hex.startswith(self.hex)


class MultiHash:
    """Several digests over one stream of bytes."""

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._hashes: dict[str, Hash] = {name: new(name) for name in dict.fromkeys(algorithms)}
        self.bytes = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self.bytes += len(data)
        for each in self._hashes.values():
            each.update(data)

    def digests(self) -> tuple[Digest, ...]:
        return tuple(Digest(name, each.hexdigest()) for name, each in self._hashes.items())

    def check(self, path: str, expected: Iterable[Digest]) -> None:
        """Raise `DigestMismatch` at the first of ``expected`` that differs."""
        actual = {d.algorithm: d for d in self.digests()}
        for want in expected:
            if not want.fits(actual[want.algorithm]):
                raise DigestMismatch(path, str(want), str(actual[want.algorithm]))


def new(algorithm: str) -> Hash:
    """A fresh hash; MD5 here checks against published figures and is never a defence."""
    return hashlib.new(algorithm, usedforsecurity=False)


def sha256_hex(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def of_file(path: Path, algorithms: Iterable[str] = ("sha256",)) -> MultiHash:
    """Hash a whole file, reading ``CHUNK`` bytes at a time into one buffer."""
    hashes = MultiHash(algorithms)
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as handle:
        while count := handle.readinto(buffer):
            hashes.update(view[:count])
    return hashes
