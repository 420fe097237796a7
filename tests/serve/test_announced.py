"""Loaders as jobs of a real server: what they say, what is kept and brought for them, and how they are counted."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

import datahub
from datahub.core.digests import BLOCK
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.loader.streaming import StreamingLoader
from datahub.loader.topology import Topology
from datahub.loader.torch_dataset import StreamingDataset
from datahub.serve import filters, prefetching
from datahub.serve.jobs import Jobs
from datahub.serve.outlook import Shards
from datahub.stream import herald
from datahub.wire.messages import Job, JobAsked
from tests.serve.running import Running, running
from tests.store.builder import tiny_variant

DEADLINE = 20.0
REF = "large@1.0/published"
NAME = re.compile(r"[0-9a-f]{8}\.train\.[0-9a-f]{4}")


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Path:
    """A store with 24 images of 1.9 MB in 2 shards, 12 blocks; and with ``tiny``."""
    home = tmp_path_factory.mktemp("origin")
    tiny_variant(home, "large", {"train": 24}, format="jpeg", size=(1000, 800), block=4)
    tiny_variant(home)
    return home


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Everything that is done every few seconds is done at once; no run is named by this machine's environment."""
    monkeypatch.setattr(herald, "EVERY", 0.05)
    monkeypatch.setattr(prefetching, "EVERY", 0.05)
    for name in ("DATAHUB_JOB", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def far(start, origin, tmp_path) -> Running:
    return start(Settings(home=tmp_path / "server"), origin=(str(origin),), scrub_rate=0)


def within(true: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


def jobs(server: Running) -> list[dict[str, Any]]:
    return list(json.loads(server.ask("/v1/jobs").body)["jobs"])


def loader_of(server: Running, settings: Settings, ref: Any = REF, **more: Any) -> StreamingLoader:
    arguments = {"batch_size": 4, "shuffle": True, "seed": 7, "num_workers": 1, "timeout": 20} | more
    return StreamingLoader(ref, settings=settings, source=server.url, **arguments)


def test_a_loader_is_a_job(far, settings):
    with loader_of(far, settings, fields=("encoded",)) as loader:
        assert jobs(far) == []
        batches = iter(loader)
        next(batches)
        (job,) = within(lambda: jobs(far))
        assert NAME.fullmatch(job["job"]) and job["run"] == job["job"][:8]
        assert (job["dataset"], job["order"]) == (REF, {"seed": 7, "batch": 4})
        next(batches)
        within(lambda: jobs(far)[0].get("position") == 8)
        assert len(list(batches)) == 4
        within(lambda: (jobs(far)[0].get("epoch"), jobs(far)[0].get("position", 0)) == (1, 0))
        assert "kept" not in jobs(far)[0] and len(far.ask("/v1/jobs").body) < 1024
        sent = far.metric("datahub_job_bytes_total", job=job["job"])
        assert sent > 24 * 1_800_000
        pieces = far.metric("datahub_job_hits_total", job=job["job"])
        pieces += far.metric("datahub_job_misses_total", job=job["job"])
        assert pieces >= 12
        (row,) = json.loads(far.ask("/live.json").body)["jobs"]
        assert row[0] == job["job"] and "epoch 1" in row[2] and re.fullmatch(r"\d+\.\d MB, \d+% hits", row[4])
    within(lambda: jobs(far) == [])


def test_a_loader_that_is_let_go_is_a_job_no_more(far, settings):
    loader = loader_of(far, settings, ref="tiny@1.0/published")
    list(loader)
    within(lambda: jobs(far))
    del loader
    gc.collect()
    within(lambda: jobs(far) == [])


def test_the_environment_names_the_run_and_its_leases_are_renewed(far, settings, monkeypatch):
    monkeypatch.setenv("DATAHUB_JOB", "run-7")
    lease = {"ref": REF, "job": "run-7", "seconds": 5}
    assert far.ask("/v1/cache/lease", "POST", json.dumps(lease).encode()).status == 200
    with loader_of(far, settings, ref="tiny@1.0/published") as loader:
        list(loader)
        (job,) = within(lambda: jobs(far))
        assert re.fullmatch(r"run-7\.train\.[0-9a-f]{4}", job["job"])
        within(lambda: json.loads(far.ask("/v1/cache").body)["held"][0]["seconds"] > 60)


def test_orders_are_announced_where_a_server_can_work_them_out(far, settings):
    selected = loader_of(far, settings, ref="tiny@1.0/published", where="label in (0, 1)")
    wordy = f"label in ({', '.join('01' * 200)})"
    long = loader_of(far, settings, ref="tiny@1.0/published", where=wordy)
    weighted = loader_of(far, settings, ref=datahub.balanced("tiny@1.0/published"))
    parted = loader_of(far, settings, ref="tiny@1.0/published", part=(0, 0.5), max_samples=5)
    mixed = loader_of(far, settings, ref=datahub.mix({"tiny@1.0/published": 0.5, "tiny@1.0/published:test": 0.5}))
    for loader, number in ((selected, 1), (weighted, 1), (long, 1), (parted, 1), (mixed, 2)):
        with loader:
            batches = iter(loader)
            next(batches)
            found = within(lambda number=number: len(told := jobs(far)) == number and told)
            assert [("order" in each) for each in found] == [loader in (selected, parted, mixed)] * number
            if loader is selected:
                assert found[0]["order"]["where"] == "label in (0, 1)"
            if loader is parted:
                assert (found[0]["order"]["part"], found[0]["order"]["max_samples"]) == ([[0.0, 0.5]], 5)
            if loader is mixed:
                members = {each["split"]: each["order"]["mix"].get("member") for each in found}
                assert members == {"train": 0, "test": 1}
            batches.close()
        within(lambda: jobs(far) == [])


def test_only_the_first_rank_speaks_and_nobody_does_who_was_told_not_to(far, settings):
    second = loader_of(far, settings, ref="tiny@1.0/published", topology=Topology(1, 2))
    silent = loader_of(far, replace(settings, announce=False), ref="tiny@1.0/published")
    with second, silent, loader_of(far, settings, ref="tiny@1.0/published", topology=Topology(0, 2)) as first:
        list(second)
        list(silent)
        assert far.server.jobs.alive() == []
        list(first)
        assert len(within(lambda: jobs(far))) == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_workers_of_a_dataloader_are_one_job_that_ends_with_the_dataset(far, settings):
    dataset = StreamingDataset("tiny@1.0/published", settings=settings, source=far.url, batch_size=4, shuffle=True)
    for _ in range(2):
        loader = DataLoader(dataset, batch_size=None, num_workers=2, timeout=60, multiprocessing_context="fork")
        batches = iter(loader)
        next(batches)
        within(lambda: jobs(far))
        assert len(list(batches)) == 4
    (job,) = jobs(far)
    assert job["ttl"] == 600.0
    del loader, batches, dataset
    gc.collect()
    within(lambda: jobs(far) == [])


# -- what the server does ---------------------------------------------------------------------------------------------


def say(server: Running, **more: Any) -> int:
    asked = {"job": "a", "dataset": REF, "order": {"seed": 1, "batch": 4, "window": 1}, "ttl": 60} | more
    return server.ask("/v1/jobs", "POST", json.dumps(asked).encode()).status


def present(server: Running) -> list[bool]:
    """Of each block of the shards, whether the server's cache has it."""
    variant = server.server.library.known(Ref.parse(REF)) or server.server.library.look(Ref.parse(REF))
    assert variant is not None
    raw = b"".join(variant.blobs[each.path].raw for each in variant.record.splits["train"].shards)
    return server.server.cache.present(raw[at : at + 32].hex() for at in range(0, len(raw), 32))


def test_what_a_job_reads_next_is_brought_before_it_asks(far):
    assert say(far) == 200
    within(lambda: all(present(far)))  # all of it is within the trust that a new job has
    assert far.metric("datahub_prefetched_bytes_total", job="a") > 10 * BLOCK
    assert far.metric("datahub_origin_bytes_total") < 14 * BLOCK
    with far.server.cache.books() as (ledger, _, _limit):
        assert len(ledger.wanted(time.time())) == 12
    assert len(far.server.cache.foreseen.due()) == 12
    assert far.ask("/v1/jobs/a", "DELETE").status == 204
    within(lambda: not far.server.cache.foreseen.due())
    with far.server.cache.books() as (ledger, _, _limit):
        assert ledger.wanted(time.time()) == set()


def test_what_a_mixture_reads_next_is_brought_before_it_asks(far, settings):
    mixed = datahub.mix({"tiny@1.0/published": 0.5, REF: 0.5})
    with loader_of(far, settings, ref=mixed, fields=("encoded",), batch_size=2, prefetch=1) as loader:
        batches = iter(loader)
        next(batches)
        within(lambda: all(present(far)))
        names = {each["dataset"]: each["job"] for each in jobs(far)}
        brought = far.metric("datahub_prefetched_bytes_total", job=names[REF])
        assert brought > 0
        for _ in batches:
            pass
    assert far.metric("datahub_origin_bytes_total") < 14 * BLOCK  # each block once


def test_what_a_filter_leaves_is_brought_and_nothing_else(far, settings):
    """Of 24 images in 12 blocks the first 7: those of four blocks."""
    where = "key <= 'train-000000006'"
    assert say(far, order={"seed": 1, "batch": 4, "where": where}) == 200
    within(lambda: sum(present(far)) == 4)
    assert len(within(far.server.cache.foreseen.due)) == 12  # those that are not read are known for it
    with loader_of(far, settings, where=where, fields=("encoded",)) as loader:
        assert sum(len(images) for (images,) in loader) == 7
    assert present(far) == [True] * 4 + [False] * 8


@pytest.mark.parametrize(
    "where",
    [
        "nothing == 1", "label ==", "(" * 500, "__import__('os')", "label == " + "9" * 400, "source == 'x' " * 70,
        r"source == '\ud800'", r"source in ('\udfff',)",
    ],
)  # fmt: skip
def test_filters_that_are_none_hurt_nobody(far, where):
    assert say(far, order={"seed": 1, "batch": 4, "where": where}) == 200
    assert say(far, job="b") == 200
    within(lambda: all(present(far)))
    assert far.metric("datahub_prefetched_bytes_total", job="a") == 0
    assert say(far, order={"where": "x" * 1025}) == 400


def test_filters_beyond_their_bounds_are_not_worked_out(far, monkeypatch):
    monkeypatch.setattr(filters, "MOST_BYTES", 10)
    assert say(far, order={"seed": 1, "batch": 4, "where": "label == 1"}) == 200
    assert say(far, job="b") == 200
    within(lambda: all(present(far)))
    assert far.metric("datahub_prefetched_bytes_total", job="a") == 0


@pytest.mark.parametrize("error", [OSError("no Parquet"), TimeoutError("an origin that stalls"), ConnectionError()])
def test_an_index_that_cannot_be_read_costs_its_own_job_only(far, monkeypatch, error):
    def unread(*_: Any) -> None:
        raise error

    monkeypatch.setattr(filters, "_meets", unread)
    assert say(far, order={"seed": 1, "batch": 4, "where": "label == 1"}) == 200
    assert say(far, job="b") == 200
    within(lambda: all(present(far)))
    assert far.metric("datahub_prefetched_bytes_total", job="a") == 0


def test_a_small_cache_brings_no_more_than_half_of_it_and_leaves_what_is_leased(start, origin, tmp_path):
    small = start(Settings(home=tmp_path / "server"), origin=(str(origin),), scrub_rate=0, quota=6 * BLOCK)
    assert say(small) == 200
    within(lambda: sum(present(small)) == 3)
    time.sleep(0.3)  # some rounds more
    assert sum(present(small)) == 3
    soonest = small.server.cache.foreseen.due()
    with small.server.cache.books() as (ledger, _, limit):
        wanted = ledger.wanted(time.time())
        assert ledger.total() <= limit == 6 * BLOCK
    assert sorted(soonest, key=soonest.__getitem__)[:3] == sorted(wanted, key=soonest.__getitem__)
    for path in ("large-train-000000.tar", "large-train-000001.tar"):
        assert small.ask(f"/v1/datasets/large/1.0/published/{path}").status == 200
        with small.server.cache.books() as (ledger, _, limit):
            assert ledger.total() <= limit and wanted <= ledger.keys()
    lease = {"ref": "tiny@1.0/published", "job": "b", "seconds": 60}
    assert small.ask("/v1/cache/lease", "POST", json.dumps(lease).encode()).status == 200


def test_a_job_that_never_asks_is_not_believed(far, monkeypatch):
    monkeypatch.setattr(prefetching, "TRUST", 2)
    monkeypatch.setattr(prefetching, "LATE", 0.0)
    assert say(far) == 200
    within(lambda: sum(present(far)) == 2)
    for position in range(0, 24, 4):
        assert say(far, position=position, ttl=60) == 200
        time.sleep(0.15)
    assert sum(present(far)) < 12
    assert far.metric("datahub_prefetched_bytes_total", job="a") < 12 * BLOCK


def test_jobs_that_ask_for_what_was_brought_are_looked_at_first(tmp_path, monkeypatch):
    jobs, seen = Jobs(tmp_path), []
    for name in "abc":
        jobs.say(JobAsked(job=name, dataset=REF))
    unused: Any = None
    prefetcher = prefetching.Prefetcher(tmp_path, jobs, unused, unused, unused)
    prefetcher._credits["c"] = prefetching.Credit(useful=1)

    async def shards(job: Job, _: Any) -> None:
        seen.append(job.job)

    async def bring(*_: Any) -> None: ...

    monkeypatch.setattr(prefetcher, "_shards", shards)
    monkeypatch.setattr(prefetcher, "_foresee", lambda _: {})
    monkeypatch.setattr(prefetcher, "_bring", bring)
    asyncio.run(prefetcher._round(unused, time.monotonic()))
    jobs.close()
    assert seen == ["c", "a", "b"]


def test_one_that_asks_is_believed_more(far, monkeypatch, settings):
    monkeypatch.setattr(prefetching, "TRUST", 1)
    with loader_of(far, settings, fields=("encoded",), prefetch=1) as loader:
        for _ in range(2):
            for _batch in loader:
                time.sleep(0.05)
    assert far.metric("datahub_origin_bytes_total") < 14 * BLOCK  # each block once


@pytest.mark.parametrize(
    "order",
    [
        {"seed": 1, "batch": 1 << 40},
        {"seed": 1, "batch": 1 << 40, "lanes": 1 << 20},
        {"seed": (1 << 63) - 1, "batch": 4096, "lanes": 4096, "window": 1},
        {"seed": 1, "batch": 4, "max_samples": 1 << 62},
        {"seed": 1, "batch": 4, "part": [[0.4, 0.2], [1.0, 1.0]]},
        {"seed": 1, "batch": 4, "mix": {"weights": [500, 500], "samples": [1 << 40, 7], "member": 0}},
        {"seed": 1, "batch": 4, "mix": {"weights": [500, 500], "samples": [9, 7], "member": 0}},
        {"seed": 1, "batch": 1 << 40, "mix": {"weights": [1, 999], "samples": [24, 7], "member": 0, "stop": 1 << 40}},
        {"seed": 1, "batch": 4, "mix": {"weights": [500, 500], "samples": [24, 7], "member": 63}},
    ],
)
def test_lies_hurt_nobody(far, order):
    assert say(far, order=order, position=1 << 62, epoch=1 << 62, ahead=1 << 62, kept="AAAA" * 9000) == 200
    assert say(far, job="b") == 200
    within(lambda: all(present(far)))  # the honest one is served
    assert far.ask("/readyz").status == 200


def test_a_server_that_ends_waits_for_nothing_that_is_worked_out(origin, tmp_path, monkeypatch):
    begun, over = threading.Event(), threading.Event()

    def slow(*_: Any) -> None:
        begun.set()
        over.wait(60)

    monkeypatch.setattr(prefetching, "view", slow)
    try:
        with running(Settings(home=tmp_path / "server"), tmp_path / "log", origin=(str(origin),)) as server:
            assert say(server) == 200
            assert begun.wait(DEADLINE)
        assert not over.is_set() and server.loop.is_closed()
    finally:
        over.set()


def test_of_very_many_jobs_so_many_are_foreseen_at_a_time(far, monkeypatch):
    looked: list[str] = []
    original = prefetching.view

    def counted(job: Any, *rest: Any) -> Any:
        looked.append(job.job)
        return original(job, *rest)

    monkeypatch.setattr(prefetching, "MOST", 3)
    monkeypatch.setattr(prefetching, "view", counted)
    for number in range(9):
        assert say(far, job=f"a{number}", order={"seed": number, "batch": 4}) == 200
    within(lambda: all(present(far)))
    looked.clear()
    within(lambda: len(looked) > 9)
    assert len(set(looked[-9:])) <= 3


def test_orders_that_are_none_are_refused(far):
    assert say(far, order={"batch": 3, "lanes": 2}) == 400
    assert say(far, order={"part": [[0, 2]]}) == 400
    assert say(far, order={"part": [[0, 1]] * 65}) == 400
    assert say(far, kept="A" * 49_153) == 400
    assert say(far, run="a b") == 400
    assert say(far, job="a\n") == say(far, run="a\n") == 400
    assert say(far, servers=["x"] * 65) == 400


def test_what_a_record_says_of_its_samples_is_not_trusted(far, monkeypatch):
    """A locate file that does not fit its shards: the job is not foreseen, and the server goes on."""

    def refused(*_: Any) -> Shards:
        from datahub.core.errors import RecordInvalid

        raise RecordInvalid("locate", "names samples outside of their shards")

    monkeypatch.setattr(prefetching, "layout", refused)
    assert say(far) == 200
    time.sleep(0.3)
    assert not any(present(far)) and far.ask("/readyz").status == 200
    assert "a bug" not in far.log.read_text()
