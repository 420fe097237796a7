"""Which samples of a split take part: those that meet ``where``, lie in ``part``, and are the first ``max_samples``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datahub.core.errors import BadArgument
from datahub.order import keyhash
from datahub.order.bitmap import Bitmap
from datahub.store.dataset import Split

Ranges = tuple[tuple[float, float], ...]
WHOLE: Ranges = ((0.0, 1.0),)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a caller chose. `of` checks it; `keep` applies it to a split.

    The three are applied in this order. ``part`` and ``max_samples`` go by a hash of the key, so that parts never
    overlap whatever else is asked, a larger ``max_samples`` holds a smaller one's samples, and neither hangs on a seed.
    """

    where: str = ""
    part: Ranges = WHOLE
    max_samples: int | None = None

    @classmethod
    def of(cls, where: Any = None, part: Any = (0.0, 1.0), max_samples: Any = None) -> Selection:
        """Raises `BadArgument`. Columns are checked by `keep`, for only a split has them."""
        from datahub.store.where import canonical

        if max_samples is not None and (type(max_samples) is not int or max_samples < 1):
            raise BadArgument("max_samples", max_samples, "must be a whole number of at least 1")
        return cls("" if where is None else canonical(where), ranges_of(part), max_samples)

    @property
    def parts(self) -> str:
        """``part`` as text: ``0-0.2, 0.4-1``; empty for the whole."""
        return "" if self.part == WHOLE else ", ".join(f"{low:g}-{high:g}" for low, high in self.part)

    def keep(self, split: Split) -> NDArray[np.bool_] | None:
        """Which rows are kept, bool ``(n,)``; None for all. Raises `BadArgument`, also where none is left.

        The index is read for ``where`` only, and of it only the columns that this names.
        """
        if self == Selection():
            return None
        kept = split.meets(self.where) if self.where else np.ones(len(split), np.bool_)
        self._some(kept, split, "where", self.where)
        numbers = split.numbers()
        if self.part != WHOLE:
            kept &= keyhash.within(numbers, split.name, self.part)
            self._some(kept, split, "part", self.part)
        if self.max_samples is not None:
            rows = np.flatnonzero(kept)
            kept[:] = False
            kept[rows[keyhash.first(numbers[rows], split.name, self.max_samples)]] = True
        return kept

    def bitmap(self, split: Split) -> Bitmap | None:
        """`keep`, as the order takes it."""
        kept = self.keep(split)
        return None if kept is None else Bitmap(kept)

    def _some(self, kept: NDArray[np.bool_], split: Split, name: str, value: object) -> None:
        if not kept.any():
            raise BadArgument(name, value, f"leaves none of the {len(split)} samples of {split.name}", "ask for more")


def ranges_of(part: Any) -> Ranges:
    """``(0.2, 0.4)`` or ``[(0, 0.2), (0.4, 1)]`` as ascending ranges that do not touch. Raises `BadArgument`."""
    pairs = [part] if _is_pair(part) else part
    if not isinstance(pairs, Iterable) or isinstance(pairs, str) or not (pairs := list(pairs)):
        raise BadArgument("part", part, "is no range", "write (0, 0.9) or [(0, 0.2), (0.4, 1)]")
    merged: list[tuple[float, float]] = []
    for each in pairs:
        if not _is_pair(each) or not 0 <= each[0] < each[1] <= 1:
            raise BadArgument("part", part, "is no range of [0, 1]", "write (0, 0.9) or [(0, 0.2), (0.4, 1)]")
    for low, high in sorted((float(each[0]), float(each[1])) for each in pairs):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(isinstance(each, int | float) and not isinstance(each, bool) for each in value)
    )


def folds(k: int, i: int) -> tuple[Ranges, Ranges]:
    """Fold i of k: what to give ``part`` for training (k - 1 of k ranges), and for the held-out range.

    The k held-out parts together are the split, each sample in exactly one. Raises `BadArgument`.
    """
    if type(k) is not int or k < 2:
        raise BadArgument("k", k, "must be a whole number of at least 2")
    if type(i) is not int or not 0 <= i < k:
        raise BadArgument("i", i, f"must be one of 0 to {k - 1}")
    low, high = i / k, (i + 1) / k
    rest = [each for each in ((0.0, low), (high, 1.0)) if each[0] < each[1]]
    return tuple(rest), ((low, high),)
