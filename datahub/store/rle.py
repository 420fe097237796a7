"""COCO's run-length encoding of masks, as pycocotools reads and writes it: ``{"size": [h, w], "counts": "..."}``.

A mask's pixels run down its columns. ``counts`` are the lengths of runs of 0 and 1 in turn, the first of 0. From the
fourth on each is written as what it differs from the one two before it, in groups of five bits, least first; a group
is a character from ``0`` on, bit 5 says that more follow, and bit 4 of the last is the sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Masks = NDArray[np.uint8]

FIRST, MORE, SIGN, BITS = 48, 32, 16, 5
LONGEST = 7
"""Characters of a count: 35 bits hold every length an image can have, and its negative."""
CAP = 1 << 30
"""Pixels of all masks of an image above which they are taken for a mistake, before memory is taken for them."""


def encode(masks: NDArray[Any]) -> list[dict[str, Any]]:
    """The runs of masks ``(N, H, W)``, where every value but 0 is 1."""
    size = [int(masks.shape[1]), int(masks.shape[2])]
    return [{"size": size, "counts": _text(runs(mask))} for mask in masks]


def decode(found: Sequence[Any], size: tuple[int, int], first: int = 0) -> Masks:
    """uint8 ``(N, H, W)`` of 0 and 1. Raises ``ValueError`` unless every mask is one of this height and width.

    ``first``: the number of the first, where ``found`` are some of an image's.
    """
    height, width = size
    if len(found) * height * width > CAP:
        raise ValueError(f"{len(found)} masks of {width} x {height} pixels are more than {CAP} pixels")
    columns = np.empty((len(found), width, height), np.uint8)
    for row, each in enumerate(found):
        counts = counts_of(each, size, f"mask {first + row}")
        columns[row].reshape(-1)[:] = np.repeat(np.arange(len(counts), dtype=np.uint8) & 1, counts)
    return np.ascontiguousarray(columns.transpose(0, 2, 1))


def counts_of(mask: Any, size: tuple[int, int], name: str) -> Ints:
    """The runs of one mask, which may be written as text or as a list. Raises ``ValueError``."""
    if not isinstance(mask, dict) or set(mask) < {"size", "counts"}:
        raise ValueError(f'{name} is no run-length encoding {{"size": [height, width], "counts": ...}}')
    if list(mask["size"]) != list(size):
        raise ValueError(f"{name} is {_shown(mask['size'])}, the image {_shown(size)} (height x width)")
    counts = mask["counts"]
    try:
        found = _counts(counts) if isinstance(counts, str | bytes) else np.array(counts, np.int64).reshape(-1)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"the counts of {name} cannot be read") from None
    total = size[0] * size[1]
    if (found < 0).any() or (found > total).any() or int(found.sum()) != total:
        raise ValueError(f"the counts of {name} do not add up to its {total} pixels")
    return found


def runs(mask: NDArray[Any]) -> Ints:
    """The lengths of runs down the columns of a mask ``(H, W)``."""
    flat = (np.asarray(mask).T != 0).reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], edges, [flat.size]])) if flat.size else np.zeros(1, np.int64)
    return np.concatenate([[0], lengths]) if flat.size and flat[0] else lengths


def text_of(mask: Any, size: tuple[int, int], name: str) -> dict[str, Any]:
    """The one written form of an encoded mask. Raises ``ValueError``."""
    return {"size": [int(side) for side in size], "counts": _text(counts_of(mask, size, name))}


def _shown(size: Any) -> str:
    return " x ".join(map(str, size)) if isinstance(size, list | tuple) else repr(size)


def _counts(text: str | bytes) -> Ints:
    data = text.encode("ascii") if isinstance(text, str) else text
    groups = np.frombuffer(data, np.uint8).astype(np.int64) - FIRST
    if not len(groups):
        return np.zeros(0, np.int64)
    last = (groups & MORE) == 0
    if (groups < 0).any() or (groups >= 2 * MORE).any() or not last[-1]:
        raise ValueError
    starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    place = np.arange(len(groups)) - np.repeat(starts, np.diff([*starts, len(groups)]))
    if int(place.max()) >= LONGEST:
        raise ValueError
    found = np.add.reduceat((groups & (MORE - 1)) << (BITS * place), starts)
    negative = (groups[last] & SIGN) != 0
    found -= negative.astype(np.int64) << (BITS * (place[last] + 1))
    found[1::2] = np.cumsum(found[1::2])
    found[2::2] = np.cumsum(found[2::2])
    return found


def _text(counts: Ints) -> str:
    left = counts.astype(np.int64)
    left[3:] -= counts[1:-2]
    out = np.full((len(left), LONGEST), -1, np.int64)
    going = np.ones(len(left), np.bool_)
    for place in range(LONGEST):
        group = left & (MORE - 1)
        left >>= BITS
        more = going & ~np.where(group & SIGN, left == -1, left == 0)
        out[going, place] = (group | np.where(more, MORE, 0))[going] + FIRST
        going = more
    return out[out >= 0].astype(np.uint8).tobytes().decode("ascii")
