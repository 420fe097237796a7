"""What a block cache keeps, and how its bytes are checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from datahub.core.errors import DigestMismatch, SizeMismatch

Data = bytes | memoryview
Fetch = Callable[[float], Data]
"""Gets a block's bytes from wherever they are, in so many seconds at most; raises `OriginError`s."""

HINT = "the origin holds other bytes than its record says: export or pack the dataset there again"
"""What to do where bytes are wrong."""


@dataclass(frozen=True, slots=True)
class Block:
    """What to keep: ``size`` bytes under a key of 64 hex digits. Without a digest the origin is believed."""

    key: str
    size: int
    sha256: bytes | None
    name: str
    """For people: the origin's file and the number of the block in it."""
    tag: str = ""
    """What it belongs to; blocks of one dataset share it."""
    hint: str = HINT


def wrong(block: Block, data: Data) -> SizeMismatch | DigestMismatch | None:
    """What is wrong with a block's bytes."""
    if len(data) != block.size:
        return SizeMismatch(block.name, block.size, len(data), block.hint)
    actual = hashlib.sha256(data)
    if block.sha256 is not None and actual.digest() != block.sha256:
        return DigestMismatch(block.name, f"sha256:{block.sha256.hex()}", f"sha256:{actual.hexdigest()}", block.hint)
    return None
