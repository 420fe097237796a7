"""Keyed bijections of index ranges: O(1) memory, vectorised, invertible, frozen by golden vectors.

A generalised Feistel network over a rectangle a x b >= n with a, b near sqrt(n) (Black and Rogaway 2002, "Ciphers with
arbitrary finite domains"), its round function an integer hash written here, with cycle walking for the cells beyond n.
The cells beyond n are fewer than a, so that nearly every index needs one pass.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROUNDS = 6
SMALL, SMALL_ROUNDS = 4096, 16
"""Ranges up to SMALL take more rounds: so few hash values a round would leave some of their orders rare."""
LARGEST = 1 << 62
"""Largest range: a and b must stay below 2**32, so that products of two half words fit."""
PIECE = 1 << 14
"""Indices permuted at a time: the working arrays stay in the processor's cache."""

_U64 = np.uint64
_Words = NDArray[np.uint64]
_HALF = _U64(32)
_FIRST, _SECOND = _U64(0xD6E8FEB86659FD93), _U64(0xA0761D6478BD642F)


def derive(*key: int | str) -> int:
    """A 64-bit key from ints and strings; equal parts give equal keys, and no two lists of parts share an encoding."""
    text = "".join(f"{'s' if isinstance(part, str) else 'i'}{len(str(part))}:{part}" for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def hashed(x: _Words, key: _U64) -> _Words:
    """A keyed 64-bit hash of each element; its high half is the better mixed one. All arithmetic is modulo 2**64."""
    h = x ^ key
    h *= _FIRST
    h ^= h >> _HALF
    h *= _SECOND
    return h


def below(bound: _U64, x: _Words, key: _U64) -> _Words:
    """A keyed hash of each element, scaled into ``[0, bound)``; ``bound`` < 2**32."""
    h = hashed(x, key)
    h >>= _HALF
    h *= bound
    h >>= _HALF
    return h


class Permutation:
    """A bijection of ``range(n)`` decided by ``key``: ints and strings."""

    def __init__(self, n: int, *key: int | str) -> None:
        if not 0 <= n <= LARGEST:
            raise ValueError(f"n={n} is not in [0, 2**62]")
        self.n = n
        rows = max(1, math.isqrt(max(n - 1, 0)) + 1)
        self._a = _U64(rows)
        self._b = _U64(max(1, -(-n // rows)))
        self._keys = [_U64(derive(*key, "round", i)) for i in range(SMALL_ROUNDS if n <= SMALL else ROUNDS)]

    def __call__(self, positions: ArrayLike) -> NDArray[np.int64]:
        """Where each position goes; int64, of the shape given. Raises ``IndexError`` outside ``range(n)``."""
        return self._walk(positions, self._forward)

    def inverse(self, images: ArrayLike) -> NDArray[np.int64]:
        """The positions that go to ``images``."""
        return self._walk(images, self._backward)

    def _walk(self, values: ArrayLike, step: Callable[[_Words], _Words]) -> NDArray[np.int64]:
        given = np.asarray(values)
        if given.size and (int(given.min()) < 0 or int(given.max()) >= self.n):
            raise IndexError(f"positions must lie in [0, {self.n})")
        flat = given.ravel().astype(_U64)
        size = _U64(self.n)
        for start in range(0, len(flat), PIECE):
            piece = step(flat[start : start + PIECE])
            outside = np.flatnonzero(piece >= size)
            while outside.size:
                piece[outside] = step(piece[outside])
                outside = outside[piece[outside] >= size]
            flat[start : start + PIECE] = piece
        return flat.astype(np.int64).reshape(given.shape)

    def _forward(self, x: _Words) -> _Words:
        a, b = self._a, self._b
        left = x // b
        right = x - left * b
        for i, key in enumerate(self._keys):
            if i & 1:
                right += below(b, left, key)
                right -= b * (right >= b)
            else:
                left += below(a, right, key)
                left -= a * (left >= a)
        left *= b
        left += right
        return left

    def _backward(self, x: _Words) -> _Words:
        a, b = self._a, self._b
        left = x // b
        right = x - left * b
        for i, key in reversed(list(enumerate(self._keys))):
            if i & 1:
                right += b - below(b, left, key)
                right -= b * (right >= b)
            else:
                left += a - below(a, right, key)
                left -= a * (left >= a)
        left *= b
        left += right
        return left
