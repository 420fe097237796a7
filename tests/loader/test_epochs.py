"""Epochs, positions and states: what a loop runs, where it stops, how it goes on."""

from __future__ import annotations

import io
import time
from itertools import islice

import pytest
import torch
import torch.distributed.checkpoint as dcp

import datahub
from datahub.core.errors import BadArgument, StateMismatch, UsageError
from tests.loader.conftest import check, same, seen


def epochs(loader, count):
    return [list(loader) for _ in range(count)]


def test_each_loop_runs_the_next_epoch(make):
    loader = make(shuffle=True)
    orders = []
    for epoch in range(3):
        assert (loader.epoch, loader.step) == (epoch, 0)
        orders.append(seen(list(loader)))
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    loader.set_epoch(1)
    assert seen(list(loader)) == orders[1] and loader.epoch == 2


def test_without_shuffle_every_epoch_is_alike(make):
    first, second = epochs(make(), 2)
    assert seen(first) == seen(second) == list(range(50))


def test_the_usual_loop_resumes_where_it_was(make):
    whole = epochs(make(shuffle=True), 3)
    loader = make(shuffle=True)
    got = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        for number, batch in enumerate(loader, loader.step):
            got.append((epoch, number, batch))
            if (epoch, number) == (1, 3):
                break
        if epoch == 1:
            break
    state = loader.state_dict()
    again = make(shuffle=True)
    again.load_state_dict(state)
    assert (again.epoch, again.step) == (1, 4) and len(again) == 7
    for epoch in range(again.epoch, 3):
        again.set_epoch(epoch)
        for number, batch in enumerate(again, again.step):
            got.append((epoch, number, batch))
    assert [(epoch, number) for epoch, number, _ in got] == [(e, n) for e in range(3) for n in range(7)]
    assert all(same(batch, whole[epoch][number]) for epoch, number, batch in got)


@pytest.mark.parametrize("options", [{}, {"drop_last": True}, {"order": datahub.Order(2, 4)}, {"static_shapes": True}])
def test_every_batch_can_be_resumed_from(make, options):
    whole = [batch for epoch in epochs(make(shuffle=True, **options), 2) for batch in epoch]
    for number, batch in enumerate(whole):
        loader = make(shuffle=True, **options)
        loader.load_state_dict(loader.state_of(batch))
        rest = [each for epoch in range(loader.epoch, 2) for each in loader]
        assert len(rest) == len(whole) - number - 1
        assert all(same(a, b) for a, b in zip(rest, whole[number + 1 :], strict=True))


def test_state_is_what_was_received_not_what_was_prefetched(make):
    loader = make(prefetch=5)
    loop = iter(loader)
    for number in range(1, 4):
        next(loop)
        time.sleep(0.02)
        assert loader.state_dict()["position"] == number * 8 and loader.step == number


def test_state_at_the_end_of_an_epoch(make):
    loader = make()
    batches = list(loader)
    assert loader.state_dict()["epoch"] == 1 and loader.state_dict()["position"] == 0
    last = loader.state_of(batches[-1])
    assert (last["epoch"], last["position"]) == (0, 50)
    again = make()
    again.load_state_dict(last)
    again.set_epoch(0)
    assert list(again) == [] and again.epoch == 1
    assert len(list(again)) == 7


def test_a_loop_left_early_is_over(make):
    loader = make(shuffle=True)
    for _ in loader:
        break
    assert (loader.epoch, loader.step) == (0, 1)
    loader.set_epoch(0)
    assert loader.step == 1
    order = seen(list(loader))
    assert sorted(order) == list(range(50)) and loader.epoch == 2
    again = make(shuffle=True)
    again.set_epoch(1)
    assert seen(list(again)) == order


