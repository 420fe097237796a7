"""A mixture of splits: inside every lane, runs in which each split has its exact share.

Member d's share of lane l walks through lane l of d's own order, pass after pass; pass k of epoch e is the order of
blocks keyed by (seed, d's key, k) and e. So a position of an epoch gives a sample in constant time, whatever came
before, and a node that owns lanes reads the same lanes of every member.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import EllipsisType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datahub.core.errors import BadArgument
from datahub.order.formula import EpochOrder
from datahub.order.permutation import derive
from datahub.order.population import Blocks, Int, Keyed, Line, cut_evenly
from datahub.order.shares import Shares, Tracks

Stop = Literal["longest", "shortest"] | int
RUN = 1000
"""Weights are multiples of 1 / RUN."""


@dataclass(frozen=True, slots=True)
class Member:
    """``key`` keys its passes, so that they do not hang on what else is in the mixture; ``name`` is for people."""

    key: str
    blocks: Blocks
    name: str


class Mixture:
    """Rows are numbered through: those of member d begin at ``bases[d]``.

    ``stop``: an epoch ends when every member was seen whole ("longest"), before one would repeat ("shortest"), or after
    so many global batches. With several lanes all are of one length: what the lane in which that holds last needs.
    """

    def __init__(self, members: Sequence[Member], weights: Sequence[int], stop: Stop) -> None:
        self.members, self.shares, self.stop = tuple(members), Shares(tuple(weights)), stop
        sizes = [int(each.blocks.edges[-1]) for each in members]
        self.bases = np.cumsum([0, *sizes])

    def size(self, batch: int, lanes: int, /) -> int:
        return lanes * self.length(batch, lanes)

    def every(self) -> Int:
        return np.concatenate(
            [base + each.blocks.every() for base, each in zip(self.bases[:-1], self.members, strict=True)]
        )

    def length(self, batch: int, lanes: int) -> int:
        """Positions of each lane."""
        samples = np.array([each.blocks.samples for each in self.members])
        least = samples // lanes
        if not least.all():
            few = int(np.flatnonzero(least == 0)[0])
            reason = f"{self.members[few].name} has {samples[few]} samples, too few to give every lane one"
            raise BadArgument("lanes", lanes, reason, "use fewer lanes")
        if not isinstance(self.stop, str):
            return self.stop * batch // lanes
        if self.stop == "shortest":
            return self.shares.shortest(least)
        return self.shares.longest(-(-samples // lanes))

    def line(self, keyed: Keyed) -> Line:
        return MixtureLine(self, keyed)


class MixtureLine:
    """The line of a `Mixture` in one epoch. Safe in threads."""

    def __init__(self, mixture: Mixture, keyed: Keyed) -> None:
        self._mixture, self._keyed = mixture, keyed
        lanes = keyed.options.lanes
        self._length = mixture.length(keyed.batch, lanes)
        cut = cut_evenly(lanes * self._length, lanes)
        self.slots, self.valid_in, self.slot_of = cut.slots, cut.valid_in, cut.slot_of
        self._borders = [cut_evenly(each.blocks.samples, lanes).borders for each in mixture.members]
        # Without a shuffle all epochs are alike, and so are all passes.
        self._tracks = Tracks(mixture.shares, self._length, keyed.seed, keyed.epoch if keyed.shuffle else 0, "mix")
        self._pass = lru_cache(maxsize=4 * len(mixture.members) + 8)(self._order)

    def rows(self, positions: Int) -> Int:
        line = np.asarray(positions, np.int64)
        lane = line // self._length
        member, number = self._tracks.entries(lane, line % self._length)
        found = np.empty_like(line)
        for each, here in _groups(member):
            found[here] = self._mixture.bases[each] + self._member_rows(each, lane[here], number[here])
        return found

    def of_member(self, member: int, positions: Int) -> tuple[Int, Int]:
        """Which of the positions are a member's (their places, ascending), and its own rows there."""
        line = np.asarray(positions, np.int64)
        lane = line // self._length
        found, number = self._tracks.entries(lane, line % self._length)
        here = np.flatnonzero(found == member)
        return here, self._member_rows(member, lane[here], number[here])

    def _member_rows(self, member: int, lane: Int, number: Int) -> Int:
        """Entry ``number`` that each lane takes of a member -> the member's row."""
        blocks, borders = self._mixture.members[member].blocks, self._borders[member]
        length = np.diff(borders)[lane]
        turn = number // length
        place = borders[lane] + number - turn * length
        found = np.empty_like(number)
        for each, here in _groups(turn if self._keyed.shuffle else np.zeros_like(turn)):
            found[here] = blocks.rows(self._pass(member, each), place[here])
        return found

    def _order(self, member: int, turn: int) -> EpochOrder:
        each = self._mixture.members[member]
        return each.blocks.order(derive(self._keyed.seed, "mix", each.key, turn), self._keyed)


def _groups(labels: NDArray[np.integer]) -> list[tuple[int, NDArray[np.int64] | EllipsisType]]:
    """Each distinct label, of few, with the places that carry it."""
    if not labels.size:
        return []
    least, most = int(labels.min()), int(labels.max())
    if least == most:
        return [(least, ...)]
    narrow = (labels - least).astype(np.min_scalar_type(most - least))
    order = np.argsort(narrow, kind="stable")  # narrow values are sorted by counting
    ends = np.flatnonzero(np.diff(narrow[order])) + 1
    return [(least + int(narrow[here[0]]), here) for here in np.split(order, ends)]
