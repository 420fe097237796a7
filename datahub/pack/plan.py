"""What packing will do, decided before the first byte: shards, their samples, the disk and the time needed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from datahub.core.errors import BadArgument, DiskFull, LayoutError, RecordInvalid
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.core.sizes import format_bytes
from datahub.order.permutation import Permutation
from datahub.pack import tar
from datahub.pack.ground import Bucket, Folder, Ground
from datahub.pack.recipes import Recipe, named
from datahub.pack.recipes.published import Published
from datahub.pack.source import Source
from datahub.pack.stored import Stored
from datahub.registry.schema import Manifest
from datahub.store import record
from datahub.store.paths import building_dir, variant_dir
from datahub.store.record import FieldSpec

FORMAT = 1
"""Raised when the same input would give other bytes: part of every plan's digest."""
SHARD_BYTES = 256_000_000
MIN_SHARDS = 8
BLOCK = 1000
"""B of the order formula."""
LABEL_BYTES = 4
PUBLISHED = Published()
POLICIES = ("keep", "quarantine", "refuse")
"""What becomes of damaged images: packed as they are and counted, left out and counted, or an error."""


@dataclass(frozen=True, slots=True)
class ShardPlan:
    split: str
    number: int
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class PackPlan:
    """``digest`` covers everything that decides the bytes, and nothing else (not jobs, not folders)."""

    ref: Ref
    manifest: Manifest
    variant: str
    splits: dict[str, int]
    classes: list[str]
    words: list[str]
    fields: dict[str, FieldSpec]
    shards: tuple[ShardPlan, ...]
    recipe: Recipe
    damaged: str
    options: dict[str, Any]
    shuffle: bool
    """Whether packing applies the keyed permutation; not where the source is in packed order, or keeps its own."""
    permuted: bool
    bytes: int
    """Estimated size of the packed variant, which is also the peak of extra disk."""
    free: int
    datasets: Path
    digest: str
    to: str | None
    """The variant's own folder at a URL that shards are written straight to; None: the store."""
    notes: tuple[str, ...] = ()
    """What was understood of the source."""

    @property
    def building(self) -> Path:
        return building_dir(self.datasets, self.digest)

    @property
    def ground(self) -> Ground:
        if self.to is None:
            return Folder(self.building)
        return Bucket(self.to, f".building-{self.digest.removeprefix('sha256:')[:16]}")

    def lines(self, jobs: int = 1) -> list[str]:
        """The plan for people."""
        samples = ", ".join(f"{name} {count:,}" for name, count in self.splits.items())
        order = "keyed permutation of the source" if self.permuted else "as in the source"
        where = f"straight to {self.to}" if self.to else f"{format_bytes(self.free)} free"
        seconds = named.seconds(self.recipe, sum(self.splits.values()), jobs)
        return [
            *self.notes,
            f"pack {samples} into {len(self.shards)} shards, about {format_bytes(self.bytes)} ({where}), "
            f"{_time(seconds)} with {jobs} process{'es' if jobs > 1 else ''}",
            f"images: {self.recipe.name}; damaged ones: {self.damaged}",
            f"order: {order}; plan {self.digest[:19]}",
        ]

    def to_dict(self) -> dict[str, Any]:
        return {
            "ref": str(self.ref),
            "splits": self.splits,
            "classes": self.classes,
            "shards": [asdict(each) for each in self.shards],
            "bytes": self.bytes,
            "free": self.free,
            "to": self.to,
            "options": self.options,
            "notes": list(self.notes),
            "digest": self.digest,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a person may choose about the bytes."""

    shard_bytes: int = SHARD_BYTES
    stats: str = "sample"
    """Mean and std from at most 10,000 images (``sample``), all (``full``) or ``none``."""
    damaged: str = "keep"
    recipe: Recipe = PUBLISHED


def plan(
    source: Source,
    *,
    manifest: Manifest,
    variant: str,
    base: str | None = None,
    settings: Settings,
    choices: Choices | None = None,
    inputs: Sequence[str] = (),
    to: str | None = None,
    **chosen: Any,
) -> PackPlan:
    """Decide shards and digest; ``chosen`` are fields of `Choices`.

    ``base``: the manifest's variant that ``variant`` is a recipe of. ``to``: a URL to write to in place of the store.

    Raises `LayoutError` where the files disagree with the manifest, `BadArgument`, and `DiskFull`.
    """
    choices = replace(choices or Choices(), **chosen)
    if choices.damaged not in POLICIES:
        raise BadArgument("damaged", choices.damaged, "is not a policy", f"known: {', '.join(POLICIES)}")
    base = base or variant
    splits = dict(source.splits())
    _check_counts(manifest, base, splits, source)
    shuffle = source.random_access
    options = _options(source, choices, inputs)
    shards, total = _cut(source, splits, choices)
    digest = _digest(manifest, variant, options, splits)
    free = _free(settings.home)
    ref = Ref(manifest.name, manifest.version, variant)
    if to is None and free < (left := total - _written(settings.datasets, ref, digest, total)):
        raise DiskFull(str(settings.home), left, free)
    return PackPlan(
        ref=ref,
        manifest=manifest,
        variant=variant,
        splits=splits,
        classes=manifest.classes_of(base) or source.classes() or [],
        words=manifest.words_of(base) or list(getattr(source, "words", list)()),
        fields=_fields(source, choices.recipe),
        shards=shards,
        recipe=choices.recipe,
        damaged=choices.damaged,
        options=options,
        shuffle=shuffle,
        permuted=source.permuted if isinstance(source, Stored) else shuffle,
        bytes=total,
        free=free,
        datasets=settings.datasets,
        digest=digest,
        to=f"{to.rstrip('/')}/{ref.name}/{ref.version}/{ref.variant}" if to else None,
        notes=tuple(getattr(source, "notes", list)()),
    )


def _options(source: Source, choices: Choices, inputs: Sequence[str]) -> dict[str, Any]:
    """What the record says of how it was packed: with the manifest, all that decides the bytes."""
    return {
        "shard_bytes": choices.shard_bytes,
        "stats": choices.stats,
        "block": BLOCK,
        "damaged": choices.damaged,
        "recipe": {"name": choices.recipe.name, **choices.recipe.facts()},
        "source": json.loads(json.dumps(source.facts(), sort_keys=True, default=str)),
        "inputs": source.inputs if isinstance(source, Stored) else list(inputs),
    }


def _digest(manifest: Manifest, variant: str, options: dict[str, Any], splits: dict[str, int]) -> str:
    facts = {
        "format": FORMAT,
        "manifest": manifest.digest,
        "variant": variant,
        "options": options,
        "splits": splits,
    }
    return "sha256:" + hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _fields(source: Source, recipe: Recipe) -> dict[str, FieldSpec]:
    fields = dict(source.fields())
    extension = named.extension(recipe, fields["image"].extension)
    return {**fields, "image": FieldSpec(type="image", extension=extension)}


def _check_counts(manifest: Manifest, variant: str, found: dict[str, int], source: Source) -> None:
    if isinstance(source, Stored):  # counted when it was packed; samples may have been left out by policy
        return
    expected = manifest.splits_of(variant)
    for name, count in expected.items():
        if found.get(name) != count:
            reason = f"the files hold {found.get(name, 0)} samples, the manifest says {count}"
            raise LayoutError(manifest.name, f"split {name}", reason)


def _cut(source: Source, splits: dict[str, int], choices: Choices) -> tuple[tuple[ShardPlan, ...], int]:
    """Every split's shards, and the bytes of all of them."""
    shards: list[ShardPlan] = []
    total = 0
    others = len(source.fields()) - 1
    beside = getattr(source, "beside", None)
    for split, samples in splits.items():
        estimate = source.estimate(split)
        sizes = np.broadcast_to(named.sizes(choices.recipe, np.asarray(estimate, np.int64)), (samples,))
        extra = beside(split) if beside is not None else None
        rounded = tar.BLOCK + -(-sizes // tar.BLOCK) * tar.BLOCK
        if extra is not None:
            rounded = rounded + extra
        if source.random_access and (np.ndim(estimate) or extra is not None):
            rounded = rounded[Permutation(samples, "pack", split)(np.arange(samples))]
        ends = np.cumsum(rounded + (tar.member_bytes(LABEL_BYTES) if others else 0))
        split_bytes = int(ends[-1]) if samples else 0
        count = min(samples, max(-(-split_bytes // choices.shard_bytes), MIN_SHARDS))
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


def _written(datasets: Path, ref: Ref, digest: str, total: int) -> int:
    """Bytes of the plan that are on the disk already: all of a variant that stands, what a killed run has left."""
    try:
        standing = record.read(variant_dir(datasets, ref.name, str(ref.version), str(ref.variant)))
    except (OSError, RecordInvalid):
        standing = None
    if standing is not None and standing.plan == digest:
        return total
    return sum(each.stat().st_size for each in (building_dir(datasets, digest) / "out").glob("*.tar"))


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
