from __future__ import annotations

import dataclasses
import io

import pytest
import torch

from datahub.core.errors import BadArgument, StateMismatch
from datahub.stream.state import OrderParameters, State, restore

HERE = OrderParameters(
    dataset="tiny@1.0/published:train",
    fingerprint="sha256:aa",
    block=8,
    seed=3,
    batch=6,
    lanes=2,
    window="all",
    shuffle=1,
    drop_last=0,
)
SIZE = 100


def saved(**changes: object) -> dict[str, int | str]:
    return State(2, 12).to_dict(dataclasses.replace(HERE, **changes))


def test_round_trip():
    assert restore(saved(), HERE, SIZE) == State(2, 12)
    assert all(type(value) in (int, str) for value in saved().values())


def test_loads_as_weights_only():
    buffer = io.BytesIO()
    torch.save(saved(), buffer)
    buffer.seek(0)
    assert restore(torch.load(buffer, weights_only=True), HERE, SIZE) == State(2, 12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 4}, "seed was 4, is 3"),
        ({"shuffle": 0}, "shuffle was 0, is 1"),
        ({"window": "4"}, "window was 4, is all"),
        ({"lanes": 3}, "lanes was 3, is 2"),
        ({"drop_last": 1}, "drop_last was 1, is 0"),
        ({"batch": 12}, "batch_size was 12, is 6"),
        ({"block": 9}, "block was 9, is 8"),
        ({"order_version": 7}, "order's version was 7, is 1"),
        ({"fingerprint": "sha256:bb"}, "fingerprint was sha256:bb, is sha256:aa"),
        ({"fingerprint": "sha256:bb", "dataset": "other@2/published:test"}, "the dataset was other@2/published:test"),
        ({"seed": 4, "shuffle": 0}, "seed was 4, is 3; shuffle was 0, is 1"),
    ],
)
def test_a_refusal_names_what_changed(changes, message):
    with pytest.raises(StateMismatch, match=message) as caught:
        restore(saved(**changes), HERE, SIZE)
    assert len(caught.value.changed) == message.count(" was ")


def test_where_the_same_split_stands_does_not_matter():
    assert restore(saved(dataset="elsewhere@1.0/published:train"), HERE, SIZE) == State(2, 12)


def test_another_batch_size_on_request_only():
    with pytest.raises(StateMismatch, match=r'allow=\("batch_size",\)'):
        restore(saved(batch=12), HERE, SIZE)
    assert restore(saved(batch=12), HERE, SIZE, allow=("batch_size",)) == State(2, 12)
    with pytest.raises(StateMismatch) as caught:
        restore(saved(batch=12, seed=9), HERE, SIZE, allow=("batch_size",))
    assert caught.value.changed == ("seed was 9, is 3",)
    with pytest.raises(BadArgument, match="seed"):
        restore(saved(), HERE, SIZE, allow=("seed",))


def test_other_versions_are_refused():
    with pytest.raises(StateMismatch, match="version 2, this datahub reads 1"):
        restore({**saved(), "version": 2}, HERE, SIZE)


@pytest.mark.parametrize(
    "broken",
    [
        {},
        [],
        {"model": 1},
        {"version": 1},
        {**saved(), "position": "12"},
        {name: value for name, value in saved().items() if name != "epoch"},
        {**saved(), "seed": 4},
        {**saved(), "position": SIZE + 1},
        {**saved(), "position": -2},
        {**saved(), "epoch": -1},
        {**saved(), "position": 13},
    ],
)
def test_what_is_no_state_is_refused(broken):
    with pytest.raises(StateMismatch):
        restore(broken, HERE, SIZE)


def test_the_end_of_an_epoch_need_not_fill_its_lanes():
    assert restore({**saved(), "position": 99}, HERE, 99) == State(2, 99)
