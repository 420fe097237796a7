"""Several splits as one: rows, shards and fields numbered through, for a loader that mixes them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from datahub.core.errors import BadArgument
from datahub.core.refs import Ref
from datahub.store.dataset import Dataset, Split
from datahub.store.locate import LOCATE
from datahub.store.record import FieldSpec, SplitEntry, Stats

if TYPE_CHECKING:
    import pyarrow as pa

Int = NDArray[np.int64]


class JoinedRows:
    """The locate rows of several splits, by row number through all; nothing is copied but what is asked for."""

    dtype = LOCATE

    def __init__(self, parts: Sequence[NDArray[Any]], bases: Int, shards: Int) -> None:
        self._parts, self._bases, self._shards = list(parts), bases, shards

    def __len__(self) -> int:
        return int(self._bases[-1])

    def __getitem__(self, wanted: Any) -> NDArray[Any]:
        """Rows by number, numbers or slice; or, by a field's name, that column whole."""
        if isinstance(wanted, str):
            columns = [part[wanted] for part in self._parts]
            if wanted == "shard":
                columns = [column + base for column, base in zip(columns, self._shards, strict=False)]
            return np.concatenate(columns)
        if isinstance(wanted, slice):
            wanted = np.arange(*wanted.indices(len(self)))
        index = np.asarray(wanted, np.int64)
        found = np.empty(index.shape, LOCATE)
        part = np.searchsorted(self._bases, index, "right") - 1
        for number in np.unique(part).tolist():
            here = part == number
            rows = self._parts[number][index[here] - self._bases[number]].copy()
            rows["shard"] += np.uint32(self._shards[number])
            found[here] = rows
        return found[()]


class JoinedSplit(Split):
    """Splits side by side. Row ``bases[m] + i`` is row i of member m. ``weights`` are for its pixel statistics."""

    def __init__(self, members: Sequence[Split], weights: Sequence[float], *, same_labels: bool) -> None:
        self.members = tuple(members)
        fields = common_fields(members, same_labels=same_labels)
        entry = _entry(members, weights, same_labels)
        first = members[0].dataset
        record = msgspec.structs.replace(
            first.record,
            fields=fields,
            splits={members[0].name: entry},
            classes=first.classes if same_labels else [],
            words=first.words if same_labels else [],
        )
        super().__init__(Dataset(Ref("mix"), first.path, record), members[0].name, entry)
        self.bases: Int = np.cumsum([0, *(len(each) for each in members)])

    def places(self, index: Int) -> tuple[Int, Int]:
        """Rows -> (member, row in its split)."""
        member = np.searchsorted(self.bases, index, "right") - 1
        return member, index - self.bases[member]

    @cached_property
    def locate(self) -> Any:
        shards = np.cumsum([0, *(len(each.shards) for each in self.members)])
        return JoinedRows([each.locate for each in self.members], self.bases, shards)

    @cached_property
    def shards(self) -> tuple[Path, ...]:
        return tuple(path for each in self.members for path in each.shards)

    def _own(self, index: int) -> tuple[Split, int]:
        member, row = self.places(np.array([index]))
        return self.members[int(member[0])], int(row[0])

    def key(self, index: int) -> str:
        split, row = self._own(index)
        return split.key(row)

    def read(self, index: int) -> bytes:
        split, row = self._own(index)
        return split.read(row)

    def member(self, index: int, stem: str) -> bytes:
        split, row = self._own(index)
        return split.member(row, stem)

    def row(self, index: int) -> dict[str, Any]:
        split, row = self._own(index)
        return split.row(row)

    def table(self, columns: list[str] | None = None, where: Any = None) -> pa.Table:
        import pyarrow as pa

        return pa.concat_tables([each.table(columns, where) for each in self.members], promote_options="default")

    def close(self) -> None:
        for each in self.members:
            each.close()

    def __repr__(self) -> str:
        return f"JoinedSplit({', '.join(map(repr, self.members))})"

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "members": self.members, "bases": self.bases}


def common_fields(members: Sequence[Split], *, same_labels: bool) -> dict[str, FieldSpec]:
    """The fields that all members have with one type. Raises `BadArgument` where labels do not mean the same.

    Images keep their shape where all have it. Without ``same_labels`` there is a label if any member has one.
    """
    every = [each.dataset.record.fields for each in members]
    if same_labels:
        _check_labels(members)
    found = {}
    for name, spec in every[0].items():
        others = [fields[name] for fields in every if name in fields]
        if len(others) == len(every) and all((each.type, each.format) == (spec.type, spec.format) for each in others):
            alike = all(each.shape == spec.shape for each in others)
            found[name] = spec if alike else msgspec.structs.replace(spec, shape=None)
    labels = [fields["label"] for fields in every if "label" in fields]
    return {**found, "label": labels[0]} if labels and not same_labels else found


def _check_labels(members: Sequence[Split]) -> None:
    first = members[0].dataset
    hint = 'pass labels="own" to keep the numbers of each, or pack them with one list of classes'
    for each in members[1:]:
        one, other = ("label" in dataset.record.fields for dataset in (first, each.dataset))
        if one != other:
            having, lacking = (first, each.dataset) if one else (each.dataset, first)
            raise BadArgument("mix", str(each.dataset.ref), f"{having.ref} has labels, {lacking.ref} has none", hint)
        if first.classes != each.dataset.classes:
            differ = _difference(first.classes, each.dataset.classes)
            reason = f"its classes are not those of {first.ref}: {differ}"
            raise BadArgument("mix", str(each.dataset.ref), reason, hint)


def _difference(one: Sequence[str], other: Sequence[str]) -> str:
    for label, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return f"class {label} is {b!r} against {a!r}"
    return f"there are {len(other)} against {len(one)}"


def _entry(members: Sequence[Split], weights: Sequence[float], same_labels: bool) -> SplitEntry:
    first = members[0].entry
    return SplitEntry(
        samples=sum(len(each) for each in members),
        shards=[shard for each in members for shard in each.entry.shards],
        block=first.block,
        locate=first.locate,
        index=first.index,
        fingerprint=joined_fingerprint(each.fingerprint for each in members),
        histogram=_histogram(members) if same_labels else [],
        stats=_stats(members, weights),
        permuted=all(each.entry.permuted for each in members),
    )


def joined_fingerprint(fingerprints: Any) -> str:
    return "sha256:" + hashlib.sha256(" ".join(fingerprints).encode()).hexdigest()


def _histogram(members: Sequence[Split]) -> list[int]:
    counts = [each.entry.histogram for each in members]
    return [sum(column) for column in zip(*counts, strict=True)] if len({len(each) for each in counts}) == 1 else []


def _stats(members: Sequence[Split], weights: Sequence[float]) -> Stats | None:
    """Mean and deviation of the mixture's pixels: of each member's ``train`` where it has one, as for one dataset."""
    found = []
    for each in members:
        splits = each.dataset.record.splits
        found.append(splits["train" if "train" in splits else each.name].stats)
    stats = [each for each in found if each is not None]
    if len(stats) < len(found) or len({len(each.mean) for each in stats}) != 1:
        return None
    share = np.array(weights, np.float64)[:, None] / sum(weights)
    means, deviations = np.array([each.mean for each in stats]), np.array([each.std for each in stats])
    mean = (share * means).sum(0)
    variance = (share * (deviations**2 + means**2)).sum(0) - mean**2
    std = np.sqrt(np.maximum(variance, 0))
    images, full = sum(each.images for each in stats), all(each.full for each in stats)
    return Stats(mean=mean.tolist(), std=std.tolist(), images=images, full=full)
