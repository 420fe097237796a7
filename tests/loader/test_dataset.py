"""`StreamingDataset` in torch's DataLoader and torchdata's StatefulDataLoader: the loader's batches, in its order."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import time
from functools import partial
from itertools import islice
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, get_worker_info

import datahub
from datahub.core import errors
from datahub.core.errors import BadArgument, StateMismatch, UsageError
from datahub.loader.batch import as_list
from datahub.loader.board import Board, Entry, number
from datahub.loader.streaming import StreamingLoader
from datahub.loader.topology import Topology
from datahub.loader.torch_dataset import StreamingDataset
from tests.loader.conftest import check, same, seen

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    # The process that forks has threads of torch's and of other tests'; what they hold, workers never touch.
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),  # torchdata calls it
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"),
]
ARGUMENTS: dict[str, Any] = {"batch_size": 8, "shuffle": True, "seed": 3}


@pytest.fixture
def dataset(home):
    return partial(StreamingDataset, "tiny", "train", settings=home, **ARGUMENTS)


@pytest.fixture
def whole(home) -> list[list[Any]]:
    """Three epochs of the loader."""
    with StreamingLoader("tiny", settings=home, num_workers=0, **ARGUMENTS) as loader:
        return [list(loader) for _ in range(3)]


def feed(dataset: Any, workers: int = 2, **options: Any) -> DataLoader[Any]:
    if workers:
        options.setdefault("timeout", 60)
        options.setdefault("multiprocessing_context", "fork")
    return DataLoader(dataset, batch_size=None, num_workers=workers, **options)


def failure(loader: Any) -> BaseException:
    """What a loop over it raises, without its frames: they would keep the workers until the garbage is collected."""
    try:
        list(loader)
    except Exception as error:  # noqa: BLE001 - the caller looks at what it is
        error.__context__ = error.__cause__ = None
        return error.with_traceback(None)
    raise AssertionError("nothing was raised")


def alike(got: list[Any], expected: list[Any]) -> bool:
    return len(got) == len(expected) and all(map(same, got, expected))


@pytest.mark.parametrize("workers", [0, 1, 3, 8])
def test_batches_and_epochs_are_those_of_the_loader(dataset, whole, workers):
    made = dataset()
    loader = feed(made, workers)
    assert len(loader) == len(made) == 7
    for epoch in range(3):
        assert made.epoch == epoch
        assert alike(list(loader), whole[epoch])
    assert made.epoch == 3


def test_spawned_workers_give_the_same(dataset, whole):
    made = dataset()
    loader = feed(made, 2, multiprocessing_context="spawn", persistent_workers=True)
    for epoch in range(2):
        assert alike(list(loader), whole[epoch])
    made.set_epoch(0)
    assert alike(list(loader), whole[0])


@pytest.mark.parametrize("persistent", [False, True])
def test_set_epoch_reaches_the_workers(dataset, whole, persistent):
    made = dataset()
    loader = feed(made, 2, persistent_workers=persistent)
    for epoch in (2, 2, 0, 1):
        made.set_epoch(epoch)
        assert alike(list(loader), whole[epoch])
    made.set_epoch(2)  # the next one: nothing changes
    next(iter(loader))
    made.set_epoch(2)  # left early, so over
    assert made.epoch == 2
    made.set_epoch(1)
    assert alike(list(loader), whole[1])


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 0), (0, 2), (1, 1)])
def test_a_batch_resumes_with_any_number_of_workers(dataset, whole, before, after):
    for batch in islice(feed(dataset(), before), 4):
        state = datahub.state_of(batch)
    assert (state["epoch"], state["position"]) == (0, 32) and "workers" not in state
    made = dataset()
    made.load_state_dict(state)
    assert made.state_dict() == state and made.epoch == 0
    made.set_epoch(0)
    loader = feed(made, after)
    assert alike(list(loader), whole[0][4:]) and alike(list(loader), whole[1])


def test_states_of_dataset_and_loader_are_one(dataset, whole, make):
    made = dataset()
    loader = make(**ARGUMENTS)
    loader.load_state_dict(datahub.state_of(next(iter(feed(made)))))
    assert alike(list(loader), whole[0][1:])
    loop = iter(made)
    next(loop)
    assert made.state_dict()["epoch"] == 1 and made.state_dict() == datahub.state_of(whole[1][0])
    loader.load_state_dict(made.state_dict())
    assert alike(list(loader), list(loop))


def test_what_a_dataloader_was_given_only_its_batches_know(dataset):
    made = dataset()
    assert made.state_dict()["position"] == 0
    next(iter(feed(made)))
    with pytest.raises(UsageError, match=r"save datahub\.state_of"):
        made.state_dict()


def test_the_end_of_an_epoch(dataset, whole):
    made = dataset()
    made.load_state_dict(datahub.state_of(whole[0][-1]))
    loader = feed(made, 3)
    assert list(loader) == [] and made.epoch == 1
    assert alike(list(loader), whole[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_fields_give_lists_that_carry_the_state(home, whole, workers):
    made = StreamingDataset("tiny", settings=home, fields=("image", "label"), **ARGUMENTS)
    for batch, expected in zip(feed(made, workers), whole[0], strict=True):
        images, labels = batch
        assert torch.equal(images, expected["image"]) and torch.equal(labels, expected["label"])
        assert made.state_of(batch) == expected.state


def test_collate_and_transforms_run_in_the_workers(home):
    def collate(samples):
        return {"rows": [each["index"] for each in samples], "worker": get_worker_info().id}

    made = StreamingDataset("tiny", settings=home, collate=collate, **ARGUMENTS)
    batches = list(feed(made, 2))
    assert [batch["worker"] for batch in batches] == [0, 1, 0, 1, 0, 1, 0]
    assert sorted(row for batch in batches for row in batch["rows"]) == list(range(50))
    assert datahub.state_of(batches[2])["position"] == 24


def test_ranks_times_workers(home, whole):
    parts = []
    for rank in range(3):
        made = StreamingDataset(
            "tiny", settings=home, shuffle=True, seed=3, global_batch_size=8, topology=Topology(rank, 3)
        )
        parts.append(list(feed(made, 2)))
    for step, expected in enumerate(whole[0]):
        mine = [part[step] for part in parts]
        for name in ("image", "label", "index"):
            assert torch.equal(torch.cat([each[name][each["valid"]] for each in mine]), expected[name])
        assert all(each.state == expected.state for each in mine)


def test_the_topology_is_resolved_where_the_workers_are_started(home, monkeypatch):
    made = StreamingDataset("tiny", settings=home, batch_size=4)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert next(iter(feed(made)))["index"].tolist() == [4, 5, 6, 7]
    again = pickle.loads(pickle.dumps(StreamingDataset("tiny", settings=home, batch_size=4)))
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    assert next(iter(again))["index"].tolist() == [4, 5, 6, 7]


def test_threads_of_the_parent_and_opencv_survive_a_fork(home):
    """The parent has used threads, OpenCV's among them, before its workers are forked."""
    options = {"settings": home, "batch_size": 50, "transform": "normalize"}
    with StreamingLoader("tiny", num_workers=2, **options) as loader:
        expected = next(iter(loader))["image"]
        loop = iter(loader)
        made = StreamingDataset("tiny", num_workers=2, **options)
        list(made)
        made.set_epoch(0)
        for batch in feed(made, 2):
            assert torch.equal(batch["image"], expected)
        next(loop)


