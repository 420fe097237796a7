"""Damage under a running epoch: one clear error, at its place, and no hang."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
import torch

from datahub.core.errors import DamagedSample, StoreDamaged, UsageError, WorkerDied
from datahub.core.settings import Settings
from datahub.loader.opening import open_dataset
from tests.loader.conftest import no_threads, seen, threads
from tests.store.builder import tiny_variant


def drain(loop) -> list:
    out = []
    while True:
        try:
            out.append(next(loop))
        except StopIteration:
            return out


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_names_its_sample(make, workers):
    loader = make(num_workers=workers)
    row = loader.split.locate[20]
    path = loader.split.shards[int(row["shard"])]
    with path.open("r+b") as file:
        file.seek(int(row["offset"]) + 45)
        file.write(b"\xff" * 20)
    loop = iter(loader)
    assert seen([next(loop), next(loop)]) == list(range(16))
    with pytest.raises(DamagedSample, match=f"{path.name}: sample train-000000020 at byte {row['offset']}:") as caught:
        next(loop)
    assert caught.value.exit_code == 3 and caught.value.cause
    assert loader.state_dict()["position"] == 16
    assert no_threads()
    assert list(loop) == []


@pytest.mark.parametrize("what", ["deleted", "truncated"])
def test_a_shard_gone_under_a_running_epoch(make, what):
    loader = make(num_workers=2, prefetch=1)
    loop = iter(loader)
    next(loop)
    path = loader.split.shards[2]
    path.unlink() if what == "deleted" else os.truncate(path, 700)
    with pytest.raises(StoreDamaged, match=path.name):
        drain(loop)
    assert loader.step >= 3 and no_threads()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("where", ["transform", "batch_transform", "collate"])
def test_an_error_in_a_callable_surfaces_at_its_batch(make, workers, where):
    calls = {"count": 0}
    lock = threading.Lock()

    def fail(value):
        with lock:
            calls["count"] += 1
            bad = calls["count"] > (20 if where == "transform" else 2)
        if bad:
            raise KeyError("mine")
        return value

    loader = make(num_workers=workers, prefetch=1, **{where: fail})
    with pytest.raises(KeyError, match="mine") as caught:
        list(loader)
    assert loader.step == 2 and no_threads()
    notes = getattr(caught.value, "__notes__", [])
    assert (where != "transform") or notes == ["in transform= for sample train-000000020"]


def test_even_an_exit_in_a_worker_surfaces(make):
    def leave(image):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        list(make(transform=leave))


def test_a_callable_that_hangs_meets_the_deadline(make):
    release = threading.Event()
    loader = make(transform=lambda image: release.wait(20), timeout=0.3)
    began = time.monotonic()
    with pytest.raises(WorkerDied, match=r"timeout=0\.3 s"):
        list(loader)
    assert time.monotonic() - began < 5
    release.set()
    assert no_threads()


def test_a_timeout_error_of_a_callable_is_its_own(make):
    def fail(image):
        raise TimeoutError("theirs")

    with pytest.raises(TimeoutError, match="theirs"):
        list(make(transform=fail))


def test_threads_end_with_their_loop(make):
    loader = make(num_workers=3)
    assert threads() == []
    for _ in loader:
        assert len(threads()) == 3
    assert no_threads(0.5)
    for _ in loader:
        break
    assert no_threads()
    loop = iter(loader)
    next(loop)
    del loop
    assert no_threads()
    with loader:
        loop = iter(loader)
        next(loop)
    assert threads() == []
    with pytest.raises(UsageError, match="closed"):
        next(loop)
    with pytest.raises(UsageError, match="closed"):
        iter(loader)
    loader.close()


def test_no_more_than_prefetch_batches_are_made_ahead(make):
    made = []
    loader = make(num_workers=3, prefetch=2, batch_transform=lambda batch: made.append(1) or batch)
    for number, _ in enumerate(loader, 1):
        time.sleep(0.03)
        assert number <= len(made) <= number + 2


def test_a_fresh_loop_works_in_a_forked_child(make):
    loader = make(shuffle=True, num_workers=2)
    expected = seen(list(loader))
    loader.set_epoch(0)
    loop = iter(loader)
    next(loop)
    child = os.fork()
    if child == 0:
        try:
            next(loop)
            code = 1
        except UsageError as error:
            code = 0 if "another process" in str(error) else 2
        loader.load_state_dict({**loader.state_dict(), "position": 0})
        code = code or (0 if seen(list(loader)) == expected else 3)
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(list(loop)) == 6


def test_large_batches_are_made_in_pieces(make, monkeypatch):
    from datahub.loader import work

    whole = list(make(shuffle=True, num_workers=0))
    monkeypatch.setattr(work, "PIECE_BYTES", 500)
    names = set()

    def note(image):
        names.add(threading.current_thread().name)
        time.sleep(0.001)
        return image

    for a, b in zip(whole, make(shuffle=True, num_workers=3, transform=note), strict=True):
        assert torch.equal(a["image"], b["image"]) and torch.equal(a["index"], b["index"])
    assert len(names) > 1


def test_an_opened_sample_names_its_damage(tmp_path: Path) -> None:
    tiny_variant(tmp_path)
    split = open_dataset("tiny", Settings(home=tmp_path))["train"]
    row = split.locate[3]
    with split.shards[int(row["shard"])].open("r+b") as handle:
        handle.seek(int(row["offset"]))
        handle.write(bytes(int(row["size"])))
    with pytest.raises(DamagedSample) as caught:
        split[3]["image"]
    assert caught.value.key == split[3].key
    assert caught.value.shard == split.shards[int(row["shard"])].name
