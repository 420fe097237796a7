"""What a packed split says of itself beside its samples: sizes, formats, duplicates."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datahub.store.arrow import numbers

QUARTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def sizes(table: pa.Table) -> dict[str, list[float]]:
    """Least, quartiles and most of width, height, aspect and bytes, of the images whose header could be read."""
    width, height = numbers(table["width"]), numbers(table["height"])
    seen = height > 0
    if not seen.any():
        return {}
    columns = {
        "width": width[seen],
        "height": height[seen],
        "aspect": width[seen] / height[seen],
        "bytes": numbers(table["image_size"])[seen],
    }
    return {name: _five(values) for name, values in columns.items()}


def _five(values: NDArray[np.generic]) -> list[float]:
    """Quantiles that are values of the column themselves, so that no rounding depends on the machine."""
    ordered = np.sort(values)
    picked = [ordered[round(q * (len(ordered) - 1))] for q in QUARTILES]
    return [round(float(each), 4) for each in picked]


def formats(table: pa.Table) -> dict[str, int]:
    counted = table["format"].combine_chunks().value_counts()
    found = zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True)
    return dict(sorted((name or "unreadable", count) for name, count in found))


def digests(table: pa.Table) -> NDArray[np.uint64]:
    """The first 64 bits of the images' SHA-256 (n,): two of a billion different images agree once in 37 such sets."""
    heads = b"".join(each[:16] for each in table["sha256"].cast(pa.binary()).to_pylist())
    return np.frombuffer(bytes.fromhex(heads.decode("ascii")), ">u8").astype(np.uint64)


def duplicates(found: NDArray[np.uint64]) -> int:
    """How many are equal to an earlier one."""
    return len(found) - len(np.unique(found))


def shared(splits: Mapping[str, NDArray[np.uint64]]) -> dict[str, int]:
    """``a+b`` -> how many different images are in both; only pairs that share any."""
    counted = {f"{a}+{b}": len(np.intersect1d(splits[a], splits[b])) for a, b in combinations(splits, 2)}
    return {pair: count for pair, count in counted.items() if count}
