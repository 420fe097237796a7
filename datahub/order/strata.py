"""Weighted sampling inside one split: a mixture over strata, such as classes.

A stratum has no blocks: a pass through it is one keyed bijection of its samples, so that a batch that holds a sample of
each of a thousand classes is still computed at once. It therefore needs ``window="all"``: every sample may be anywhere.
The shares hold along the whole line, not lane by lane, since a stratum may have fewer samples than there are lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datahub.core.errors import BadArgument
from datahub.order.population import Int, Keyed, Line, cut_evenly
from datahub.order.shares import Shares, Tracks
from datahub.order.varied import keys, permute_each

Stop = Literal["size", "longest", "shortest"] | int


class Strata:
    """``strata`` int ``(n,)``: the stratum of every row, -1 for rows left out; ``weights``: entries of each in a run.

    ``stop``: "size" (as many samples as there are rows left in), or as in `datahub.order.mixture.Mixture`.
    """

    def __init__(self, strata: NDArray[np.integer], weights: Sequence[int], stop: Stop) -> None:
        self.shares, self.stop = Shares(tuple(weights)), stop
        inside = np.flatnonzero(strata >= 0)
        order = np.argsort(strata[inside], kind="stable")
        narrow = np.int32 if len(strata) < 1 << 31 else np.int64
        self._rows = inside[order].astype(narrow)
        self._counts = np.bincount(strata[inside], minlength=len(self.shares.weights)).astype(np.int64)
        self._starts = np.cumsum(self._counts) - self._counts

    def size(self, batch: int, _lanes: int, /) -> int:
        if self.stop == "size":
            return len(self._rows)
        if self.stop == "longest":
            return self.shares.longest(self._counts)
        return self.shares.shortest(self._counts) if self.stop == "shortest" else self.stop * batch

    def every(self) -> Int:
        return np.sort(self._rows).astype(np.int64)

    def line(self, keyed: Keyed) -> Line:
        if keyed.options.window != "all":
            reason = "weighted sampling takes samples from anywhere"
            raise BadArgument("window", keyed.options.window, reason, 'use datahub.Order(window="all")')
        return StrataLine(self, keyed)

    def rows(self, stratum: Int, number: Int, *key: int | str) -> Int:
        """The row that entry ``number`` of a stratum is: pass after pass, each in an order of its own.

        Without a ``key`` a pass is in the order of rows.
        """
        count = self._counts[stratum]
        turn = number // count
        place = number - turn * count
        if key:
            stratum_of, turn_of, group = _distinct(stratum, turn, len(self._counts))
            each = keys((*key, "stratum"), stratum_of, turn_of)
            place = permute_each(place, self._counts[stratum_of], each, group)
        found: Int = self._rows[self._starts[stratum] + place].astype(np.int64)
        return found


class StrataLine:
    """The line of `Strata` in one epoch. Safe in threads."""

    def __init__(self, strata: Strata, keyed: Keyed) -> None:
        size = strata.size(keyed.batch, keyed.options.lanes)
        cut = cut_evenly(size, keyed.options.lanes)
        self.slots, self.valid_in = cut.slots, cut.valid_in
        self._strata = strata
        self._key = (keyed.seed, keyed.epoch) if keyed.shuffle else ()
        self._tracks = Tracks(strata.shares, size, keyed.seed, keyed.epoch if keyed.shuffle else 0, "strata")

    def rows(self, positions: Int) -> Int:
        line = np.asarray(positions, np.int64)
        stratum, number = self._tracks.entries(np.zeros_like(line), line)
        return self._strata.rows(stratum.astype(np.int64), number, *self._key)


def _distinct(stratum: Int, turn: Int, strata: int) -> tuple[Int, Int, Int | None]:
    """The distinct (stratum, turn), and which of them each element is; all elements where hardly any are equal."""
    if not len(turn):
        return stratum, turn, None
    least = int(turn.min())
    turns = int(turn.max()) - least + 1
    if strata * turns * 2 > len(turn):
        return stratum, turn, None
    labels = stratum * turns + (turn - least)
    seen = np.zeros(strata * turns, np.bool_)
    seen[labels] = True
    distinct = np.flatnonzero(seen)
    return distinct // turns, distinct % turns + least, (np.cumsum(seen) - 1)[labels]
