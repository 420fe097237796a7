"""Spans of remote shards cut at the borders of blocks, and put together again. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from datahub.core.digests import BLOCK
from datahub.store.blocks import WIDTH
from datahub.store.cache.block import HINT, Block
from datahub.stream.samples import Span
from datahub.stream.spans import Data


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard at its origin; ``raw`` holds its blocks' digests end to end, as `blocks.bin` does."""

    path: str
    size: int
    raw: bytes = b""
    mark: str = ""
    """Without digests: what tells these bytes from others that were at the same place."""
    hint: str = HINT

    def block(self, number: int, named: str, tag: str) -> Block:
        """``named``: what the shard is called at its origin."""
        size = min(BLOCK, self.size - number * BLOCK)
        name = f"{named} block {number}"
        if self.raw:
            digest = self.raw[number * WIDTH : (number + 1) * WIDTH]
            return Block(digest.hex(), size, digest, name, tag, self.hint)
        key = sha256(f"{named} {self.size} {self.mark} {number}".encode()).hexdigest()
        return Block(key, size, None, name, tag)


@dataclass(slots=True)
class Part:
    """Bytes ``[start, end)`` of a block that a row needs."""

    row: int
    start: int
    end: int
    data: Data = b""


@dataclass(frozen=True, slots=True)
class Wanted:
    block: Block
    shard: Shard
    number: int
    parts: list[Part] = field(default_factory=list)

    def fill_in(self, found: Sequence[Data]) -> None:
        for part, data in zip(self.parts, found, strict=True):
            part.data = data


def cuts(offset: int, size: int) -> Iterator[tuple[int, int, int]]:
    """(block, start, end within it) of each block that a span touches."""
    end = offset + size
    for number in range(offset // BLOCK, -(-end // BLOCK) if size else 0):
        base = number * BLOCK
        yield number, max(offset - base, 0), min(end - base, BLOCK)


def joined(rows: list[Span], wanted: list[Wanted]) -> list[Data]:
    """Each row's bytes; a row that crosses from one block into the next is put together."""
    pieces: list[list[Data]] = [[] for _ in rows]
    for each in sorted(wanted, key=lambda each: each.number):
        for part in each.parts:
            pieces[part.row].append(part.data)
    return [found[0] if len(found) == 1 else b"".join(found) for found in pieces]


def rows_of(wanted: list[Wanted]) -> list[int]:
    """The rows that have a part in any of the blocks."""
    return list(dict.fromkeys(part.row for each in wanted for part in each.parts))