def test_copies_share_nothing(dataset, whole):
    made = dataset()
    made.set_epoch(1)
    for copied in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        made.set_epoch(2)
        assert copied.epoch == 1 and alike(list(copied), whole[1])
        made.set_epoch(1)
    assert alike(list(feed(made)), whole[1])


def test_batches_of_batches_are_refused(dataset):
    for options in ({}, {"num_workers": 1, "multiprocessing_context": "fork"}):
        error = failure(DataLoader(dataset(), **options))
        assert isinstance(error, UsageError) and "batch_size=None" in str(error)


# -- batches that travel ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [None, ("image", "label", "key")])
def test_a_batch_moves_with_its_state(make, fields, monkeypatch):
    batch = next(iter(make(fields=fields)))
    asked = []
    monkeypatch.setattr(torch.Tensor, "to", lambda each, *place, **how: asked.append((place, how)) or each.clone())
    moved = batch.to("cuda:1", non_blocking=True)
    assert asked == [(("cuda:1",), {"non_blocking": True})] * (4 if fields is None else 2)
    assert same(moved, batch) and type(moved) is type(batch) and datahub.state_of(moved) == batch.state
    if fields:
        assert moved[2] == batch[2]


def test_a_batch_is_pinned_with_its_state(make, monkeypatch):
    """As the pinning thread of a DataLoader does it; page-locked memory itself needs a GPU's driver."""
    from torch.utils.data._utils.pin_memory import pin_memory

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: tensor.clone())
    for fields in (None, ("image", "label")):
        batch = as_list(next(iter(make(fields=fields))))  # a worker hands out lists: the thread keeps no tuple
        pinned = pin_memory(batch)
        assert same(pinned, batch) and type(pinned) is type(batch)
        image = (pinned if fields is None else dict(zip(fields, pinned, strict=True)))["image"]
        assert image.data_ptr() != (batch["image"] if fields is None else batch[0]).data_ptr()


