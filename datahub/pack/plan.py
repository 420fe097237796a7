"""What packing will do, decided before the first byte: shards, their samples, the disk needed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from datahub.core.errors import DiskFull, LayoutError
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.core.sizes import format_bytes
from datahub.order.permutation import Permutation
from datahub.pack import tar
from datahub.pack.source import Source
from datahub.registry.schema import Manifest
from datahub.store.paths import building_dir
from datahub.store.record import FieldSpec

FORMAT = 1
"""Raised when the same input would give other bytes: part of every plan's digest."""
SHARD_BYTES = 256_000_000
MIN_SHARDS = 8
BLOCK = 1000
"""B of the order formula."""
LABEL_BYTES = 4


@dataclass(frozen=True, slots=True)
class ShardPlan:
    split: str
    number: int
    first: int
    last: int


@dataclass(frozen=True)
class PackPlan:
    """``digest`` covers everything that decides the bytes, and nothing else (not jobs, not folders)."""

    ref: Ref
    manifest: Manifest
    variant: str
    splits: dict[str, int]
    classes: list[str]
    fields: dict[str, FieldSpec]
    shards: tuple[ShardPlan, ...]
    options: dict[str, Any]
    permuted: bool
    bytes: int
    """Estimated size of the packed variant, which is also the peak of extra disk."""
    free: int
    datasets: Path
    digest: str

    @property
    def building(self) -> Path:
        return building_dir(self.datasets, self.digest)

    def lines(self) -> list[str]:
        """The plan for people."""
        samples = ", ".join(f"{name} {count:,}" for name, count in self.splits.items())
        size, free = format_bytes(self.bytes), format_bytes(self.free)
        order = "keyed permutation of the source" if self.permuted else "as in the source"
        return [
            f"pack {samples} into {len(self.shards)} shards, about {size} ({free} free)",
            f"order: {order}; plan {self.digest[:19]}",
        ]

    def to_dict(self) -> dict[str, Any]:
        return {
            "ref": str(self.ref),
            "splits": self.splits,
            "shards": [asdict(each) for each in self.shards],
            "bytes": self.bytes,
            "free": self.free,
            "options": self.options,
            "digest": self.digest,
        }


def plan(
    source: Source,
    *,
    manifest: Manifest,
    variant: str,
    settings: Settings,
    shard_bytes: int = SHARD_BYTES,
    jobs: int | None = None,  # noqa: ARG001 - part of the call everywhere, and proof that it decides nothing here
    stats: str = "sample",
    inputs: Sequence[str] = (),
) -> PackPlan:
    """Decide shards and digest. Raises `LayoutError` where the files disagree with the manifest, and `DiskFull`."""
    splits = dict(source.splits())
    _check_counts(manifest, variant, splits)
    options = {"shard_bytes": shard_bytes, "stats": stats, "block": BLOCK}
    shards, total = _cut(source, splits, shard_bytes)
    facts = {
        "format": FORMAT,
        "manifest": manifest.digest,
        "variant": variant,
        "options": options,
        "source": source.facts(),
        "inputs": list(inputs),
        "splits": splits,
    }
    digest = "sha256:" + hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
    free = _free(settings.home)
    if free < total:
        raise DiskFull(str(settings.home), total, free)
    return PackPlan(
        ref=Ref(manifest.name, manifest.version, variant),
        manifest=manifest,
        variant=variant,
        splits=splits,
        classes=manifest.classes_of(variant) or source.classes() or [],
        fields=dict(source.fields()),
        shards=shards,
        options=options,
        permuted=source.random_access,
        bytes=total,
        free=free,
        datasets=settings.datasets,
        digest=digest,
    )


def _check_counts(manifest: Manifest, variant: str, found: dict[str, int]) -> None:
    expected = manifest.splits_of(variant)
    for name, count in expected.items():
        if found.get(name) != count:
            reason = f"the files hold {found.get(name, 0)} samples, the manifest says {count}"
            raise LayoutError(manifest.name, f"split {name}", reason)


def _cut(source: Source, splits: dict[str, int], shard_bytes: int) -> tuple[tuple[ShardPlan, ...], int]:
    """Every split's shards, and the bytes of all of them."""
    shards: list[ShardPlan] = []
    total = 0
    others = len(source.fields()) - 1
    for split, samples in splits.items():
        sizes = np.broadcast_to(np.asarray(source.estimate(split), np.int64), (samples,))
        if source.random_access and np.ndim(source.estimate(split)):
            sizes = sizes[Permutation(samples, "pack", split)(np.arange(samples))]
        rounded = tar.BLOCK + -(-sizes // tar.BLOCK) * tar.BLOCK
        ends = np.cumsum(rounded + (tar.member_bytes(LABEL_BYTES) if others else 0))
        split_bytes = int(ends[-1]) if samples else 0
        count = min(samples, max(-(-split_bytes // shard_bytes), MIN_SHARDS))
        edges = _edges(ends, count) if count else [0]
        shards += [ShardPlan(split, i, edges[i], edges[i + 1]) for i in range(count)]
        total += split_bytes
    return tuple(shards), total


def _edges(ends: np.ndarray[Any, np.dtype[np.int64]], count: int) -> list[int]:
    """Cuts of about equal bytes; where that would leave an empty shard, of equal samples."""
    samples = len(ends)
    targets = ends[-1] * np.arange(1, count) // count
    edges = [0, *(np.searchsorted(ends, targets) + 1).tolist(), samples]
    if any(a >= b for a, b in pairwise(edges)):
        edges = [samples * i // count for i in range(count + 1)]
    return edges


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
