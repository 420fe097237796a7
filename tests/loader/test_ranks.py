"""Many ranks: their batches laid side by side are the global batches of one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import datahub
from datahub.core.errors import BadArgument
from datahub.loader.schedule import Plan, Schedule
from datahub.loader.topology import Topology
from tests.loader.conftest import check, seen


def ranks(make, world_size, **arguments):
    arguments |= {"shuffle": True, "num_workers": 1}
    return [list(make(topology=Topology(rank, world_size), **arguments)) for rank in range(world_size)]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("order", [datahub.Order(), datahub.Order(window=2, lanes=4)])
def test_side_by_side_they_are_the_global_batch(make, world_size, order):
    whole = list(make(global_batch_size=8, shuffle=True, order=order))
    parts = ranks(make, world_size, global_batch_size=8, order=order)
    assert {len(part) for part in parts} == {len(whole)}
    for step, batch in enumerate(whole):
        mine = [part[step] for part in parts]
        for name in ("image", "label", "index"):
            joined = torch.cat([each[name][each["valid"]] for each in mine])
            assert torch.equal(joined, batch[name])
        assert {each["n_global"] for each in mine} == {batch["n_global"]}
        assert sum(int(each["valid"].sum()) for each in mine) == batch["n_global"]
        assert all(each.state == batch.state for each in mine)
        for each in mine:
            check(each)


def test_a_rank_left_empty_gets_one_filler(make):
    parts = ranks(make, 8, global_batch_size=16)
    last = [part[-1] for part in parts]
    assert last[0]["n_global"] == 2
    sizes = [(len(each["valid"]), int(each["valid"].sum())) for each in last]
    assert sorted(sizes) == [(1, 0)] * 6 + [(1, 1)] * 2
    assert sorted(index for part in parts for index in seen(part)) == list(range(50))


def test_static_shapes_keep_the_rows(make):
    parts = ranks(make, 3, global_batch_size=8, static_shapes=True)
    assert {tuple(batch["image"].shape) for part in parts for batch in part} == {(3, 3, 10, 12)}
    assert sorted(index for part in parts for index in seen(part)) == list(range(50))


def test_a_changed_world_size_resumes(make):
    whole = list(make(global_batch_size=12, shuffle=True))
    state = whole[1].state
    rest = []
    for rank in range(4):
        loader = make(global_batch_size=12, shuffle=True, topology=Topology(rank, 4))
        loader.load_state_dict(state)
        rest.append(list(loader))
    for step, batch in enumerate(whole[2:]):
        joined = torch.cat([part[step]["index"][part[step]["valid"]] for part in rest])
        assert torch.equal(joined, batch["index"])


def test_batch_size_is_per_rank(make):
    loader = make(batch_size=4, topology=Topology(1, 3))
    assert len(loader) == -(-50 // 12) and loader.state_dict()["batch"] == 12
    assert len(next(iter(loader))["index"]) == 4


def test_more_ranks_than_slots_are_refused(make):
    with pytest.raises(BadArgument, match="some of the 9 ranks would own no slot"):
        iter(make(global_batch_size=8, topology=Topology(0, 9)))
    with pytest.raises(BadArgument, match="does not divide"):
        len(make(global_batch_size=8, order=datahub.Order(lanes=3)))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_schedule_is_exact_and_elastic(data):
    shards = data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=5))
    lanes = data.draw(st.integers(1, 3))
    batch = lanes * data.draw(st.integers(1, 8))
    world_size = data.draw(st.integers(1, batch))
    static = data.draw(st.booleans())
    options = datahub.Order(data.draw(st.sampled_from(["all", 1, 3])), lanes)

    def schedule(rank, size):
        return Schedule(Plan(shards, 7, 3, True, options, batch, False, static, Topology(rank, size)))

    one, many = schedule(0, 1), [schedule(rank, world_size) for rank in range(world_size)]
    got = []
    position: int | None = 0
    while (after := one.after(position)) is not None:
        steps = [each.step(2, position) for each in many]
        whole = one.step(2, position)
        joined = [row for step in steps for row in step.index[step.valid].tolist()]
        assert joined == whole.index[whole.valid].tolist()
        assert whole.n_global == len(joined) and {step.after for step in steps} == {after}
        assert all(len(step.index) == -(-batch // world_size) for step in steps if static)
        assert all(len(step.index) >= 1 for step in steps)
        got += joined
        position = after
    assert sorted(got) == list(range(sum(shards)))
