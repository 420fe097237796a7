"""A simulated node: which blocks of remote shards it reads, in the order's own sequence, and what its cache downloads.

The cache does what `datahub.stream.cached` and `datahub.store.cache.policy` do. Reads are announced ahead, up to
`SHARE` of the limit and a minute; an announced block stays; else the most recently read go first. Where reads are too
scattered for the cache it is filled once, and what it lacks is read sample by sample. Time is counted in samples, at a
pace of so many a second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datahub.core.digests import BLOCK
from datahub.loader.readahead import SECONDS
from datahub.loader.sources import spread
from datahub.order import EpochOrder, OrderOptions, cut_blocks, share_of
from datahub.store.cache.policy import HOT, to_free
from datahub.stream.cached import FILLS, SHARE

Int = NDArray[np.int64]
TOGETHER = 1 << 14
"""Samples read between two looks at the cache: at most so many, and one for sixteen blocks that it has room for."""


class Remote:
    """Shards of so many samples each, every image of ``image`` bytes and a record of ``record`` bytes in its tar.

    ``block`` is the order's, in samples.
    """

    def __init__(self, shards: Int, *, image: int, record: int, block: int) -> None:
        self.image, self.record, self.block = image, record, block
        self.edges = cut_blocks(shards.tolist(), block)
        ends = np.cumsum(shards)
        shard = np.searchsorted(ends, self.edges[:-1], "right")
        whole = -(-shards * record // BLOCK)
        base = (np.cumsum(whole) - whole) * BLOCK
        self._starts = base[shard] + (self.edges[:-1] - (ends - shards)[shard]) * record
        """Where each block of the order begins, were all shards laid end to end at multiples of a cache's block."""
        self.blocks = int(whole.sum())
        """Blocks of a cache."""
        self.bytes = int(ends[-1]) * record

    def touched(self, order: EpochOrder, positions: Int) -> tuple[Int, Int]:
        """The first and last cache block of each sample."""
        block, offset = order.locate(positions)
        address = self._starts[block] + offset * self.record
        return address // BLOCK, (address + self.image - 1) // BLOCK


@dataclass(frozen=True, kw_only=True)
class Job:
    """``batch`` is a node's; ``pace`` samples a second of a node; ``limit`` bytes of its cache."""

    nodes: int
    options: OrderOptions
    batch: int
    limit: int
    pace: int = 20_000

    def reads(self, order: EpochOrder, node: int) -> Iterator[tuple[int, Int]]:
        """(steps, line positions) that ``node`` reads, some steps at a time."""
        whole = self.batch * self.nodes
        slots = share_of(whole, node, self.nodes)
        together = max(1, min(TOGETHER, self.limit // BLOCK // 16) // self.batch)
        for first in range(0, order.steps(whole), together):
            steps = range(first, min(first + together, order.steps(whole)))
            found = [order.slots(whole, step * whole, *slots) for step in steps]
            yield len(steps), np.concatenate([line[valid] for line, valid in found])


@dataclass
class Traffic:
    bytes: int = 0
    requests: int = 0

    def add(self, count: int, size: int) -> None:
        self.bytes += count * size
        self.requests += count


class BlockNode:
    """Reads whole blocks through a bounded cache."""

    how = "blocks"

    def __init__(self, remote: Remote, job: Job) -> None:
        self._remote, self._job = remote, job
        self._room = job.limit // BLOCK
        self._held = np.zeros(remote.blocks, np.bool_)
        self._wanted = np.zeros(remote.blocks, np.int32)  # reads announced and still to come
        self._used = np.zeros(remote.blocks, np.int64)  # samples that had been read when it last was
        self._here, self._clock = np.zeros(0, np.int64), 0
        self.traffic = Traffic()

    def epoch(self, order: EpochOrder, node: int) -> None:
        coming = self._job.reads(order, node)
        announced: deque[tuple[Int, int]] = deque()
        wanted = ahead = 0
        while True:
            while wanted * BLOCK < self._job.limit * SHARE and ahead < SECONDS * self._job.pace:
                item = next(coming, None)
                if item is None:
                    break
                ids = np.unique(np.concatenate(self._remote.touched(order, item[1])))
                wanted += int((self._wanted[ids] == 0).sum())
                self._wanted[ids] += 1
                self._fill(ids[~self._held[ids]])
                announced.append((ids, len(item[1])))
                ahead += len(item[1])
            if not announced:
                return
            ids, samples = announced.popleft()
            ahead -= samples
            self._clock += samples
            self.traffic.add(int((~self._held[ids]).sum()), BLOCK)  # there was no room to keep them
            self._wanted[ids] -= 1
            wanted -= int((self._wanted[ids] == 0).sum())
            self._used[ids] = self._clock

    def _fill(self, missing: Int) -> None:
        over = to_free(len(missing) * BLOCK, len(self._here) * BLOCK, self._job.limit)
        if over:
            self._evict(-(-over // BLOCK))
        kept = missing[: self._room - len(self._here)]
        self._held[kept], self._used[kept] = True, self._clock
        self._here = np.concatenate([self._here, kept])
        self.traffic.add(len(kept), BLOCK)

    def _evict(self, count: int) -> None:
        gone = self.dispensable()[:count]
        self._held[gone] = False
        self._here = self._here[self._held[self._here]]

    def dispensable(self) -> Int:
        """`datahub.store.cache.policy.dispensable`, of one dataset that is in use, all blocks at once."""
        free = self._here[self._wanted[self._here] == 0]
        age = self._clock - self._used[free]
        hot = age > HOT * self._job.pace
        return free[np.lexsort((free, np.where(hot, age, -age), ~hot))]


class SampleNode:
    """Fills its cache once; what is not in it is read sample by sample."""

    how = "samples"

    def __init__(self, remote: Remote, job: Job) -> None:
        self._remote, self._job = remote, job
        self._held = np.zeros(remote.blocks, np.bool_)
        self._room = job.limit // BLOCK
        self.traffic = Traffic()

    def epoch(self, order: EpochOrder, node: int) -> None:
        for steps, positions in self._job.reads(order, node):
            first, last = self._remote.touched(order, positions)
            absent = ~(self._held[first] & self._held[last])
            self.traffic.add(int(absent.sum()), self._remote.image)
            missing = np.unique(np.concatenate([first[absent], last[absent]]))
            kept = missing[~self._held[missing]][: min(self._room, FILLS * steps)]
            self._held[kept] = True
            self._room -= len(kept)
            self.traffic.add(len(kept), BLOCK)


def node_of(remote: Remote, job: Job) -> BlockNode | SampleNode:
    """What the loader chooses for this job."""
    block = remote.block * remote.record
    wide = spread(job.options, job.nodes, remote.bytes, block) > job.limit * SHARE
    return SampleNode(remote, job) if wide and remote.bytes > job.limit else BlockNode(remote, job)