# -- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 4}, "seed was 3, is 4"),
        ({"batch_size": 4}, "batch_size was 8, is 4"),
        ({"split": "test"}, "the dataset was tiny@1.0/published:train, is tiny@1.0/published:test"),
    ],
)
def test_a_state_of_another_run_is_refused(home, whole, changes, message):
    made = StreamingDataset("tiny", settings=home, **{**ARGUMENTS, **changes})
    with pytest.raises(StateMismatch, match=message):
        made.load_state_dict(datahub.state_of(whole[0][2]))
    with pytest.raises(StateMismatch, match="it has version 99"):
        made.load_state_dict({**made.state_dict(), "version": 99})
    with pytest.raises(StateMismatch, match="is not a datahub loader state"):
        made.load_state_dict(None)
    assert made.state_dict()["position"] == 0


def test_another_batch_size_goes_on_with_the_rest(home, whole):
    made = StreamingDataset("tiny", settings=home, **{**ARGUMENTS, "batch_size": 6})
    made.load_state_dict(datahub.state_of(whole[0][2]), allow=("batch_size",))
    rest = list(feed(made, 2))
    assert [len(batch["index"]) for batch in rest] == [6, 6, 6, 6, 2]
    assert sorted(seen(whole[0][:3]) + seen(rest)) == list(range(50))


def test_an_error_in_a_worker_has_its_family_and_its_cause(home, dataset):
    made = dataset(shuffle=False)
    row = StreamingLoader("tiny", settings=home, batch_size=8).split.locate[20]
    path = next(home.datasets.rglob("tiny-train-000001.tar"))
    with path.open("r+b") as file:
        file.seek(int(row["offset"]) + 45)
        file.write(b"\xff" * 20)
    for workers, kind in ((0, errors.DamagedSample), (2, errors.VerificationError)):
        made.set_epoch(0)
        error = failure(feed(made, workers))
        assert type(error) is kind and "sample train-000000020 at byte" in str(error) and error.exit_code == 3
        made.set_epoch(1)


def test_data_that_changed_under_the_workers_are_refused(home, dataset):
    import shutil

    from tests.store.builder import tiny_variant

    made = pickle.loads(pickle.dumps(dataset()))
    shutil.rmtree(home.datasets / "tiny")
    tiny_variant(home.home, splits={"train": 51}, shards=3, block=4)
    with pytest.raises(StateMismatch, match="fingerprint"):
        list(made)


def test_a_killed_worker_is_an_error_and_no_hang(home):
    def die(image):
        if get_worker_info().id == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return image

    made = StreamingDataset("tiny", settings=home, transform=die, **ARGUMENTS)
    began = time.monotonic()
    error = failure(feed(made, 2))
    assert type(error) is RuntimeError and "DataLoader worker (pid" in str(error)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("arguments", [{"batch_size": None}, {"split": "val"}, {"seed": "x"}, {"colour": 1}])