def test_state_survives_torch_save(make):
    loader = make(shuffle=True)
    expected = seen(list(islice(loader, 3, None)))
    loader.set_epoch(0)
    list(islice(loader, 3))
    buffer = io.BytesIO()
    torch.save({"loader": loader.state_dict()}, buffer)
    buffer.seek(0)
    again = make(shuffle=True)
    again.load_state_dict(torch.load(buffer, weights_only=True)["loader"])
    assert seen(list(again)) == expected


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_is_stateful_for_distributed_checkpoint(make, tmp_path):
    loader = make(shuffle=True)
    expected = seen(list(islice(loader, 3, None)))
    loader.load_state_dict({**loader.state_dict(), "epoch": 0, "position": 24})
    dcp.save({"loader": loader}, checkpoint_id=tmp_path / "checkpoint")
    again = make(shuffle=True)
    dcp.load({"loader": again}, checkpoint_id=tmp_path / "checkpoint")
    assert (again.epoch, again.step) == (0, 3) and seen(list(again)) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed was 0, is 1"),
        ({"shuffle": False}, "shuffle was 1, is 0"),
        ({"drop_last": True}, "drop_last was 0, is 1"),
        ({"batch_size": 4}, "batch_size was 8, is 4"),
        ({"split": "test"}, "the dataset was tiny@1.0/published:train, is tiny@1.0/published:test"),
        ({"order": datahub.Order(window=3)}, "window was all, is 3"),
    ],
)
def test_a_state_of_another_run_is_refused(make, changes, message):
    state = make(shuffle=True).state_dict()
    loader = make(**{"shuffle": True, **changes})
    with pytest.raises(StateMismatch, match=message):
        loader.load_state_dict(state)
    assert loader.state_dict()["position"] == 0


def test_another_batch_size_goes_on_with_the_rest(make):
    loader = make(shuffle=True)
    first = list(islice(loader, 3))
    again = make(shuffle=True, batch_size=7)
    again.load_state_dict(loader.state_dict(), allow=("batch_size",))
    assert again.step == 4
    rest = list(again)
    assert [len(batch["valid"]) for batch in rest] == [7, 7, 7, 5]
    assert sorted(seen(first) + seen(rest)) == list(range(50))


def test_at_makes_any_batch_and_moves_nothing(make):
    loader = make(shuffle=True)
    whole = epochs(make(shuffle=True), 2)
    assert same(loader.at(1, 6), whole[1][6]) and same(loader.at(0, 2), whole[0][2])
    assert (loader.epoch, loader.step) == (0, 0)
    for epoch, step in ((0, 7), (0, -1), (-1, 0)):
        with pytest.raises(BadArgument):
            loader.at(epoch, step)


@pytest.mark.parametrize("steps", [0, 3, 6, 7, 9, 20])
def test_skip_goes_on_further_down(make, steps):
    whole = [(e, n, batch) for e, epoch in enumerate(epochs(make(shuffle=True), 4)) for n, batch in enumerate(epoch)]
    loader = make(shuffle=True)
    loader.skip(steps)
    epoch, step, batch = whole[steps]
    assert (loader.epoch, loader.step) == (epoch, step)
    assert same(next(iter(loader)), batch)
    assert loader.stats()["batches"] <= 1 + 2 + 2


def test_skip_inside_a_loop(make):
    whole = epochs(make(shuffle=True), 2)
    loader = make(shuffle=True)
    got = []
    for number, batch in enumerate(loader):
        got.append(batch)
        if number == 1:
            loader.skip(3)
    assert all(same(a, b) for a, b in zip(got, [*whole[0][:2], *whole[0][5:]], strict=True))
    loader.set_epoch(0)
    count = 0
    for _ in loader:
        loader.skip(6)
        count += 1
    assert count == 1 and (loader.epoch, loader.step) == (1, 0)
    assert all(same(a, b) for a, b in zip(loader, whole[1], strict=True))


def test_skip_after_a_loop_left_early_counts_from_the_next_epoch(make):
    loader = make()
    next(iter(loader))
    loader.skip(2)
    assert (loader.epoch, loader.step) == (1, 2)


def test_one_loop_at_a_time(make):
    loader = make()
    older = iter(loader)
    next(older)
    newer = iter(loader)
    check(next(newer))
    with pytest.raises(UsageError, match="ended by a newer one"):
        next(older)
    assert loader.epoch == 1 and len(list(newer)) == 6 and loader.epoch == 2


@pytest.mark.parametrize("change", ["set_epoch", "load_state_dict"])
def test_moving_the_loader_ends_its_loop(make, change):
    loader = make()
    loop = iter(loader)
    next(loop)
    loader.set_epoch(0)
    next(loop)
    argument = 4 if change == "set_epoch" else {**loader.state_dict(), "epoch": 4, "position": 0}
    getattr(loader, change)(argument)
    with pytest.raises(UsageError, match=change):
        next(loop)
    assert (loader.epoch, loader.step) == (4, 0)
    assert len(list(loader)) == 7


def test_drop_last_drops_the_tail(make):
    loader = make(drop_last=True, shuffle=True)
    batches = list(loader)
    assert len(batches) == len(loader) == 6 and loader.epoch == 1
    assert all(len(batch["index"]) == 8 and batch["valid"].all() for batch in batches)
    assert list(make("test", drop_last=True)) == []
    with pytest.raises(BadArgument, match="no batches"):
        make("test", drop_last=True).skip(1)
