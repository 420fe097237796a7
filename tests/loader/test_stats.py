"""What a loader tells of itself: totals, pace, queue, and the stage that sets the pace."""

from __future__ import annotations

import json
import os
import pickle
import threading
import time

import pytest

from datahub.core.errors import BadArgument
from datahub.loader import pieces
from datahub.loader.bottleneck import bottleneck
from datahub.loader.counters import STAGES, Counters
from datahub.loader.listening import kind_of
from datahub.stream.source import MemoryShards

PAUSE = 0.004
PAUSES = (PAUSE, 15 * PAUSE)
"""The longer one is for a machine that is busy with something else."""


def slow(function, pause=PAUSE):
    def slower(*arguments, **named):
        time.sleep(pause)
        return function(*arguments, **named)

    return slower


class Remote:
    """Shards that are no files of this machine."""

    def __init__(self, shards, pause=PAUSE) -> None:
        self.read, self.read_many = shards.read, slow(shards.read_many, pause)
        self.ahead, self.close = shards.ahead, shards.close


def throttled(make, where, monkeypatch, pause, **arguments):
    """A loader of which one part is slow."""
    if where == "decode":
        monkeypatch.setattr(pieces, "decode_rows", slow(pieces.decode_rows, pause))
    if where in ("transform", "batch_transform", "collate"):
        arguments[where] = slow(lambda value: value, pause)
    loader = make(**arguments)
    if where == "disk":
        monkeypatch.setattr(loader._source, "read_many", slow(loader._source.read_many, pause))
    if where == "origin":
        loader._source = loader._assembler._source = Remote(loader._source, pause)
    return loader


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("where", ["disk", "origin", "decode", "transform", "batch_transform", "collate", "consumer"])
def test_the_slow_part_is_named(make, where, workers, monkeypatch):
    expected = {"batch_transform": "transform", "collate": "transform"}.get(where, where)
    for pause in PAUSES:
        loader = throttled(make, where, monkeypatch, pause, num_workers=workers)
        for _ in loader:
            if where == "consumer":
                time.sleep(3 * pause)
        stats = loader.stats()
        if stats["bottleneck"] == expected:
            break
    assert stats["bottleneck"] == expected, stats
    assert loader.explain().splitlines()[-1] == f"bottleneck: {expected}: {stats['because']}"
    if where != "consumer":
        stage = {"disk": "read", "origin": "read"}.get(where, expected)
        assert stats[f"{stage}_wait_seconds"] > 0.5 * stats[f"{stage}_seconds"] > 0  # it slept


def test_totals_and_pace(make):
    loader = make(num_workers=2)
    assert loader.stats()["samples_per_second"] == 0 and loader.stats()["bottleneck"] == ""
    began = time.perf_counter()
    batches = 0
    for _ in loader:
        batches += 1
        time.sleep(PAUSE)
    spent = time.perf_counter() - began
    stats = loader.stats()
    assert (stats["batches"], stats["samples"], stats["quarantined"]) == (batches, 50, 0)
    assert stats["bytes"] == int(loader.split.locate["size"].sum())
    assert batches * PAUSE <= stats["use_seconds"] and stats["wait_seconds"] + stats["use_seconds"] <= spent
    assert 50 / spent <= stats["samples_per_second"] <= 50 / (batches * PAUSE)
    assert stats["bytes_per_second"] == pytest.approx(stats["samples_per_second"] * stats["bytes"] / 50)
    assert 0 < stats["ready_mean"] <= stats["prefetch"] == 2 and stats["workers"] == 2
    for stage in STAGES:
        busy, waited = stats[f"{stage}_busy_seconds"], stats[f"{stage}_wait_seconds"]
        assert busy + waited == pytest.approx(stats[f"{stage}_seconds"]) and min(busy, waited) >= 0
    time.sleep(PAUSE)
    assert loader.stats()["use_seconds"] == stats["use_seconds"]  # between loops nothing is used
    json.dumps(stats)


