"""What a job will read next: the order formula, applied to where the samples of a split lie. Numbers only.

A `Layout` says which blocks of a split's shards each sample lies in. `Reads` are the reads of one epoch; asking them
for the next read of every block costs a binary search a block. What a job announces is not trusted: batches are cut to
the epoch, positions to its end, and orders that cost too much to work out are not foreseen.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datahub.core.digests import BLOCK
from datahub.core.errors import RecordInvalid
from datahub.order import keyhash
from datahub.order.bitmap import Bitmap
from datahub.order.formula import OrderOptions, cut_blocks
from datahub.order.mixture import RUN, Member, Mixture, MixtureLine
from datahub.order.population import Blocks, Keyed
from datahub.store.blocks import count
from datahub.store.locate import LOCATE
from datahub.store.record import SplitEntry
from datahub.wire.messages import JobMix, JobOrder

Int = NDArray[np.int64]
Float = NDArray[np.float64]

MOST_SAMPLES = 1 << 25
"""Samples of a split that is foreseen at most."""
MOST_MIXED, MOST_PASSES = 1 << 23, 256
"""Positions of a mixture's epoch at most, and passes through the member: each has an order of its own."""
MOST_LANES = 1 << 12
MOST_BLOCKS = 1 << 16
"""Blocks of the order at most, where each may be a window: every piece of positions is looked through for each."""
PIECE = 1 << 15
"""Positions worked out at a time."""


@dataclass(frozen=True, slots=True)
class Layout:
    """``first``, ``last``: the first and last block of the shards that each sample lies in, int32 ``(samples,)``.

    ``name``, ``key``: of the split, and its fingerprint.

    ``edges``: the blocks of the order. ``sizes``: bytes of each block of the shards, numbered through.
    """

    name: str
    edges: Int
    first: NDArray[np.int32]
    last: NDArray[np.int32]
    sizes: Int
    gaps: tuple[int, ...] = ()
    key: str = ""
    meets: NDArray[np.bool_] | None = None
    """Which samples a job's filter leaves; None for all."""

    @property
    def samples(self) -> int:
        return len(self.first)

    def kept(self, order: JobOrder) -> Bitmap | None:
        """The samples that a job's selection leaves; None for all. As `datahub.store.selection` has it."""
        if self.meets is None and not order.part and not order.max_samples:
            return None
        numbers = np.arange(self.samples + len(self.gaps), dtype=np.int64)
        if self.gaps:
            numbers = np.delete(numbers, list(self.gaps))
        mask = np.ones(self.samples, np.bool_) if self.meets is None else self.meets.copy()
        if order.part:
            mask &= keyhash.within(numbers, self.name, order.part)
        if order.max_samples:
            rows = np.flatnonzero(mask)
            mask[:] = False
            mask[rows[keyhash.first(numbers[rows], self.name, order.max_samples)]] = True
        return Bitmap(mask)


