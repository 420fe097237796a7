"""Mixtures and weighted sampling: exact shares, passes that hold every sample once, and frozen orders."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahub.core.errors import BadArgument
from datahub.order import OrderOptions, cut_blocks, shares
from datahub.order.bitmap import Bitmap
from datahub.order.mixture import Member, Mixture
from datahub.order.population import Blocks, Keyed
from datahub.order.shares import Shares, Tracks
from datahub.order.strata import Strata


def keyed(seed=0, epoch=0, shuffle=True, window="all", lanes=1, batch=None) -> Keyed:
    return Keyed(seed, epoch, shuffle, OrderOptions(window, lanes), batch or lanes)


@st.composite
def thousandths(draw) -> list[int]:
    cuts = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True))
    shift = draw(st.integers(-9, 9))
    return np.diff([0, *(100 * cut + shift for cut in sorted(cuts)), 1000]).tolist()


@st.composite
def mixtures(draw, most_lanes=4) -> tuple[Mixture, Keyed]:
    many = draw(st.integers(1, most_lanes))
    weights = draw(thousandths())
    members = []
    for number in range(len(weights)):
        shards = draw(st.lists(st.integers(5, 60), min_size=1, max_size=3))
        edges = cut_blocks(shards, draw(st.integers(1, 20)))
        kept = None
        if sum(shards) < many:
            edges = cut_blocks([many], 3)
        elif draw(st.booleans()):
            mask = np.random.default_rng(draw(st.integers(0, 99))).random(sum(shards)) < 0.6
            mask[:many] = True
            kept = Bitmap(mask)
        members.append(Member(f"m{number}", Blocks(edges, kept), f"m{number}"))
    stop = draw(st.sampled_from(["longest", "shortest", 7]))
    window = draw(st.sampled_from(["all", 1, 3]))
    key = keyed(draw(st.integers(0, 3)), draw(st.integers(0, 3)), draw(st.booleans()), window, many, 6 * many)
    return Mixture(members, weights, stop), key


def lanes_of(mixture: Mixture, key: Keyed) -> list[list[tuple[int, int]]]:
    """(member, row) at every position of each lane."""
    lanes = key.options.lanes
    size = mixture.size(key.batch, lanes)
    rows = mixture.line(key).rows(np.arange(size))
    member = np.searchsorted(mixture.bases, rows, "right") - 1
    pairs = list(zip(member.tolist(), (rows - mixture.bases[member]).tolist(), strict=True))
    return [pairs[lane * size // lanes : (lane + 1) * size // lanes] for lane in range(lanes)]


def kept_rows(member: Member) -> set[int]:
    blocks = member.blocks
    return set(blocks.kept.rows(np.arange(len(blocks.kept))).tolist()) if blocks.kept else set(range(blocks.samples))


@settings(max_examples=60, deadline=None)
@given(case=mixtures())
def test_every_row_of_a_mixture_is_told(case):
    mixture, key = case
    every = mixture.every()
    kept = [base + row for base, each in zip(mixture.bases, mixture.members, strict=False) for row in kept_rows(each)]
    assert every.tolist() == sorted(kept)
    shown = mixture.line(key).rows(np.arange(mixture.size(key.batch, key.options.lanes)))
    assert set(shown.tolist()) <= set(every.tolist())


@settings(max_examples=40, deadline=None)
@given(case=mixtures())
def test_runs_of_a_thousand_are_exact_in_every_lane(case):
    mixture, key = case
    for lane in lanes_of(mixture, key):
        for start in range(0, len(lane) - 999, 1000):
            counts = Counter(member for member, _ in lane[start : start + 1000])
            assert [counts[d] for d in range(len(mixture.members))] == list(mixture.shares.weights)
        held = mixture.shares.held(len(lane))
        counts = Counter(member for member, _ in lane)
        assert [counts[d] for d in range(len(mixture.members))] == held.tolist()


@settings(max_examples=40, deadline=None)
@given(case=mixtures(most_lanes=1))
def test_a_pass_holds_every_sample_once_and_the_end_is_exact(case):
    mixture, key = case
    (lane,) = lanes_of(mixture, key)
    counts = mixture.shares.held(len(lane))
    sizes = [each.blocks.samples for each in mixture.members]
    for d, member in enumerate(mixture.members):
        mine = [row for number, row in lane if number == d]
        for start in range(0, len(mine), sizes[d]):
            turn = mine[start : start + sizes[d]]
            assert len(turn) == len(set(turn)) and set(turn) <= kept_rows(member)
    if mixture.stop == "longest":
        assert (counts >= sizes).all() and (counts == sizes).any()
        assert not (mixture.shares.held(len(lane) - 1) >= sizes).all()
    if mixture.stop == "shortest":
        assert (counts <= sizes).all() and (mixture.shares.held(len(lane) + 1) > sizes).any()
    if mixture.stop == 7:
        assert len(lane) == 7 * key.batch


@settings(max_examples=30, deadline=None)
@given(case=mixtures())
def test_lanes_are_of_one_length_and_see_everything(case):
    mixture, key = case
    lanes = lanes_of(mixture, key)
    assert len({len(each) for each in lanes}) == 1
    for d, member in enumerate(mixture.members):
        seen = Counter(row for lane in lanes for number, row in lane if number == d)
        assert set(seen) <= kept_rows(member)
        if mixture.stop == "longest":
            assert set(seen) == kept_rows(member)
        if mixture.stop == "shortest":
            assert set(seen.values()) <= {1}


@settings(max_examples=30, deadline=None)
@given(case=mixtures(), data=st.data())
def test_any_positions_in_any_order_give_the_same(case, data):
    mixture, key = case
    size = mixture.size(key.batch, key.options.lanes)
    whole = mixture.line(key).rows(np.arange(size))
    picked = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=30)), np.int64)
    assert np.array_equal(mixture.line(key).rows(picked), whole[picked])


def test_passes_differ_and_do_not_hang_on_the_others():
    a, b = (Blocks(cut_blocks([20], 5)) for _ in range(2))
    one = Mixture([Member("a", a, "a"), Member("b", b, "b")], [500, 500], 10)
    two = Mixture([Member("b", b, "b"), Member("a", a, "a")], [250, 750], 10)
    orders = []
    for mixture, number in ((one, 0), (two, 1)):
        (lane,) = lanes_of(mixture, keyed(batch=12))
        orders.append([row for member, row in lane if member == number][:60])
    assert orders[0] == orders[1]
    first, second, third = (tuple(orders[0][start : start + 20]) for start in (0, 20, 40))
    assert len({first, second, third}) == 3 and {*first} == {*second} == {*third}


def test_a_member_smaller_than_the_lanes_is_refused():
    members = [Member(name, Blocks(cut_blocks([n], 5)), name) for name, n in (("big", 50), ("few", 3))]
    with pytest.raises(BadArgument, match="few has 3 samples"):
        Mixture(members, [500, 500], "longest").size(8, 4)
    with pytest.raises(BadArgument, match="few has 3 samples"):
        Mixture(members, [500, 500], 5).size(8, 4)


@settings(max_examples=60, deadline=None)
@given(weights=st.lists(st.integers(1, 40), min_size=1, max_size=6), data=st.data())
def test_shares_are_spread_evenly(weights, data):
    shares = Shares(tuple(weights))
    assert np.bincount(shares.spread).tolist() == weights
    for length in data.draw(st.lists(st.integers(0, 3 * shares.run), max_size=10)):
        ideal = length * np.array(weights) / shares.run
        assert np.abs(shares.held(length) - ideal).max() <= max(1, len(weights) / 2)


@settings(max_examples=60, deadline=None)
@given(weights=st.lists(st.integers(1, 9), min_size=1, max_size=5), data=st.data())
def test_lengths_are_the_least_and_the_greatest(weights, data):
    shares = Shares(tuple(weights))
    sizes = np.array([data.draw(st.integers(1, 50)) for _ in weights])
    longest, shortest = shares.longest(sizes), shares.shortest(sizes)
    assert (shares.held(longest) >= sizes).all() and not (shares.held(longest - 1) >= sizes).all()
    assert (shares.held(shortest) <= sizes).all() and (shares.held(shortest + 1) > sizes).any()


@pytest.mark.parametrize("weights", [(2, 1), (150, 150), (7_000, 3_001)])
def test_tracks_remember_a_bounded_number_of_runs(monkeypatch, weights):
    """What is asked again, alone or among others, in order or not, is what was given before."""
    monkeypatch.setattr(shares, "ROOM", 4000)
    tracks = Tracks(Shares(weights), 50_000, 0)
    whole = tracks.entries(np.arange(100_000) // 50_000, np.arange(100_000) % 50_000)
    for start in range(0, 50_000, 997):
        here = np.random.default_rng(start).integers(0, 50_000, 50)
        for track in (0, 1):
            found = tracks.entries(np.full(50, track), here)
            assert [each.tolist() for each in found] == [each[track * 50_000 + here].tolist() for each in whole]
        assert len(tracks._kept) <= max(50, 4000 // sum(weights))


@st.composite
def sampled(draw) -> tuple[Strata, Keyed, np.ndarray, list[int]]:
    classes = draw(st.integers(1, 6))
    extra = draw(st.lists(st.integers(-1, classes - 1), max_size=80))
    labels = np.array([*range(classes), *extra])
    np.random.default_rng(draw(st.integers(0, 9))).shuffle(labels)
    weights = [draw(st.integers(1, 5)) for _ in range(classes)]
    lanes = draw(st.integers(1, 4))
    stop = draw(st.sampled_from(["size", "longest", "shortest", 5]))
    key = keyed(draw(st.integers(0, 3)), draw(st.integers(0, 3)), draw(st.booleans()), lanes=lanes, batch=3 * lanes)
    return Strata(labels, weights, stop), key, labels, weights


@settings(max_examples=150, deadline=None)
@given(case=sampled())
def test_strata_are_exact_and_walked_pass_after_pass(case):
    strata, key, labels, weights = case
    size = strata.size(key.batch, key.options.lanes)
    rows = strata.line(key).rows(np.arange(size))
    drawn = labels[rows]
    assert strata.every().tolist() == np.flatnonzero(labels >= 0).tolist()
    assert size == {"size": int((labels >= 0).sum()), 5: 5 * key.batch}.get(strata.stop, size)
    for start in range(0, size - sum(weights) + 1, sum(weights)):
        assert np.bincount(drawn[start : start + sum(weights)], minlength=len(weights)).tolist() == weights
    for label in range(len(weights)):
        mine, count = rows[drawn == label].tolist(), int((labels == label).sum())
        seen = Counter(mine)
        assert max(seen.values(), default=0) <= -(-len(mine) // count)
        assert len(seen) == min(count, len(mine))
        if strata.stop == "longest":
            assert len(seen) == count
        if strata.stop == "shortest":
            assert len(mine) <= count


def test_classes_of_a_run_come_in_another_order_each_time():
    strata = Strata(np.arange(200) % 20, [1] * 20, "size")
    drawn = strata.line(keyed()).rows(np.arange(200)) % 20
    assert len({tuple(each) for each in drawn.reshape(10, 20).tolist()}) == 10
    again = strata.line(keyed(epoch=1)).rows(np.arange(200)) % 20
    assert not np.array_equal(drawn, again)


def test_strata_need_all_for_a_window():
    with pytest.raises(BadArgument, match='window="all"'):
        Strata(np.zeros(3, np.int64), [1], "size").line(keyed(window=2))


def test_frozen_for_ever():
    """Runs are resumed by these numbers: they may change only with `formula.VERSION`."""
    members = [Member(name, Blocks(cut_blocks([n, 40], 10)), name) for name, n in (("a", 70), ("b", 33))]
    mixture = Mixture(members, [700, 300], "longest")
    for (window, lanes), golden in GOLDEN.items():
        key = keyed(7, 3, window=window, lanes=lanes, batch=12)
        assert mixture.size(12, lanes) == golden[0]
        assert mixture.line(key).rows(np.arange(0, golden[0], 17)).tolist() == golden[1:]
    line = Strata(np.arange(60) * 7 % 13 % 5, [3, 2, 1, 4, 1], "size").line(keyed(7, 3))
    assert line.rows(np.arange(0, 60, 5)).tolist() == GOLDEN_STRATA


GOLDEN: dict = {
    ("all", 1): [242, 103, 6, 78, 12, 3, 180, 114, 58, 37, 10, 28, 41, 67, 51, 53],
    (2, 3): [246, 64, 28, 41, 42, 77, 46, 5, 100, 58, 28, 99, 177, 140, 17, 67],
}
GOLDEN_STRATA: list = [42, 2, 29, 0, 55, 45, 25, 7, 48, 46, 59, 38]
