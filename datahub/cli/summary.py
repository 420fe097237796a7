"""What a packed variant's record says of its images, for people and as JSON: `datahub info`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from datahub.core.sizes import format_bytes
from datahub.store.record import Record, SplitEntry

FEW = 12
"""Classes up to which the histogram is shown whole."""


def lines(record: Record) -> Iterator[str]:
    """Statistics of every split, a few lines each."""
    for name, split in record.splits.items():
        yield from _split(record, name, split)
    for pair, count in record.shared.items():
        yield f"{' and '.join(pair.split('+'))} share {count:,} images"


def document(record: Record) -> dict[str, Any]:
    """The same for programs."""
    return {
        "shared": record.shared,
        "splits": {
            name: {
                "histogram": split.histogram,
                "mean": split.stats.mean if split.stats else None,
                "std": split.stats.std if split.stats else None,
                "stats_images": split.stats.images if split.stats else 0,
                "sizes": split.sizes,
                "formats": split.formats,
                "duplicates": split.duplicates,
                "kept": split.kept,
                "damaged": [{"key": d.key, "source": d.source, "reason": d.reason} for d in split.damaged],
                "left_out": len(split.gaps),
            }
            for name, split in record.splits.items()
        },
    }


def _split(record: Record, name: str, split: SplitEntry) -> Iterator[str]:
    formats = ", ".join(f"{count:,} {kind}" for kind, count in split.formats.items())
    yield f"{name}: {split.samples:,} images in {len(split.shards)} shards{f' ({formats})' if formats else ''}"
    if split.histogram:
        yield f"  a class: {_histogram(record.classes, split.histogram)}"
    if split.sizes:
        width, height, aspect, size = (split.sizes[key] for key in ("width", "height", "aspect", "bytes"))
        yield (
            f"  width {width[0]:.0f} to {width[4]:.0f} (median {width[2]:.0f}), "
            f"height {height[0]:.0f} to {height[4]:.0f} (median {height[2]:.0f}), "
            f"aspect {aspect[0]:.2f} to {aspect[4]:.2f} (median {aspect[2]:.2f}), "
            f"median {format_bytes(int(size[2]))}"
        )
    if split.stats:
        which = "all" if split.stats.full else f"{split.stats.images:,}"
        mean, std = (" ".join(f"{each:.4f}" for each in row) for row in (split.stats.mean, split.stats.std))
        yield f"  mean {mean}, std {std} (of {which} images)"
    if split.kept:
        yield "  kept as they are: " + ", ".join(f"{count:,} {reason}" for reason, count in split.kept.items())
    if split.damaged:
        fate = "left out" if split.gaps else "packed as they came"
        yield f"  {len(split.damaged):,} damaged images, {fate}; the first: {split.damaged[0].source}"
    if split.duplicates:
        yield f"  {split.duplicates:,} images repeat an earlier one"


def _histogram(classes: list[str], counts: list[int]) -> str:
    if len(counts) <= FEW:
        names = classes if len(classes) == len(counts) else [str(label) for label in range(len(counts))]
        return ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True))
    ordered = sorted(counts)
    return f"{ordered[0]:,} to {ordered[-1]:,} images, median {ordered[len(ordered) // 2]:,}, {len(counts):,} classes"
