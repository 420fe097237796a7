"""Which samples a page of the browser shows: by split, class, and the beginning of a key."""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datahub.core.errors import RecordInvalid
from datahub.core.refs import SPLIT
from datahub.serve.engine import Engine
from datahub.serve.library import Blob, Variant
from datahub.store.locate import LOCATE
from datahub.store.paths import key_of
from datahub.store.record import Record, SplitEntry

PAGE = 48
DIGITS = 9
READ = 4 << 20
SPLITS = 8
"""Splits whose labels are kept in memory, 4 bytes a sample."""
TYPED = re.compile(rf"(?:({SPLIT.pattern})-)?([0-9]{{0,{DIGITS}}})")


@dataclass(frozen=True, slots=True)
class Card:
    """A sample: its row, and where its image is."""

    row: int
    key: str
    label: int
    width: int
    height: int
    shard: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody looks for: rows from ``first`` up to ``end`` of a split."""

    split: str
    first: int
    end: int

    @property
    def one(self) -> bool:
        return self.end - self.first == 1


class Labels:
    """The labels of splits, read when a class is first asked for. Belongs to one event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._lock = engine, asyncio.Lock()
        self._kept: OrderedDict[str, NDArray[np.int32]] = OrderedDict()

    async def rows(self, variant: Variant, split: str, label: int) -> NDArray[np.int64]:
        """The rows of a class, ascending. Raises as `Engine.piece`."""
        blob = _locate(variant, variant.record.splits[split])
        async with self._lock:
            labels = self._kept.pop(blob.sha256, None)
            if labels is None:
                labels = await self._read(blob, variant.record.splits[split].samples)
            self._kept[blob.sha256] = labels
            if len(self._kept) > SPLITS:
                self._kept.popitem(last=False)
        return await asyncio.to_thread(lambda: np.flatnonzero(labels == label))

    async def _read(self, blob: Blob, samples: int) -> NDArray[np.int32]:
        found, step = np.empty(samples, np.int32), READ // LOCATE.itemsize
        for first in range(0, samples, step):
            count = min(step, samples - first)
            found[first : first + count] = (await _rows(self._engine, blob, samples, first, count))["label"]
        return found


def first_split(record: Record) -> str:
    """What is shown where nobody has said it. The record has splits."""
    return "train" if "train" in record.splits else next(iter(record.splits))


def asked(variant: Variant, split: str, typed: str) -> Asked | None:
    """The samples that a typed key, beginning of a key, or number means; None where it is none of these.

    ``train-00000012`` means the ten keys that begin so; ``12`` alone is a number, that of one key in ``split``.
    """
    splits = variant.record.splits
    match = TYPED.fullmatch(typed.strip())
    if match is None:
        return _beginning(splits, typed.strip())
    name, digits = match[1] or split, match[2]
    entry = splits.get(name)
    if entry is None or (not match[1] and not digits):
        return _beginning(splits, typed.strip())
    unknown = DIGITS - len(digits) if match[1] else 0
    low = int(digits or 0) * 10**unknown
    return Asked(name, _row(entry, low), _row(entry, low + 10**unknown))


async def cards(engine: Engine, variant: Variant, split: str, rows: Sequence[int]) -> list[Card]:
    """Raises as `Engine.piece`."""
    entry = variant.record.splits[split]
    blob = _locate(variant, entry)
    runs = [(first, len(list(run))) for first, run in _runs(rows)]
    read = [await _rows(engine, blob, entry.samples, first, count) for first, count in runs]
    places = np.concatenate(read) if read else np.zeros(0, LOCATE)
    return [_card(split, entry, row, place) for row, place in zip(rows, places, strict=True)]


def row_of(variant: Variant, key: str) -> tuple[str, int] | None:
    """Split and row of a whole key."""
    if re.fullmatch(rf"{SPLIT.pattern}-[0-9]{{{DIGITS}}}", key) is None:
        return None
    found = asked(variant, "", key)
    return (found.split, found.first) if found is not None and found.one else None


def _beginning(splits: dict[str, SplitEntry], typed: str) -> Asked | None:
    """``tra``: all of the first split that is called so."""
    found = next((name for name in splits if typed and name.startswith(typed)), None)
    return Asked(found, 0, splits[found].samples) if found else None


def _row(entry: SplitEntry, number: int) -> int:
    """How many samples have keys below a number."""
    return min(number - bisect_left(entry.gaps, number), entry.samples)


def _runs(rows: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Neighbouring rows together: they are read at once."""
    found: list[tuple[int, list[int]]] = []
    for row in rows:
        if found and found[-1][1][-1] == row - 1:
            found[-1][1].append(row)
        else:
            found.append((row, [row]))
    return found


def _card(split: str, entry: SplitEntry, row: int, place: NDArray[np.void]) -> Card:
    shard = int(place["shard"])
    if shard >= len(entry.shards):
        raise RecordInvalid(entry.locate, f"row {row} is in shard {shard}, of {len(entry.shards)}")
    numbers = {name: int(place[name]) for name in ("label", "width", "height", "offset", "size")}
    return Card(row=row, key=key_of(split, entry.number(row)), shard=entry.shards[shard].path, **numbers)


def _locate(variant: Variant, entry: SplitEntry) -> Blob:
    blob = variant.blobs.get(entry.locate)
    if blob is None or blob.size < entry.samples * LOCATE.itemsize:
        raise RecordInvalid(entry.locate, f"{variant.ref} has not a row for each of {entry.samples} samples")
    return blob


async def _rows(engine: Engine, blob: Blob, samples: int, first: int, count: int) -> NDArray[np.void]:
    """Rows of a locate file, which stand at its end behind the header of NumPy's format."""
    start = blob.size - (samples - first) * LOCATE.itemsize
    return np.frombuffer(await engine.read(blob, start, start + count * LOCATE.itemsize), LOCATE)
