"""Rank and select, and bijections of many ranges at once, against slow ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahub.order import keyhash
from datahub.order.bitmap import Bitmap
from datahub.order.varied import keys, mixed, permute_each


@settings(max_examples=60, deadline=None)
@given(samples=st.integers(0, 3000), share=st.sampled_from([0, 0.01, 0.5, 0.99, 1]), seed=st.integers(0, 99))
def test_a_bitmap_ranks_and_selects(samples, share, seed):
    kept = np.random.default_rng(seed).random(samples) < share
    bitmap = Bitmap(kept)
    rows = np.flatnonzero(kept)
    assert len(bitmap) == len(rows)
    assert np.array_equal(bitmap.rows(np.arange(len(rows))), rows)
    assert bitmap.before(np.arange(samples + 1)).tolist() == [0, *np.cumsum(kept).tolist()]


def test_a_bitmap_costs_bits_and_keeps_shapes():
    bitmap = Bitmap(np.ones(1 << 20, np.bool_))
    held = sum(each.nbytes for each in vars(bitmap).values() if isinstance(each, np.ndarray))
    assert held < (1 << 20) * 0.2
    assert bitmap.rows(np.array([[3, 999_999]])).tolist() == [[3, 999_999]]


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 6000), min_size=1, max_size=5), seed=st.integers(0, 9))
def test_each_range_is_permuted_by_itself(sizes, seed):
    """Small and large ranges side by side: each is a bijection, and none hangs on what stands beside it."""
    number = np.repeat(np.arange(len(sizes)), sizes)
    place = np.concatenate([np.arange(size) for size in sizes])
    size = np.array(sizes)[number]
    found = permute_each(place, size, keys((seed, "test"), number))
    for each, count in enumerate(sizes):
        mine = found[number == each]
        assert sorted(mine.tolist()) == list(range(count))
        alone = permute_each(np.arange(count), np.full(count, count), keys((seed, "test"), np.full(count, each)))
        assert np.array_equal(mine, alone)


def test_ranges_of_any_size_stay_ranges():
    sizes = np.array([1, 2, 4096, 4097, (1 << 52) + 12345, (1 << 62) - 1, 999_983**2, 999_983**2 + 1])
    for place in (np.zeros(len(sizes), np.int64), sizes - 1, sizes // 3):
        found = permute_each(place, sizes, keys((0,), np.arange(len(sizes))))
        assert (found >= 0).all() and (found < sizes).all()


def test_orders_of_small_ranges_are_equally_likely():
    """Each of the 24 orders of 4 comes about equally often: chi-square with 23 degrees of freedom, p > 1e-6."""
    rounds = 24_000
    place, key = np.tile(np.arange(4), rounds), np.repeat(np.arange(rounds), 4)
    found = permute_each(place, np.full(len(place), 4), keys((1,), key)).reshape(-1, 4)
    counts = np.unique(found @ np.array([64, 16, 4, 1]), return_counts=True)[1]
    assert len(counts) == 24
    assert ((counts - rounds / 24) ** 2 / (rounds / 24)).sum() < 72


def test_words_are_frozen():
    """Order states hang on these."""
    assert mixed(np.array([0, 1], np.uint64)).tolist() == GOLDEN_WORDS
    assert permute_each(np.arange(6), np.full(6, 6), keys((7, "x"), np.full(6, 2))).tolist() == GOLDEN_SMALL
    large = permute_each(np.arange(3), np.full(3, 10**6), keys((7, "x"), np.full(3, 2)))
    assert large.tolist() == GOLDEN_LARGE
    assert keyhash.hashes(np.arange(2), "part", "train").tolist() == GOLDEN_KEYS


GOLDEN_WORDS = [16294208416658607535, 10451216379200822465]
GOLDEN_SMALL = [3, 2, 4, 0, 5, 1]
GOLDEN_LARGE = [469763, 303383, 132914]
GOLDEN_KEYS = [16053020031355499003, 1346087181486144796]


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 1 / 3])
def test_parts_that_meet_are_a_partition(cut):
    numbers = np.arange(20_000)
    low, high = (keyhash.within(numbers, "train", [each]) for each in ((0.0, cut), (cut, 1.0)))
    assert np.array_equal(low, ~high)
    assert abs(low.mean() - cut) < 4 * (cut * (1 - cut) / 20_000) ** 0.5
    assert not np.array_equal(low, keyhash.within(numbers, "test", [(0.0, cut)]))


@settings(max_examples=40, deadline=None)
@given(samples=st.integers(1, 500), count=st.integers(1, 600), more=st.integers(0, 100))
def test_the_first_so_many_are_nested(samples, count, more):
    numbers = np.arange(samples) * 3
    few, many = (keyhash.first(numbers, "train", each) for each in (count, count + more))
    assert len(few) == min(count, samples) and few.tolist() == sorted(set(few.tolist()))
    assert set(few.tolist()) <= set(many.tolist())
