"""What a server foresees of a job is what its loader reads."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from datahub.core.digests import BLOCK
from datahub.core.errors import RecordInvalid
from datahub.loader.announcing import bitmap
from datahub.loader.schedule import Plan, Schedule
from datahub.loader.topology import Topology
from datahub.order.formula import OrderOptions, cut_blocks
from datahub.order.mixture import Member, Mixture
from datahub.order.population import Blocks
from datahub.serve.foresight import MOST_LANES, Layout, Reads, foreseeable, layout, share, unpacked
from datahub.serve.library import Blob
from datahub.serve.outlook import NOMINAL, Paces, Shards, Worked, merged, view
from datahub.store.locate import LOCATE, encode
from datahub.store.record import ShardEntry, SplitEntry
from datahub.wire.messages import Job, JobMix, JobOrder


def split_of(counts: list[int], block: int = 7, gaps: list[int] | None = None) -> SplitEntry:
    return SplitEntry(
        samples=sum(counts),
        shards=[ShardEntry(path=f"s{number}.tar", samples=count) for number, count in enumerate(counts)],
        block=block,
        locate="locate.npy",
        index="index",
        fingerprint="",
        histogram=[],
        stats=None,
        gaps=gaps or [],
    )


def rows_of(counts: list[int], size: int) -> tuple[np.ndarray, list[int]]:
    """Samples of ``size`` bytes one after the other, and the bytes of each shard."""
    rows = np.zeros(sum(counts), LOCATE)
    rows["shard"] = np.repeat(np.arange(len(counts)), counts)
    rows["offset"] = np.concatenate([np.arange(count) for count in counts]) * (size + 1024) + 512
    rows["size"] = size
    return rows, [count * (size + 1024) + 10_240 for count in counts]


def laid_out(counts: list[int], size: int, gaps: list[int] | None = None) -> tuple[Layout, np.ndarray]:
    entry = split_of(counts, gaps=gaps)
    rows, sizes = rows_of(counts, size)
    return layout("train", entry, sizes, encode(rows)), rows


def touched(rows: np.ndarray, base: list[int], index: Any) -> set[int]:
    found = set()
    for row in rows[index]:
        first = int(row["offset"]) // BLOCK
        last = (int(row["offset"]) + int(row["size"]) - 1) // BLOCK
        found |= {base[int(row["shard"])] + number for number in range(first, last + 1)}
    return found


orders = st.builds(
    JobOrder,
    seed=st.integers(0, 5),
    batch=st.sampled_from([4, 8, 12, 1 << 40]),
    window=st.sampled_from(["all", 1, 2]),
    lanes=st.sampled_from([1, 2, 4]),
    shuffle=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), orders, st.integers(0, 3), st.data())
def test_the_next_read_of_every_block_is_the_loaders(counts, order, epoch, data):
    found, rows = laid_out(counts, 900_000)
    base = np.cumsum([0, *(-(-size // BLOCK) for size in rows_of(counts, 900_000)[1])]).tolist()
    batch = min(order.batch, -(-found.samples // order.lanes) * order.lanes)
    plan = Plan(
        shards=counts, block=7, seed=order.seed, shuffle=order.shuffle,
        options=OrderOptions(order.window, order.lanes), batch=batch, drop_last=False, static_shapes=False,
        topology=Topology(),
    )  # fmt: skip
    schedule = Schedule(plan)
    at = data.draw(st.integers(0, len(schedule))) * batch
    reads = Reads(found, order, epoch)
    told = reads.next(at)
    assert reads.size == schedule.size and len(told) == base[-1]
    position, seen = at, {}
    while (after := schedule.after(position)) is not None:
        for number in touched(rows, base, schedule.step(epoch, position).index):
            seen.setdefault(number, position)
        position = after
    for number, distance in enumerate(told):
        if number in seen:
            assert seen[number] <= at + distance < seen[number] + batch
        else:
            assert distance == math.inf


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=3), min_size=2, max_size=4),
    orders,
    st.sampled_from(["longest", "shortest", 3]),
    st.integers(0, 2),
    st.data(),
)
def test_the_next_read_of_a_mixtures_member_is_the_loaders(counts, order, stop, epoch, data):
    order = msgspec.structs.replace(order, batch=min(order.batch, 12))
    assume(all(sum(each) >= order.lanes for each in counts))
    cuts = sorted(data.draw(st.sets(st.integers(1, 19), min_size=len(counts) - 1, max_size=len(counts) - 1)))
    weights = [50 * (high - low) for low, high in zip([0, *cuts], [*cuts, 20], strict=True)]
    which = data.draw(st.integers(0, len(counts) - 1))
    part = [(0.0, 0.7)] if data.draw(st.booleans()) else []
    layouts = [laid_out(each, 900_000)[0] for each in counts]
    layouts = [replace(each, key=str(number)) for number, each in enumerate(layouts)]
    order = msgspec.structs.replace(order, part=part)
    kept = [each.kept(order) for each in layouts]
    blocks = [Blocks(each.edges, left) for each, left in zip(layouts, kept, strict=True)]
    samples = [each.samples for each in blocks]
    assume(min(samples) >= order.lanes)
    population = Mixture([Member(str(n), each, "") for n, each in enumerate(blocks)], weights, stop)
    plan = Plan(
        shards=[], block=7, seed=order.seed, shuffle=order.shuffle, options=OrderOptions(order.window, order.lanes),
        batch=order.batch, drop_last=False, static_shapes=False, topology=Topology(), population=population,
    )  # fmt: skip
    schedule = Schedule(plan)
    mix = JobMix(weights=weights, samples=samples, member=which, stop=stop)
    asked = msgspec.structs.replace(order, mix=mix)
    assume(foreseeable(split_of(counts[which]), asked))  # not where a member is walked through hundreds of times
    reads = Reads(layouts[which], asked, epoch, kept[which])
    assert reads.size == schedule.size and share(asked) == weights[which] / 1000
    at = data.draw(st.integers(0, len(schedule))) * order.batch
    rows, sizes = rows_of(counts[which], 900_000)
    base = np.cumsum([0, *(-(-size // BLOCK) for size in sizes)]).tolist()
    first = int(population.bases[which])
    position, seen = at, {}
    while (after := schedule.after(position)) is not None:
        step = schedule.step(epoch, position)
        index = step.index[step.valid] - first
        for number in touched(rows, base, index[(index >= 0) & (index < len(rows))]):
            seen.setdefault(number, position)
        position = after
    for number, distance in enumerate(reads.next(at)):
        assert (distance == math.inf) == (number not in seen)
        assert number not in seen or seen[number] <= at + distance < seen[number] + order.batch


def test_mixtures_that_are_none_or_cost_too_much_are_not_worked_out():
    entry, order = split_of([50, 50]), JobOrder(batch=8, lanes=2)

    def told(**facts: Any) -> bool:
        mix = JobMix(**{"weights": [500, 500], "samples": [100, 10], "member": 0, **facts})
        return foreseeable(entry, msgspec.structs.replace(order, mix=mix))

    assert told() and told(stop=100) and told(stop="shortest")
    assert not told(member=2) and not told(samples=[100, 10, 10]) and not told(weights=[1000, 1000])
    assert not told(samples=[100, 1])  # fewer than lanes
    assert told(samples=[100, 20_000]) and not told(samples=[100, 30_000])  # as many passes as that takes
    assert (
        not told(stop=1 << 40) and not told(samples=[100, 1 << 40]) and not told(weights=[1, 999], samples=[1 << 30, 9])
    )
    found, _ = laid_out([50, 50], 900_000)
    lying = msgspec.structs.replace(order, mix=JobMix(weights=[500, 500], samples=[90, 10], member=0))
    with pytest.raises(RecordInvalid):
        Reads(found, lying, 0)


def test_a_mixtures_positions_are_told_as_the_members_share():
    shards = shards_of([30, 30])
    mix = JobMix(weights=[250, 750], samples=[60, 60], member=0)
    order = JobOrder(batch=4, mix=mix)
    reads = Reads(shards.layout, order, 0)
    found = view(job_of(order=order, position=10, ahead=5), shards, Worked(), lambda _: 0.0, 1 << 40)
    assert found is not None and found.progress == 40
    assert found.until.tolist() == (60 + np.where(np.isinf(reads.next(60)), reads.size - 60 + Reads(
        shards.layout, order, 1).next(0), reads.next(60))).tolist()  # fmt: skip


def test_a_selection_is_the_loaders():
    found, rows = laid_out([40, 30], 900_000, gaps=[3, 11])
    order = JobOrder(seed=1, batch=4, part=[(0.0, 0.5)], max_samples=20)
    kept = found.kept(order)
    assert kept is not None and len(kept) == 20
    from datahub.order import keyhash

    numbers = np.delete(np.arange(72), [3, 11])
    mask = keyhash.within(numbers, "train", [(0.0, 0.5)])
    inside = np.flatnonzero(mask)
    expected = inside[keyhash.first(numbers[inside], "train", 20)]
    assert kept.rows(np.arange(20)).tolist() == expected.tolist()
    blocks = Blocks(cut_blocks([40, 30], 7), kept)
    reads = Reads(found, order, 0, kept)
    assert reads.size == blocks.samples == 20
    base = np.cumsum([0, *(-(-size // BLOCK) for size in rows_of([40, 30], 900_000)[1])]).tolist()
    assert set(np.flatnonzero(np.isfinite(reads.next(0)))) == touched(rows, base, expected)


@pytest.mark.parametrize("change", ["dtype", "rows", "outside", "shard", "cut"])
def test_locate_rows_that_do_not_fit_are_refused(change):
    entry = split_of([5, 5])
    rows, sizes = rows_of([5, 5], 1000)
    if change == "rows":
        rows = rows[:-1]
    if change == "outside":
        rows["offset"][3] = 1 << 50
    if change == "shard":
        rows["shard"][3] = 2
    data = encode(rows)
    if change == "dtype":
        import io

        buffer = io.BytesIO()
        np.save(buffer, np.zeros(10))
        data = buffer.getvalue()
    with pytest.raises(RecordInvalid):
        layout("train", entry, sizes, data[:50] if change == "cut" else data)


def damaged(change: str, data: bytes) -> bytes:
    if change == "an archive":
        file = io.BytesIO()
        np.savez(file, rows=np.zeros(3, LOCATE))
        return file.getvalue()
    if change == "no archive":
        return b"PK\x03\x04" + data
    if change == "no expression":
        return data.replace(b"'descr'", b"(descr'")
    shape = {"a shape of many": b"(3000000000000000,)", "a shape of none": b"(True,)"}[change]
    at = data.index(b"(", data.index(b"'shape'"))
    return data[:at] + shape + data[at + len(shape) :]


@pytest.mark.parametrize("change", ["an archive", "no archive", "no expression", "a shape of many", "a shape of none"])
def test_what_is_no_locate_file_is_refused(change):
    rows, sizes = rows_of([3], 1000)
    with pytest.raises(RecordInvalid):
        layout("train", split_of([3]), sizes, damaged(change, encode(rows)))


def test_orders_that_cost_too_much_are_not_worked_out():
    entry = split_of([5000, 5000])
    assert foreseeable(entry, JobOrder(batch=64, lanes=8))
    assert not foreseeable(entry, JobOrder(batch=1 << 20, lanes=1 << 20))
    assert not foreseeable(entry, JobOrder(batch=3 * MOST_LANES, lanes=2 * MOST_LANES))
    assert not foreseeable(entry, JobOrder(batch=7, lanes=2))
    assert not foreseeable(split_of([0]), JobOrder())
    assert not foreseeable(split_of([1 << 24, 1 << 24, 1]), JobOrder())
    assert not foreseeable(split_of([1 << 20], block=1), JobOrder(window=1))


@given(st.lists(st.booleans(), max_size=70), st.integers(0, 80))
def test_a_bitmap_arrives_as_it_was_sent(kept, blocks):
    found = unpacked(bitmap(kept), blocks)
    assert found.tolist() == (kept + [False] * blocks)[:blocks]


@pytest.mark.parametrize("text", ["!", "AAA", "\x00", "é"])
def test_what_is_no_bitmap_keeps_nothing(text):
    assert not unpacked(text, 9).any()


def shards_of(counts: list[int]) -> Shards:
    found, _ = laid_out(counts, 900_000)
    blobs, at = [], 0
    for number, size in enumerate(rows_of(counts, 900_000)[1]):
        blocks = -(-size // BLOCK)
        raw = b"".join(bytes([at + each]) * 32 for each in range(blocks))
        at += blocks
        blobs.append(Blob(f"{number:064x}", size, raw, "d@1/v", f"s{number}.tar"))
    return Shards.of("etag", blobs, found)


def job_of(**more: Any) -> Job:
    facts = {"job": "a", "dataset": "d@1/v", "order": JobOrder(batch=4), "ttl": 60.0, "left": 60.0}
    return Job(**{**facts, **more})


def test_what_a_job_has_itself_or_asks_elsewhere_is_not_foreseen():
    shards = shards_of([30, 30])
    blocks = len(shards.where)
    everything = view(job_of(), shards, Worked(), lambda _: 0.0, 1 << 40)
    assert everything is not None and np.isfinite(everything.due).all() and len(everything.ahead) == blocks
    assert sorted(everything.ahead.tolist()) == list(range(blocks))
    mine = [number % 2 == 0 for number in range(blocks)]
    half = view(job_of(kept=bitmap(mine)), shards, Worked(), lambda _: 0.0, 1 << 40)
    assert half is not None and np.isinf(half.due).tolist() == mine
    servers = ["http://a:1", "http://b:1"]
    views = [view(job_of(servers=servers, here=each), shards, Worked(), lambda _: 0.0, 1 << 40) for each in servers]
    shares = [np.isfinite(each.due) for each in views if each is not None]
    assert (shares[0] ^ shares[1]).all()


def test_ahead_is_what_is_read_next_as_far_as_the_depth_goes():
    shards = shards_of([30, 30])
    found = view(job_of(position=8, ahead=4), shards, Worked(), lambda _: 0.0, 3 * BLOCK)
    assert found is not None
    soonest = np.argsort(found.due, kind="stable")
    assert found.ahead.tolist() == soonest[: len(found.ahead)].tolist() and 1 <= len(found.ahead) <= 4
    assert view(job_of(), shards, Worked(), lambda _: 1e9, 3 * BLOCK) is None  # too fast to be foreseen
    beyond = view(job_of(position=1 << 62, ahead=1 << 62, epoch=1 << 40), shards, Worked(), lambda _: 1.0, BLOCK)
    assert beyond is not None and np.isfinite(beyond.due).all()


def test_a_job_that_reads_most_blocks_between_two_messages_is_not_foreseen():
    shards, deep = shards_of([30, 30]), 1 << 40
    assert view(job_of(), shards, Worked(), lambda _: 0.5, deep) is not None
    assert view(job_of(), shards, Worked(), lambda _: 20.0, deep) is None


def test_the_soonest_of_several_jobs_counts():
    shards = shards_of([30, 30])
    worked = Worked()
    one, two = (
        view(job_of(job=name, order=JobOrder(seed=seed, batch=4)), shards, worked, lambda _: 0.0, 0)
        for seed, name in enumerate("ab")
    )
    assert one is not None and two is not None
    raw, due = merged([one, two])
    assert raw == shards.raw and (due == np.minimum(one.due, two.due)).all()
    again = replace(two, shards=replace(shards, etag="other"))
    raw, due = merged([one, again])
    last = {raw[at * 32 : at * 32 + 32]: value for at, value in enumerate(due)}
    assert [last[shards.raw[n * 32 : n * 32 + 32]] for n in range(len(one.due))] == np.minimum(
        one.due, two.due
    ).tolist()
    assert merged([])[0] == b""


def test_paces_follow_what_jobs_say():
    paces = Paces()
    assert paces.of("a", 0.0, 100) == 0.0 and NOMINAL > 0
    assert paces.of("a", 2.0, 300) == 100.0
    assert paces.of("a", 4.0, 700) == 150.0
    assert paces.of("a", 64.0, 700) == 75.0  # it stands still
    assert paces.of("a", 65.0, 0) == 150.0  # it went on elsewhere: its pace is what it was
    paces.keep([])
    assert paces.of("a", 66.0, 500) == 0.0
