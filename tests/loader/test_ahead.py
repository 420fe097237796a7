"""Batches worked out many at a time are those that the formula gives one at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahub.loader import ahead
from datahub.loader.schedule import Plan, Schedule
from datahub.loader.topology import Topology
from datahub.order.formula import EpochOrder, OrderOptions, cut_blocks, share_of
from datahub.order.population import BlockLine


def schedule(shards, batch, rank=0, world=1, *, lanes=1, window="all", static=False, shuffle=True) -> Schedule:
    options = OrderOptions(window=window, lanes=lanes)
    return Schedule(Plan(shards, 5, 3, shuffle, options, batch, False, static, Topology(rank, world)))


@given(
    shards=st.lists(st.integers(0, 40), min_size=1, max_size=5).filter(any),
    share=st.integers(1, 6),
    lanes=st.integers(1, 4),
    window=st.sampled_from(["all", 1, 3]),
    static=st.booleans(),
    shuffle=st.booleans(),
    data=st.data(),
)
@settings(deadline=None, max_examples=150)
def test_steps_are_the_formulas(shards, share, lanes, window, static, shuffle, data):
    batch = share * lanes
    world = data.draw(st.integers(1, batch))
    rank = data.draw(st.integers(0, world - 1))
    made = schedule(shards, batch, rank, world, lanes=lanes, window=window, static=static, shuffle=shuffle)
    first, last = share_of(batch, rank, world)
    edges = cut_blocks(shards, 5)
    starts = data.draw(st.lists(st.integers(0, sum(shards) - 1), max_size=4))
    for epoch in (1, 2, 1):
        order = EpochOrder(edges, seed=3, epoch=epoch, options=made.plan.options, shuffle=shuffle)
        for position in (*range(0, sum(shards), batch), *starts):
            step = made.step(epoch, position)
            line, valid = order.slots(batch, position, first, last)
            assert np.array_equal(step.index[step.valid], order.sample(line[valid]))
            assert step.n_global == order.valid_in(batch, position)
            assert step.after == min(position + batch, sum(shards))
            assert np.array_equal(step.places[step.valid], position + first + np.flatnonzero(valid))
            assert len(step.index) == (-(-batch // world) if static else max(1, int(valid.sum())))


@pytest.fixture
def placed(monkeypatch) -> list[int]:
    """How many samples were placed, each time."""
    placed: list[int] = []
    real = BlockLine.rows
    monkeypatch.setattr(BlockLine, "rows", lambda self, line: placed.append(len(line)) or real(self, line))
    monkeypatch.setattr(ahead, "SAMPLES", 64)
    return placed


@pytest.mark.parametrize("lanes", [1, 4])
def test_few_are_placed_and_none_twice(placed, lanes):
    made = schedule([200], 16, lanes=lanes)
    for position in range(0, 200, 16):
        made.step(0, position)
    assert placed == [16, 64, 64, 48, 8]
    assert len(made.step(0, 80).index) == 16
    assert placed[-1] == 16


def test_a_loop_that_leaves_batches_out_places_none_of_them(placed):
    made, positions = schedule([400], 16), range(32, 400, 48)
    found = [made.step(0, position, 32).index for position in positions]
    assert sum(placed) == sum(map(len, found)) == 16 * len(positions)
    for position, index in zip(positions, found, strict=True):
        assert np.array_equal(index, schedule([400], 16).step(0, position).index)


def test_loops_side_by_side_do_not_hinder_each_other(placed):
    made = schedule([1600], 16)
    for position in range(0, 640, 16):
        for loop in (0, 800):
            made.step(0, position + loop)
    assert sum(placed) <= 2 * (640 + 64)
    made.step(1, 0)
    assert len({id(block.line) for block in made._ahead._blocks}) == 1, "an epoch that is over is let go"
