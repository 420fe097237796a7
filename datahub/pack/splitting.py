"""Splits that people ask for: ``train=90%,val=10%`` by the hash of a sample's name, or ``train=5000`` by number."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datahub.core.errors import BadArgument
from datahub.core.refs import SPLIT

HINT = "write train=90%,val=10%"


@dataclass(frozen=True, slots=True)
class Shares:
    """Split -> its share of 1 (``percent``), or its number of samples."""

    of: dict[str, float]
    percent: bool

    @classmethod
    def parse(cls, text: str) -> Shares:
        """Raises `BadArgument`: shares must be percentages that add up to 100, or all numbers."""
        found: dict[str, float] = {}
        percents = set()
        for part in text.split(","):
            name, equals, value = (each.strip() for each in part.partition("="))
            percent = value.endswith("%")
            try:
                number = float(value.removesuffix("%")) if percent else int(value)
            except ValueError:
                raise BadArgument("split", text, f"cannot read {part!r}", HINT) from None
            if not equals or not SPLIT.fullmatch(name) or name in found or not 0 < number < 10**9:
                raise BadArgument("split", text, f"cannot read {part!r}", HINT)
            found[name] = number / 100 if percent else number
            percents.add(percent)
        if len(percents) != 1:
            raise BadArgument("split", text, "mixes percentages and numbers", HINT)
        if True in percents and abs(sum(found.values()) - 1) > 1e-9:
            raise BadArgument("split", text, f"the shares add up to {sum(found.values()) * 100:g} %, not 100", HINT)
        return cls(found, True in percents)

    def __str__(self) -> str:
        return ",".join(f"{name}={100 * share:g}%" if self.percent else f"{name}={share}" for name, share in self.items)

    @property
    def items(self) -> list[tuple[str, float]]:
        return list(self.of.items())


def counts(shares: Shares) -> dict[str, int]:
    """Numbers of samples, for generators; raises `BadArgument` for percentages."""
    if shares.percent:
        raise BadArgument("split", str(shares), "a generator needs numbers", "write train=5000,test=500")
    return {name: int(count) for name, count in shares.items}


def assign(names: Sequence[str], shares: Shares) -> NDArray[np.int64]:
    """The place in ``shares`` of the split each name falls into, int64 (n,).

    Percentages: by the name's hash alone, so that adding a sample moves no other (about that share falls to each).
    Numbers: exactly so many, in the order of the hashes; what is left over gets -1.
    """
    digests = [hashlib.sha256(b"split\0" + name.encode("utf-8", "surrogateescape")).digest()[:8] for name in names]
    hashes = np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)
    if shares.percent:
        edges = np.cumsum(list(shares.of.values()))[:-1]
        return np.searchsorted(edges, hashes.astype(np.float64) / 2.0**64, side="right").astype(np.int64)
    wanted = [int(count) for count in shares.of.values()]
    if sum(wanted) > len(names):
        raise BadArgument("split", str(shares), f"there are only {len(names)} samples", HINT)
    found = np.full(len(names), -1, np.int64)
    ranked = np.lexsort((np.arange(len(names)), hashes))
    first = 0
    for place, count in enumerate(wanted):
        found[ranked[first : first + count]] = place
        first += count
    return found
