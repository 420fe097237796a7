"""The formula against a slow one written out step by step from DESIGN.md, its properties, and golden vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahub.core.errors import BadArgument
from datahub.order import EpochOrder, OrderOptions, Permutation, cut_blocks, rank_of, share_of


@dataclass(frozen=True)
class Case:
    shards: list[int]
    block: int
    lanes: int
    window: int | str
    share: int
    seed: int
    epoch: int
    shuffle: bool
    kept: list[int] | None

    @property
    def batch(self) -> int:
        return self.share * self.lanes

    def order(self) -> EpochOrder:
        counts = None if self.kept is None else np.array(self.kept, np.int64)
        options = OrderOptions(self.window, self.lanes)
        edges = cut_blocks(self.shards, self.block)
        return EpochOrder(edges, seed=self.seed, epoch=self.epoch, options=options, shuffle=self.shuffle, counts=counts)


@st.composite
def cases(draw, filtered=True) -> Case:
    shards = draw(st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any))
    block = draw(st.integers(1, 12))
    sizes = np.diff(cut_blocks(shards, block)).tolist()
    kept = None
    if filtered and draw(st.booleans()):
        kept = [draw(st.integers(0, size)) for size in sizes]
        if not any(kept):
            kept = None
    return Case(
        shards,
        block,
        lanes=draw(st.integers(1, 5)),
        window=draw(st.sampled_from(["all", 1, 2, 3, 5])),
        share=draw(st.integers(1, 9)),
        seed=draw(st.integers(0, 5)),
        epoch=draw(st.integers(0, 5)),
        shuffle=draw(st.booleans()),
        kept=kept,
    )


def windowed(case: Case, lane: int, mine: list[tuple[int, int]]) -> list[tuple[int, int]]:
    pieces: list[list[tuple[int, int]]] = []
    for item in mine:
        if pieces and pieces[-1][-1][0] == item[0]:
            pieces[-1].append(item)
        else:
            pieces.append([item])
    count = 1 if case.window == "all" else -(-len(pieces) // case.window)
    out = []
    for number in range(count if pieces else 0):
        chosen = pieces[len(pieces) * number // count : len(pieces) * (number + 1) // count]
        inside = [item for piece in chosen for item in piece]
        places = range(len(inside))
        if case.shuffle:
            places = Permutation(len(inside), case.seed, case.epoch, "window", lane, number)(places).tolist()
        out += [inside[place] for place in places]
    return out


def by_hand(case: Case) -> list[list[tuple[int, int] | None]]:
    """Every global batch as slots holding (block, offset) or None: DESIGN.md's four steps, one sample at a time."""
    blocks = []
    for samples in case.shards:
        count = -(-samples // case.block)
        blocks += [samples * (i + 1) // count - samples * i // count for i in range(count)]
    blocks = blocks if case.kept is None else case.kept
    sigma = list(range(len(blocks)))
    if case.shuffle:
        sigma = Permutation(len(blocks), case.seed, case.epoch, "block")(sigma).tolist()
    line = [(b, i) for b in sigma for i in range(blocks[b])]
    total = len(line)
    lanes = [
        windowed(case, lane, line[lane * total // case.lanes : (lane + 1) * total // case.lanes])
        for lane in range(case.lanes)
    ]
    batches = []
    for g in range(-(-total // case.batch)):
        slots: list[tuple[int, int] | None] = []
        for lane in lanes:
            b = case.share
            m = min(max(len(lane) - g * b, 0), b)
            for o in range(b):
                valid = (o + 1) * m // b > o * m // b
                slots.append(lane[g * b + o * m // b] if valid else None)
        batches.append(slots)
    return batches


def all_slots(order: EpochOrder, batch: int, world_size: int = 1) -> list[list[tuple[int, int] | None]]:
    batches = []
    for g in range(order.steps(batch)):
        slots: list[tuple[int, int] | None] = []
        for rank in range(world_size):
            positions, valid = order.slots(batch, g * batch, *share_of(batch, rank, world_size))
            pairs = zip(*(each.tolist() for each in order.locate(positions)), strict=True)
            slots += [pair if ok else None for pair, ok in zip(pairs, valid, strict=True)]
        batches.append(slots)
    return batches


@settings(max_examples=200, deadline=None)
@given(case=cases(), data=st.data())
def test_equals_the_formula_written_out_on_any_world_size(case, data):
    order = case.order()
    expected = by_hand(case)
    assert all_slots(order, case.batch) == expected
    world_size = data.draw(st.integers(1, case.batch))
    assert all_slots(order, case.batch, world_size) == expected


@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_every_sample_exactly_once(case):
    order = case.order()
    sizes = np.diff(cut_blocks(case.shards, case.block)).tolist() if case.kept is None else case.kept
    seen = [item for slots in all_slots(order, case.batch) for item in slots if item is not None]
    assert len(seen) == len(set(seen)) == order.size
    assert set(seen) == {(b, i) for b, count in enumerate(sizes) for i in range(count)}


@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_only_the_last_batch_has_invalid_slots_and_they_are_counted(case):
    order = case.order()
    steps = order.steps(case.batch)
    counts = [int(order.slots(case.batch, g * case.batch)[1].sum()) for g in range(steps)]
    assert counts == [order.valid_in(case.batch, g * case.batch) for g in range(steps)]
    assert counts[:-1] == [case.batch] * (steps - 1)
    assert sum(counts) == order.size
    assert order.steps(case.batch, drop_last=True) == order.size // case.batch


@settings(max_examples=100, deadline=None)
@given(case=cases(filtered=False))
def test_position_is_the_inverse_of_sample(case):
    order = case.order()
    positions = np.arange(order.size)
    samples = order.sample(positions)
    assert np.array_equal(order.position(samples), positions)
    assert [int(order.sample(p)) for p in positions[:5]] == samples[:5].tolist()
    if not case.shuffle:
        assert np.array_equal(samples, positions)


@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_line_of_is_the_inverse_of_locate_under_any_filter(case):
    order = case.order()
    positions = np.arange(order.size)
    block, offset = order.locate(positions)
    assert np.array_equal(order.line_of(block, offset), positions)
    picked = positions[: order.size : 3].reshape(-1, 1)
    assert np.array_equal(order.line_of(*order.locate(picked)), picked)


@settings(max_examples=100, deadline=None)
@given(case=cases(), data=st.data())
def test_slot_of_and_rank_of_say_which_batch_slot_and_rank_hold_a_sample(case, data):
    order = case.order()
    world_size = data.draw(st.integers(1, case.batch))
    position, slot = order.slot_of(np.arange(order.size), case.batch)
    rank = rank_of(slot, case.batch, world_size)
    for step in range(order.steps(case.batch)):
        for each in range(world_size):
            first, last = share_of(case.batch, each, world_size)
            line, valid = order.slots(case.batch, step * case.batch, first, last)
            held = line[valid]
            assert (position[held] == step * case.batch).all() and (rank[held] == each).all()
            assert slot[held].tolist() == (np.arange(first, last)[valid]).tolist()


@settings(max_examples=60, deadline=None)
@given(case=cases(), cut=st.integers(0, 100), share=st.integers(1, 9))
def test_slot_of_after_a_change_of_batch_size(case, cut, share):
    order = case.order()
    start = min(cut, order.steps(case.batch, drop_last=True)) * case.batch
    other = case.lanes * share
    consumed = set()
    for position in range(0, start, case.batch):
        line, valid = order.slots(case.batch, position)
        consumed |= set(line[valid].tolist())
    rest = np.array(sorted(set(range(order.size)) - consumed), np.int64)
    found, slot = order.slot_of(rest, other, start)
    for position in range(start, order.size, other):
        line, valid = order.slots(other, position)
        here = found == position
        assert sorted(rest[here].tolist()) == sorted(line[valid].tolist())
        assert np.array_equal(line[slot[here]], rest[here]) and valid[slot[here]].all()
    if consumed:
        with pytest.raises(BadArgument, match="consumed before"):
            order.slot_of(min(consumed), other, start)


@settings(max_examples=100, deadline=None)
@given(case=cases(), data=st.data())
def test_a_node_reads_only_its_own_lanes(case, data):
    """The node count divides the lanes, ranks are numbered node by node: then lanes never cross nodes."""
    order = case.order()
    nodes = data.draw(st.sampled_from([n for n in range(1, case.lanes + 1) if case.lanes % n == 0]))
    ranks = nodes * data.draw(st.integers(1, case.batch // nodes))
    for step in range(order.steps(case.batch)):
        for rank in range(ranks):
            line, valid = order.slots(case.batch, step * case.batch, *share_of(case.batch, rank, ranks))
            node = rank // (ranks // nodes)
            lanes = case.lanes // nodes
            first, last = order.borders[node * lanes], order.borders[(node + 1) * lanes]
            assert ((line[valid] >= first) & (line[valid] < last)).all()


@pytest.mark.parametrize("call", ["locate", "sample", "position"])
@pytest.mark.parametrize("bad", [-1, 1233])
def test_what_is_outside_the_epoch_is_refused(call, bad):
    order = EpochOrder(cut_blocks([700, 33, 500], 100), seed=7, epoch=3, shuffle=False)
    with pytest.raises(IndexError, match="0, 1233"):
        getattr(order, call)([5, bad])


@pytest.mark.parametrize(("block", "offset"), [(0, 2), (1, 0), (0, -1), (2, 0), (-1, 0)])
def test_a_sample_that_the_filter_left_out_has_no_place(block, offset):
    order = EpochOrder(cut_blocks([10], 5), seed=0, epoch=0, counts=np.array([2, 0]))
    with pytest.raises(IndexError):
        order.line_of([0, block], [0, offset])


@settings(max_examples=60, deadline=None)
@given(case=cases(), cut=st.integers(0, 100), data=st.data())
def test_another_batch_size_goes_on_where_the_first_stopped(case, cut, data):
    """Positions count samples: after ``position`` of them, batches of another size hold exactly the rest."""
    order = case.order()
    done = min(cut, order.steps(case.batch, drop_last=True))
    position = done * case.batch
    seen = [item for slots in all_slots(order, case.batch)[:done] for item in slots if item is not None]
    other = case.lanes * data.draw(st.integers(1, 9))
    while position < order.size:
        positions, valid = order.slots(other, position)
        block, offset = order.locate(positions[valid])
        seen += list(zip(block.tolist(), offset.tolist(), strict=True))
        position += other
    assert len(seen) == len(set(seen)) == order.size


@settings(max_examples=50, deadline=None)
@given(shards=st.lists(st.integers(0, 3000), max_size=6), block=st.integers(1, 1000))
def test_blocks_stay_inside_shards_and_differ_by_one(shards, block):
    edges = cut_blocks(shards, block)
    assert edges[0] == 0 and edges[-1] == sum(shards)
    assert set(np.cumsum(shards).tolist()) <= set(edges.tolist())
    base = 0
    for samples in shards:
        inside = np.diff(edges[(edges >= base) & (edges <= base + samples)])
        assert len(inside) == -(-samples // block)
        assert not samples or (inside.max() <= block and inside.max() - inside.min() <= 1)
        base += samples


def test_a_window_keeps_its_samples_together():
    edges = cut_blocks([10_000] * 4, 1000)
    order = EpochOrder(edges, seed=0, epoch=0, options=OrderOptions(window=4))
    for start in range(0, 40_000, 4000):
        blocks, counts = np.unique(order.locate(np.arange(start, start + 4000))[0], return_counts=True)
        assert len(blocks) == 4 and counts.tolist() == [1000] * 4


def test_epochs_and_seeds_differ():
    edges = cut_blocks([6000], 100)
    lines = [tuple(EpochOrder(edges, seed=s, epoch=e).sample(np.arange(50)).tolist()) for s in (0, 1) for e in (0, 1)]
    assert len(set(lines)) == 4


GOLDEN_FILTERED = [(11, 0), (4, 1), (10, 7), (0, 3), (3, 2), (6, 5), (1, 2), (2, 1), (8, 8), (8, 7)]
GOLDEN_SLOTS = [[0, 36, 72, 108, 36, 72, 108, 24, 72, 108], [0, 1, 2, 3, 4, 5, 6, 11, 8, 9]]


def test_a_filtered_order_is_frozen_too():
    edges = cut_blocks([700, 33, 500], 100)
    counts = np.diff(edges) // 10 * (np.arange(13) != 7)
    order = EpochOrder(edges, seed=7, epoch=3, options=OrderOptions(2, 3), counts=counts)
    block, offset = order.locate(np.arange(0, order.size, 13))
    assert list(zip(block.tolist(), offset.tolist(), strict=True)) == GOLDEN_FILTERED
    slots = order.slot_of(order.line_of(block, offset), 12)
    assert [each.tolist() for each in slots] == GOLDEN_SLOTS


GOLDEN = {
    ("all", 1): [314, 64, 203, 362, 977, 783, 1231, 908, 306, 737, 1178, 995],
    (2, 3): [1117, 62, 40, 1027, 389, 516, 157, 603, 874, 269, 756, 827],
}


@pytest.mark.parametrize(("window", "lanes"), GOLDEN)
def test_frozen_for_ever(window, lanes):
    """Runs are resumed by these numbers: they may change only with `formula.VERSION`."""
    order = EpochOrder(cut_blocks([700, 33, 500], 100), seed=7, epoch=3, options=OrderOptions(window, lanes))
    picked = order.sample(np.arange(0, order.size, 111))
    assert picked.tolist() == GOLDEN[window, lanes]


def test_a_filtered_order_does_not_claim_samples():
    order = EpochOrder(cut_blocks([10], 5), seed=0, epoch=0, counts=np.array([2, 0]))
    assert order.size == 2
    with pytest.raises(BadArgument, match="locate"):
        order.sample([0])


@pytest.mark.parametrize("options", [{"window": 0}, {"window": "some"}, {"window": True}, {"lanes": 0}, {"lanes": 1.5}])
def test_bad_options(options):
    with pytest.raises(BadArgument):
        OrderOptions(**options)


def test_lanes_must_divide_the_batch():
    order = EpochOrder(cut_blocks([10], 5), seed=0, epoch=0, options=OrderOptions(lanes=3))
    with pytest.raises(BadArgument, match="3 lanes"):
        order.slots(10, 0)


def test_a_billion_samples_cost_blocks_not_samples():
    order = EpochOrder(cut_blocks([10_000_000] * 100, 100_000), seed=0, epoch=0)
    picked = order.sample([0, 999_999_999, 500_000_000])
    assert order.position(picked).tolist() == [0, 999_999_999, 500_000_000]
