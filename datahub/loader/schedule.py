"""Which samples a rank's batches hold: the order formula, cut by a topology. Pure: no file is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datahub.loader.ahead import Ahead
from datahub.loader.topology import Topology
from datahub.order.formula import OrderOptions, cut_blocks, share_of
from datahub.order.population import Blocks, Keyed, Line, Population


@dataclass(frozen=True, slots=True)
class Step:
    """One batch of one rank. Invalid rows name some sample to fill the row with."""

    epoch: int
    position: int
    """Samples of the epoch that the whole job consumed before this batch."""
    after: int
    """The same, after it."""
    index: NDArray[np.int64]
    valid: NDArray[np.bool_]
    places: NDArray[np.int64]
    """``position`` plus the row's slot: what its augmentation draws are keyed by."""
    n_global: int
    """Valid rows of this batch over all ranks."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything but the epoch that decides a rank's batches; ``batch`` is the whole job's."""

    shards: Sequence[int]
    block: int
    seed: int
    shuffle: bool
    options: OrderOptions
    batch: int
    drop_last: bool
    static_shapes: bool
    topology: Topology
    population: Population | None = None
    """What an epoch is made of; None: every sample of the shards."""


class Schedule:
    """The batches of a rank, by epoch and position. Holds the order of one epoch at a time: O(blocks) memory."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._population = plan.population or Blocks(cut_blocks(plan.shards, plan.block))
        self.size = self._population.size(plan.batch, plan.options.lanes)
        """Samples of an epoch."""
        self._latest: tuple[int, Line] | None = None
        first, last = share_of(plan.batch, plan.topology.rank, plan.topology.world_size)
        self._ahead = Ahead(plan.batch, plan.options.lanes, first, last)

    def __len__(self) -> int:
        """Batches of a whole epoch, the same on every rank."""
        return self.left(0)

    def after(self, position: int) -> int | None:
        """Where the batch at ``position`` ends; None where the epoch holds no more."""
        return min(position + self.plan.batch, self.size) if self.left(position) else None

    def left(self, position: int) -> int:
        """Batches of the epoch from ``position`` on."""
        rest = max(0, self.size - position)
        return rest // self.plan.batch if self.plan.drop_last else -(-rest // self.plan.batch)

    def step_at(self, position: int) -> int:
        """The number of the batch at ``position``, for people; rounded up where a resumed run changed its batch."""
        return -(-position // self.plan.batch)

    def step(self, epoch: int, position: int, between: int = 0) -> Step:
        """The batch at ``position``, which must not be past the epoch's last.

        ``between``: samples of the batches that whoever asks leaves out before the next.
        """
        order, batch, topology = self._order(epoch), self.plan.batch, self.plan.topology
        first, last = share_of(batch, topology.rank, topology.world_size)
        index = self._ahead.rows(order, self.size, position, batch + between)
        if index is not None and (not self.plan.static_shapes or len(index) * topology.world_size >= batch):
            places = position + np.arange(first, last)
            return Step(epoch, position, position + batch, index, np.ones(len(index), np.bool_), places, batch)
        line, valid = order.slots(batch, position, first, last)
        rows = np.arange(len(line))
        if self.plan.static_shapes:
            full = -(-batch // topology.world_size)
            valid = np.concatenate([valid, np.zeros(full - len(rows), np.bool_)])
            rows = np.minimum(np.arange(full), len(rows) - 1)
        elif not valid.all():
            rows = np.flatnonzero(valid) if valid.any() else rows[:1]
            valid = valid[rows]
        end = min(position + batch, self.size)
        places = position + first + rows
        return Step(epoch, position, end, order.rows(line[rows]), valid, places, order.valid_in(batch, position))

    def _order(self, epoch: int) -> Line:
        latest = self._latest
        if latest is None or latest[0] != epoch:
            plan = self.plan
            keyed = Keyed(plan.seed, epoch, plan.shuffle, plan.options, plan.batch)
            latest = self._latest = (epoch, self._population.line(keyed))
        return latest[1]
