from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahub.order import Permutation
from datahub.order.permutation import LARGEST, PIECE, derive

GOLDEN = [
    (1, ("a",), [0], [0]),
    (10, ("pack", "train"), [0, 1, 2, 3, 5, 6, 7, 9], [4, 9, 7, 8, 6, 2, 1, 3]),
    (4096, (7,), [0, 585, 1170, 1755, 2340, 2925, 3510, 4095], [2350, 3199, 3666, 825, 4044, 51, 2002, 156]),
    (
        4097,
        (0, 0, "block"),
        [0, 585, 1170, 1755, 2340, 2925, 3510, 4096],
        [137, 938, 1802, 2304, 3987, 2352, 4093, 2884],
    ),
    (
        60000,
        (0, 3, "window", 0, 0),
        [0, 8571, 17142, 25713, 34285, 42856, 51427, 59999],
        [33490, 11770, 55107, 46180, 1704, 28017, 40743, 19416],
    ),
    (
        10**9,
        ("x", -1),
        [0, 142857142, 285714285, 428571428, 571428570, 714285713, 857142856, 999999999],
        [868913760, 527291552, 153854413, 819528554, 825311987, 208039260, 59438124, 805072538],
    ),
    (
        LARGEST,
        ("x",),
        [0, 1, LARGEST // 2, LARGEST - 1],
        [846893505196188938, 170384124606328332, 4388372047024592664, 4324798494141121131],
    ),
]


@pytest.mark.parametrize(("n", "key", "positions", "images"), GOLDEN)
def test_frozen_for_ever(n, key, positions, images):
    """Shards are packed and runs resumed by these numbers: they may never change."""
    permutation = Permutation(n, *key)
    assert permutation(positions).tolist() == images
    assert permutation.inverse(images).tolist() == positions


def test_frozen_keys():
    assert derive("a", 1) == 14377608494689056170
    assert derive("a", "1") == 7620334450534311040
    assert derive() == 13020603013274838756


@given(n=st.integers(1, 5000), key=st.lists(st.integers() | st.text(max_size=5), max_size=3))
def test_is_a_bijection_with_its_inverse(n, key):
    permutation = Permutation(n, *key)
    images = permutation(np.arange(n))
    assert np.array_equal(np.sort(images), np.arange(n))
    assert np.array_equal(permutation.inverse(images), np.arange(n))


@settings(max_examples=30)
@given(n=st.integers(1, LARGEST), data=st.data())
def test_inverse_at_any_size(n, data):
    positions = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20))
    permutation = Permutation(n, "k")
    images = permutation(positions)
    assert images.min() >= 0 and images.max() < n
    assert permutation.inverse(images).tolist() == positions


def test_one_position_is_as_good_as_all():
    permutation = Permutation(3 * PIECE + 5, 1)
    whole = permutation(np.arange(permutation.n))
    assert [int(permutation(i)) for i in (0, PIECE, permutation.n - 1)] == whole[[0, PIECE, -1]].tolist()
    assert permutation(np.arange(6).reshape(2, 3)).tolist() == whole[:6].reshape(2, 3).tolist()
    assert permutation([]).shape == (0,)


def test_key_parts_do_not_run_together():
    keys = [derive(1, 23), derive(12, 3), derive("1", "23"), derive("1i1:2", 3), derive("1", 23), derive(1, 2, 3)]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("n", [4, 5])
def test_every_order_of_few_elements_is_as_likely(n):
    trials = 4000
    seen = Counter(tuple(Permutation(n, seed)(np.arange(n)).tolist()) for seed in range(trials))
    kinds = list(itertools.permutations(range(n)))
    expected = trials / math.factorial(n)
    chi = sum((seen[kind] - expected) ** 2 / expected for kind in kinds) / (len(kinds) - 1)
    assert chi < 1.6


def test_batches_are_spread_like_uniform_draws():
    n, bins, batch = 60_000, 60, 500
    images = Permutation(n, 0, 0, "window", 0, 0)(np.arange(n))
    counts = np.stack([np.bincount(row, minlength=bins) for row in images.reshape(-1, batch) * bins // n])
    expected = batch / bins
    chi = ((counts - expected) ** 2 / expected).sum(1).mean() / (bins - 1)
    assert 0.9 < chi < 1.1
    assert abs(np.corrcoef(images[:-1], images[1:])[0, 1]) < 0.02
    other = Permutation(n, 0, 1, "window", 0, 0)(np.arange(n))
    assert abs(np.corrcoef(images, other)[0, 1]) < 0.02


@pytest.mark.parametrize("bad", [[-1], [10], [3, 99]])
def test_positions_outside_are_refused(bad):
    with pytest.raises(IndexError, match=r"\[0, 10\)"):
        Permutation(10, 1)(bad)


def test_sizes_outside_are_refused():
    with pytest.raises(ValueError, match="not in"):
        Permutation(-1)
    with pytest.raises(ValueError, match="not in"):
        Permutation(LARGEST + 1)