def test_the_queue_fills_while_the_caller_is_busy(make):
    loader = make(num_workers=2, prefetch=3)
    loop = iter(loader)
    next(loop)
    deadline = time.monotonic() + 10
    while loader.stats()["ready"] < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert loader.stats()["ready"] == 3
    use = loader.stats()["use_seconds"]
    time.sleep(PAUSE)
    assert loader.stats()["use_seconds"] >= use + PAUSE
    loop.close()
    assert loader.stats()["ready"] == 0


def test_at_leaves_no_trace(make):
    loader = make()
    loader.at(0, 3)
    stats = loader.stats()
    assert not any(stats[name] for name in ("batches", "samples", "bytes", "decode_seconds", "wait_seconds"))


def test_the_window_forgets(monkeypatch):
    clock = {"now": 100.0}
    monkeypatch.setattr("datahub.loader.counters.perf_counter", lambda: clock["now"])
    counters = Counters()
    for second in range(30):
        counters.asked(1)
        clock["now"] += 1.0 if second < 15 else 0.0
        counters.add("samples", 100 if second < 15 else 7)
        counters.received()
        clock["now"] += 0.0 if second < 15 else 1.0
    totals = counters.totals()
    recent = counters.recent(totals)
    assert (totals["samples"], totals["wait_seconds"], totals["use_seconds"]) == (1605, 15, 15)
    assert (recent["samples"], recent["received"]) == (10 * 7, 10)
    assert (recent["wait_seconds"], recent["use_seconds"]) == (0, 11)
    assert bottleneck(recent, workers=2, source="disk").name == "consumer"


@pytest.mark.parametrize(
    ("wait", "use", "workers", "name"),
    [
        (9.0, 1.0, 2, "decode"),
        (0.5, 9.5, 2, "consumer"),
        (2.0, 8.0, 2, "decode"),
        (4.0, 6.0, 0, "consumer"),
        (6.0, 4.0, 0, "decode"),
        (0.0, 0.0, 2, ""),
    ],
)
def test_the_judgement_is_a_function_of_what_was_measured(wait, use, workers, name):
    spent = dict.fromkeys(Counters().totals(), 0.0)
    spent |= {"wait_seconds": wait, "use_seconds": use, "received": 10, "ready": 15}
    spent |= {"read_seconds": 2.0, "decode_seconds": 5.0, "decode_busy_seconds": 4.0, "transform_seconds": 1.0}
    found = bottleneck(spent, workers=workers, source="disk")
    assert found.name == name
    if name == "decode":
        assert "62% of the work" in found.because and "80% on a processor" in found.because


def test_someone_listens_while_a_loop_runs(make):
    loader = make(num_workers=0)
    told = []
    loader.on_stats(lambda stats: told.append((threading.current_thread(), stats["batches"])), every=1e-9)
    for number, _ in enumerate(loader, 1):
        assert len(told) == number
    assert [count for _, count in told] == list(range(1, 8)) and {who for who, _ in told} == {threading.main_thread()}
    loader.on_stats(lambda stats: told.append(stats), every=60)
    list(loader)
    loader.on_stats(None)
    list(loader)
    assert len(told) == 7

    def fail(stats):
        raise KeyError("theirs")

    loader.on_stats(fail, every=1e-9)
    with pytest.raises(KeyError, match="theirs"):
        list(loader)
    for call, every in ((3, 1.0), (fail, 0)):
        with pytest.raises(BadArgument):
            loader.on_stats(call, every=every)


def test_counters_survive_threads_a_fork_and_a_pickle():
    counters = Counters()

    def work():
        for _ in range(2000):
            counters.add("samples", 1)
            with counters.timing("decode"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.totals()["samples"] == 8000 and counters.totals()["decode_seconds"] > 0
    assert pickle.loads(pickle.dumps(counters)).totals()["samples"] == 0
    with counters._lock, counters._stages["decode"].lock:
        child = os.fork()
        if child == 0:
            counters.after_fork()
            work()
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_kinds_of_sources(make):
    assert kind_of(make()._source) == kind_of(MemoryShards([])) == "disk"
    assert kind_of(Remote(MemoryShards([]))) == "origin"