def layout(name: str, entry: SplitEntry, shards: list[int], located: bytes) -> Layout:
    """Of a split whose ``shards`` have so many bytes; ``located`` is its locate file.

    Raises `RecordInvalid` where they do not fit each other.
    """
    try:
        rows = np.lib.format.read_array(io.BytesIO(located), allow_pickle=False)
    except Exception as error:  # NumPy lets Python's own parser look at the head, and takes what it says of the shape
        raise RecordInvalid(entry.locate, f"cannot be read: {error}") from error
    if rows.dtype != LOCATE or rows.shape != (entry.samples,):
        raise RecordInvalid(entry.locate, f"does not hold {entry.samples} locate rows")
    ends = rows["offset"].astype(np.uint64) + np.maximum(rows["size"], 1)
    limits = np.array(shards, np.uint64)
    if len(rows) and (int(rows["shard"].max()) >= len(shards) or bool((ends > limits[rows["shard"]]).any())):
        raise RecordInvalid(entry.locate, "names samples outside of their shards")
    counts = np.array([count(size) for size in shards], np.int64)
    base = np.cumsum(counts) - counts
    where = base[rows["shard"]]
    return Layout(
        name,
        cut_blocks([each.samples for each in entry.shards], entry.block),
        (where + (rows["offset"] // BLOCK).astype(np.int64)).astype(np.int32),
        (where + ((ends - 1) // BLOCK).astype(np.int64)).astype(np.int32),
        np.concatenate([np.zeros(0, np.int64), *(_sizes(size) for size in shards)]),
        tuple(entry.gaps),
        entry.fingerprint,
    )


def _sizes(size: int) -> Int:
    starts = np.arange(count(size), dtype=np.int64) * BLOCK
    return np.minimum(BLOCK, size - starts)


def foreseeable(entry: SplitEntry, order: JobOrder) -> bool:
    """Whether what a job announces can be worked out at a cost that a server bears."""
    blocks = sum(-(-each.samples // max(1, entry.block)) for each in entry.shards)
    return (
        entry.samples == sum(each.samples for each in entry.shards)
        and 0 < entry.samples <= MOST_SAMPLES
        and entry.block > 0
        and (order.window == "all" or blocks <= MOST_BLOCKS)
        and order.lanes <= min(MOST_LANES, entry.samples)
        and order.batch % order.lanes == 0
        and (order.mix is None or _mixable(order.mix, order))
    )


def _mixable(mix: JobMix, order: JobOrder) -> bool:
    """Whether the mixture is one, and none that takes longer to work out than it may."""
    if not mix.member < len(mix.weights) == len(mix.samples) or sum(mix.weights) > RUN:
        return False
    if min(mix.samples) < order.lanes or (isinstance(mix.stop, int) and mix.stop > MOST_MIXED):
        return False
    size, weight = mixture(mix).size(order.batch, order.lanes), mix.weights[mix.member]
    return size <= MOST_MIXED and size * weight <= MOST_PASSES * sum(mix.weights) * mix.samples[mix.member]


def mixture(mix: JobMix, key: str = "", blocks: Blocks | None = None) -> Mixture:
    """As a job reads it. Of its members but the one that is known here the sizes alone count."""
    members = [Member("", Blocks(np.array([0, samples], np.int64)), "") for samples in mix.samples]
    if blocks is not None:
        members[mix.member] = Member(key, blocks, "")
    return Mixture(members, mix.weights, mix.stop)


class Reads:
    """Which blocks an epoch reads, and at which positions of it. Immutable."""

    def __init__(self, layout: Layout, order: JobOrder, epoch: int, kept: Bitmap | None = None) -> None:
        """``kept``: what `Layout.kept` gave. Raises `RecordInvalid` where a mixture counts on another selection."""
        self.line = _Line(layout, order, epoch, kept)
        self.size, self.blocks = self.line.size, len(layout.sizes)
        """Samples of the epoch, of all members of a mixture together; blocks of the shards."""
        self._span = self.size + 1
        whole = -(-max(1, self.size) // order.lanes) * order.lanes
        batch = min(order.batch, whole)  # a larger one holds no more
        found = [np.zeros(0, np.int64)]
        for start in range(0, self.size, PIECE):
            positions = np.arange(start, min(start + PIECE, self.size))
            places, rows = self.line.rows(positions)
            begins, slots = self.line.slot_of(positions[places], batch)
            found += self._keys(layout, rows, np.minimum(begins + slots, self.size - 1))
        self._keyed = np.concatenate(found)
        self._keyed.sort()  # not np.unique, which may keep the interpreter to itself for a second
        """Block * span + position of each read, ascending."""

    def _keys(self, layout: Layout, rows: Int, when: Int) -> list[Int]:
        """Samples that cross a border read several blocks."""
        first, last = layout.first[rows].astype(np.int64), layout.last[rows].astype(np.int64)
        keys = []
        while first.size:
            keys.append(first * self._span + when)
            more = first < last
            first, last, when = first[more] + 1, last[more], when[more]
        return keys

    def next(self, position: int) -> Float:
        """Positions from ``position`` on until each block is read, float64 ``(blocks,)``; inf: not in this epoch."""
        number = np.arange(self.blocks, dtype=np.int64)
        wanted = number * self._span + min(max(0, position), self.size)
        at = np.searchsorted(self._keyed, wanted)
        ended = at == len(self._keyed)
        found = self._keyed[np.minimum(at, max(0, len(self._keyed) - 1))] if len(self._keyed) else wanted
        here = ~ended & (found // self._span == number)
        return np.where(here, (found - wanted).astype(np.float64), np.inf)

    @cached_property
    def first(self) -> Float:
        """`next` from the beginning."""
        return self.next(0)

    @property
    def weight(self) -> int:
        """Bytes of memory."""
        return self._keyed.nbytes


class _Line:
    """The positions of an epoch, and which rows of one split stand at which of them."""

    def __init__(self, layout: Layout, order: JobOrder, epoch: int, kept: Bitmap | None) -> None:
        blocks, mix = Blocks(layout.edges, kept), order.mix
        keyed = Keyed(order.seed, epoch, order.shuffle, OrderOptions(order.window, order.lanes), order.batch)
        if mix is None:
            line = blocks.order(order.seed, keyed)
            self.size, self.slot_of = blocks.samples, line.slot_of
            self.rows: Callable[[Int], tuple[Any, Int]] = lambda positions: (..., blocks.rows(line, positions))
            return
        if blocks.samples != mix.samples[mix.member]:
            raise RecordInvalid(layout.name, f"leaves {blocks.samples} samples to a job that counts on others")
        mixed = mixture(mix, layout.key, blocks)
        lines = MixtureLine(mixed, keyed)
        self.size, self.slot_of = mixed.size(order.batch, order.lanes), lines.slot_of
        self.rows = partial(lines.of_member, mix.member)


def share(order: JobOrder) -> float:
    """Of the positions of an epoch, those that read the job's own dataset."""
    return 1.0 if order.mix is None else order.mix.weights[order.mix.member] / sum(order.mix.weights)


def unpacked(kept: str, blocks: int) -> NDArray[np.bool_]:
    """`JobAsked.kept`: which blocks a job has itself; what is no bitmap says that it has none."""
    try:
        data = base64.b64decode(kept, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[:blocks]
    return np.concatenate([bits, np.zeros(blocks - len(bits), np.uint8)]).astype(np.bool_)
