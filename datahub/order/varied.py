"""Many bijections at once: each element is permuted in a range, and by a key, of its own.

The construction of `datahub.order.permutation`, element by element; round keys come from a splitmix64 sequence that
starts at the element's key (Steele, Lea and Flood 2014).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datahub.order.permutation import ROUNDS, SMALL, SMALL_ROUNDS, below, derive

Words = NDArray[np.uint64]
Int = NDArray[np.int64]

PIECE = 1 << 12
"""Elements permuted at a time: their round keys stay in the processor's cache."""

_U64 = np.uint64
_STEP = _U64(0x9E3779B97F4A7C15)
_STEPS = np.array([[i * 0x9E3779B97F4A7C15 % (1 << 64)] for i in range(SMALL_ROUNDS)], np.uint64)
_A, _B = _U64(0xBF58476D1CE4E5B9), _U64(0x94D049BB133111EB)


def mixed(words: Words) -> Words:
    """The finaliser of splitmix64: a bijection of 64-bit words in which every bit hangs on every bit."""
    z = words + _STEP
    z ^= z >> _U64(30)
    z *= _A
    z ^= z >> _U64(27)
    z *= _B
    z ^= z >> _U64(31)
    return z


def keys(start: tuple[int | str, ...], *parts: Int) -> Words:
    """A key for each element, from ints and strings that all share and from numbers of its own."""
    words: Words = np.full(len(parts[0]), derive(*start), np.uint64)
    for part in parts:
        words = mixed(words ^ mixed(part.astype(np.uint64)))
    return words


def permute_each(positions: Int, sizes: Int, key: Words, group: Int | None = None) -> Int:
    """Element i goes where the bijection of ``range(sizes[g])`` keyed by ``key[g]`` sends ``positions[i]``.

    g is ``group[i]``, or i itself: elements that share a key share the work of its rounds.
    """
    small = sizes <= SMALL
    if small.all():
        return _permuted(positions, sizes, key, group, SMALL_ROUNDS)
    if not small.any():
        return _permuted(positions, sizes, key, group, ROUNDS)
    group = np.arange(len(positions)) if group is None else group
    found = np.empty_like(positions)
    for here, rounds in ((np.flatnonzero(small[group]), SMALL_ROUNDS), (np.flatnonzero(~small[group]), ROUNDS)):
        found[here] = _permuted(positions[here], sizes, key, group[here], rounds)
    return found


def _permuted(positions: Int, sizes: Int, key: Words, group: Int | None, rounds: int) -> Int:
    n = sizes.astype(_U64)
    shared = None if group is None or len(key) * 2 > len(group) else mixed(key + _STEPS[:rounds])
    found = np.empty_like(positions)
    for start in range(0, len(positions), PIECE):
        piece = slice(start, start + PIECE)
        here = piece if group is None else group[piece]
        schedule = mixed(key[here] + _STEPS[:rounds]) if shared is None else shared[:, here]
        found[piece] = _walk(positions[piece].astype(_U64), n[here], schedule)
    return found


def _walk(x: Words, n: Words, schedule: Words) -> Words:
    rows = _rows(n)
    columns = (n + rows - _U64(1)) // rows
    found = _forward(x, rows, columns, schedule)
    outside = np.flatnonzero(found >= n)
    while outside.size:
        found[outside] = _forward(found[outside], rows[outside], columns[outside], schedule[:, outside])
        outside = outside[found[outside] >= n[outside]]
    return found


def _rows(n: Words) -> Words:
    """isqrt(n - 1) + 1, exactly: the float root may be off by one beyond 2**52."""
    root = np.sqrt((n - _U64(1)).astype(np.float64)).astype(_U64)
    root -= root * root > n - _U64(1)
    root += (root + _U64(1)) * (root + _U64(1)) <= n - _U64(1)
    return root + _U64(1)


def _forward(x: Words, a: Words, b: Words, schedule: Words) -> Words:
    """``schedule`` ``(rounds, n)``. A sum of two numbers below b is brought below b: where it is, less b wraps high."""
    left = x // b
    right = x - left * b
    for i, key in enumerate(schedule):
        if i & 1:
            right += below(b, left, key)  # type: ignore[arg-type]
            np.minimum(right, right - b, out=right)
        else:
            left += below(a, right, key)  # type: ignore[arg-type]
            np.minimum(left, left - a, out=left)
    return left * b + right