def test_arguments_are_checked_at_once(home, arguments):
    with pytest.raises((BadArgument, errors.UnknownSplit, TypeError)):
        StreamingDataset("tiny", settings=home, **{**ARGUMENTS, **arguments})


# -- the board ----------------------------------------------------------------------------------------------------


def test_the_first_worker_of_a_loop_says_where_it_begins():
    board = Board()
    assert board.begin(number(7, 0), 0) == Entry(7, 0, 0) == board.begin(7, 1)
    assert board.epoch == 0
    board.finish(7)
    assert board.begin(7, 2).epoch == 0, "a worker that comes when others are done"
    assert board.epoch == 1
    assert board.begin(8, 0).epoch == 1 == board.begin(8, 1).epoch == board.epoch
    assert board.begin(9, 1).epoch == 2, "the loop before was left early"
    board.put(Entry(0, 5, 16))
    assert board.begin(10, 1) == Entry(10, 5, 16) == board.begin(10, 0)


def test_loops_that_cannot_be_told_apart_are_refused():
    board = Board()
    for seat in range(3):
        board.begin(7, seat)
    board.finish(7)
    with pytest.raises(UsageError, match=r"the same torch seed.*call set_epoch"):
        board.begin(7, 1)
    board.put(Entry(0, 4, 0))
    assert board.begin(7, 1) == Entry(7, 4, 0) == board.begin(7, 0)


def test_loops_seeded_alike_run_the_epochs_that_were_set(dataset, whole):
    made = dataset()
    loader = feed(made, 2)
    for epoch in (0, 2, 1):
        torch.manual_seed(0)
        made.set_epoch(epoch)
        assert alike(list(loader), whole[epoch])


# -- torchdata ----------------------------------------------------------------------------------------------------


@pytest.fixture
def stateful():
    module = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")

    def make(dataset, workers, **options):
        if workers:
            options.setdefault("multiprocessing_context", "fork")
        return module.StatefulDataLoader(dataset, batch_size=None, num_workers=workers, **options)

    return make


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_a_stateful_dataloader_resumes_exactly(dataset, whole, stateful, workers):
    for count in (0, 1, 4, 7):
        loader = stateful(dataset(), workers)
        for _ in islice(loader, count):
            pass
        again = stateful(dataset(), workers)
        again.load_state_dict(pickle.loads(pickle.dumps(loader.state_dict())))
        rest = list(again)
        expected = whole[0][count:] if 0 < count < 7 else whole[1 if count else 0]
        if count == 7 and not rest:  # torchdata may also take the end of an epoch for an empty rest
            rest = list(again)
        assert alike(rest, expected)
        assert alike(list(again), whole[2 if count == 7 else 1])


def test_a_stateful_dataloader_in_its_second_epoch(dataset, whole, stateful):
    loader = stateful(dataset(), 2, persistent_workers=True)
    list(loader)
    list(islice(loader, 3))
    again = stateful(dataset(), 2, persistent_workers=True)
    again.load_state_dict(loader.state_dict())
    assert alike(list(again), whole[1][3:]) and alike(list(again), whole[2])


def test_a_stateful_dataloader_takes_no_other_number_of_workers(dataset, stateful):
    loader = stateful(dataset(), 2)
    list(islice(loader, 3))
    again = stateful(dataset(), 3)
    again.load_state_dict(loader.state_dict())
    error = failure(again)
    assert isinstance(error, UsageError) and "of 2, is of 3; resume with as many workers" in str(error)
    worker = {**dataset().state_dict(), "worker": 1, "workers": 2}
    with pytest.raises(StateMismatch, match=r"the worker was 1 of 2, is of none.*datahub\.state_of"):
        dataset().load_state_dict(worker)


def test_batches_hold_what_they_say(dataset):
    for batch in feed(dataset(), 2):
        check(batch)
