"""Where a loader is in its order: the schedule of its rank, an epoch and a position, and the state that tells them."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from datahub.core.errors import BadArgument
from datahub.loader import arguments
from datahub.loader.members import Opened
from datahub.loader.mixing import check_groups
from datahub.loader.schedule import Plan, Schedule
from datahub.loader.topology import Topology, resolve_topology
from datahub.order.formula import OrderOptions
from datahub.stream.state import OrderParameters, State, restore
from datahub.tensor.mixing import Mixing


@dataclass(frozen=True)
class Asked:
    """What a caller says of the order; one of the two batch sizes is None, and a ``topology`` of None is found out."""

    batch_size: int | None
    global_batch_size: int | None
    shuffle: bool
    seed: int
    drop_last: bool
    static_shapes: bool
    options: OrderOptions
    topology: Topology | None
    mixing: Mixing | None
    """Whose groups no rank may cut."""


class Course:
    """``position`` of ``epoch`` is what the caller has received; ``begun``: whether a loop has started there.

    The topology, and what hangs on it, is resolved when it is first needed.
    """

    def __init__(self, members: Opened, asked: Asked) -> None:
        self._members, self._asked = members, asked
        self.epoch, self.position, self.begun = 0, 0, False

    @cached_property
    def schedule(self) -> Schedule:
        """Raises `BadArgument` where the batch does not fit the topology."""
        asked = self._asked
        topology = resolve_topology(asked.topology, os.environ)
        batch = asked.global_batch_size or (asked.batch_size or 0) * topology.world_size
        arguments.fits(batch, topology.world_size, asked.options.lanes)
        check_groups(asked.mixing, batch, topology.world_size)
        return Schedule(
            Plan(
                shards=self._members.split.shard_samples,
                block=self._members.split.block,
                seed=asked.seed,
                shuffle=asked.shuffle,
                options=asked.options,
                batch=batch,
                drop_last=asked.drop_last,
                static_shapes=asked.static_shapes,
                topology=topology,
                population=self._members.population,
            )
        )

    def move(self, epoch: int, position: int) -> None:
        self.epoch, self.position, self.begun = epoch, position, False

    def pass_over(self) -> None:
        """Leave an epoch in which a loop has started, if one has."""
        if self.begun:
            self.move(self.epoch + 1, 0)

    def skip(self, steps: int) -> bool:
        """Go on ``steps`` batches further; whether that is still in this epoch."""
        batch = self.schedule.plan.batch
        left = self.schedule.left(self.position)
        if steps < left:
            self.position += steps * batch
            return True
        if not len(self.schedule):
            raise BadArgument("steps", steps, "the epoch has no batches")
        epochs, rest = divmod(steps - left, len(self.schedule))
        self.move(self.epoch + 1 + epochs, rest * batch)
        return False

    def state(self, epoch: int | None = None, position: int | None = None) -> dict[str, int | str]:
        """The state here, or at another place."""
        where = {"epoch": self.epoch if epoch is None else epoch}
        return {**self._fixed_state, **where, "position": self.position if position is None else position}

    def found(self, state: Mapping[str, Any], allow: Collection[str]) -> State:
        """Where ``state`` was taken. Raises `StateMismatch` naming what changed."""
        return restore(state, self._parameters, self.schedule.size, allow)

    @property
    def digest(self) -> str:
        """Equal for loaders that read the same samples in the same order."""
        return self._parameters.digest()

    @cached_property
    def _parameters(self) -> OrderParameters:
        plan = self.schedule.plan
        chosen = self._members.parameters(plan.batch)
        return OrderParameters(
            dataset=self._members.name,
            fingerprint=self._members.split.fingerprint,
            block=plan.block,
            seed=plan.seed,
            batch=plan.batch,
            lanes=plan.options.lanes,
            window=str(plan.options.window),
            shuffle=int(plan.shuffle),
            drop_last=int(plan.drop_last),
            where=chosen["where"],
            part=chosen["part"],
            max_samples=chosen["max_samples"],
            mix=chosen["mix"],
        )

    @cached_property
    def _fixed_state(self) -> dict[str, int | str]:
        return State(0, 0).to_dict(self._parameters)
