"""Foreign shards on this machine, read where they are for as long as they are what was indexed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datahub.core.errors import Problem, StoreDamaged
from datahub.stream.foreign.facts import Facts
from datahub.stream.source import LocalShards

HINT = "open the shards again: those that changed are indexed anew"


class ForeignShards(LocalShards):
    """`LocalShards` that compare a shard's size and time of writing with the index when they open it."""

    def __init__(self, ref: str, facts: Sequence[Facts]) -> None:
        super().__init__(ref, [Path(each.named.url) for each in facts])
        self._facts = tuple(facts)

    def _look(self, shard: int, descriptor: int) -> None:
        found, expected = os.fstat(descriptor), self._facts[shard]
        if (found.st_size, str(found.st_mtime_ns)) != (expected.size, expected.mark):
            raise StoreDamaged(*self._problem(shard, "was written since it was indexed"))

    def _problem(self, shard: int, reason: str) -> tuple[str, list[Problem], str]:
        return self._ref, [Problem(self._facts[shard].named.url, reason)], HINT

    def __reduce__(self) -> tuple[type[ForeignShards], tuple[Any, ...]]:
        return ForeignShards, (self._ref, self._facts)
