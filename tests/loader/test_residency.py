"""Sets decoded once: the same batches as streaming, whatever was there before, and nothing half made."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import datahub
from datahub.core.errors import BadArgument, DamagedSample, DiskFull, LockTimeout, NotWritable, StoreDamaged
from datahub.core.locks import FileLock
from datahub.loader import residency, residency_decode, residency_files, work
from datahub.loader.memory import available_memory
from datahub.loader.residency import Facts, decide
from datahub.loader.streaming import StreamingLoader
from datahub.store.gc import gc, leftovers
from tests.loader.conftest import check, image, same, seen
from tests.store.builder import tiny_variant

FACTS = Facts(
    samples=60_000, shape=(1, 28, 28), obstacle=None, present=False, memory=8 << 30, disk=50 << 30, path="x", workers=2
)


def files(home: Path) -> list[Path]:
    return sorted(path for path in (home / "derived").rglob("*") if path.is_file())


def array(loader: StreamingLoader) -> Path:
    return residency_files.array_path(loader._residency._settings, loader.split)


def damage(loader: StreamingLoader, row: int) -> None:
    place = loader.split.locate[row]
    with loader.split.shards[int(place["shard"])].open("r+b") as file:
        file.seek(int(place["offset"]) + 45)
        file.write(b"\xff" * 20)


# -- the decision -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "facts", "kind", "reason"),
    [
        ("auto", {}, "host", "47.0 MB of pixels, decoded once"),
        ("auto", {"present": True}, "host", "decoded before"),
        ("stream", {}, "stream", "asked for"),
        ("auto", {"shape": None}, "stream", "no one shape"),
        ("auto", {"obstacle": "batches hold no image"}, "stream", "hold no image"),
        ("host", {"obstacle": "batches hold no image"}, "stream", "hold no image"),
        ("host", {"samples": 0}, "stream", "empty"),
        ("auto", {"samples": 50}, "stream", "too little"),
        ("auto", {"memory": 100 << 20}, "stream", "more than a quarter of the 104.9 MB of memory"),
        ("auto", {"disk": 10 << 20}, "stream", "10.5 MB of disk are free"),
        ("auto", {"disk": 0, "present": True}, "host", "decoded before"),
        ("auto", {"samples": 1_281_167}, "stream", "the first batch would wait some"),
        ("auto", {"samples": 1_281_167, "present": True}, "host", "decoded before"),
        ("host", {"samples": 1_281_167}, "host", "decoded once"),
        ("host", {"samples": 50, "memory": None, "disk": None}, "host", "decoded once"),
        ("device", {}, "device", "in memory whole"),
    ],
)
def test_the_decision(wanted, facts, kind, reason):
    found = decide(wanted, replace(FACTS, **facts))
    assert found.kind == kind and reason in found.reason and str(found) == f"{kind}: {found.reason}"


@pytest.mark.parametrize(
    ("wanted", "facts", "error", "reason"),
    [
        ("gpu", {}, BadArgument, "use auto, stream, host, device"),
        ("host", {"shape": None}, BadArgument, "no one shape"),
        ("device", {"memory": 1000}, BadArgument, "1.0 kB of memory are free"),
        ("host", {"disk": 1000}, DiskFull, "47040000 bytes needed, 1000 free"),
    ],
)
def test_what_cannot_be_had_is_refused(wanted, facts, error, reason):
    with pytest.raises(error, match=reason):
        decide(wanted, replace(FACTS, **facts))


@given(
    st.builds(
        Facts,
        samples=st.integers(0, 10**9),
        shape=st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4096), st.integers(1, 4096)),
        obstacle=st.none() | st.just("why"),
        present=st.booleans(),
        memory=st.none() | st.integers(0, 1 << 50),
        disk=st.none() | st.integers(0, 1 << 50),
        path=st.just("x"),
        workers=st.integers(1, 64),
    )
)
def test_auto_always_decides_and_takes_only_what_is_there(facts):
    found = decide("auto", facts)
    assert found.reason and found.kind in ("stream", "host")
    if found.kind == "host":
        assert facts.memory is None or facts.decoded <= facts.memory
        assert facts.present or facts.disk is None or facts.decoded <= facts.disk


def test_memory_is_what_machine_and_cgroups_leave(tmp_path):
    meminfo, own, groups = tmp_path / "meminfo", tmp_path / "own", tmp_path / "groups"
    meminfo.write_text("MemTotal:  100 kB\nMemAvailable:   90 kB\n")
    own.write_text("0::/a/b\n")
    (groups / "a" / "b").mkdir(parents=True)
    assert available_memory(meminfo, groups, own) == 90 << 10
    (groups / "a" / "memory.max").write_text("50000\n")
    (groups / "a" / "memory.current").write_text("30000\n")
    (groups / "a" / "memory.stat").write_text("anon 5\ninactive_file 7000\n")
    (groups / "a" / "b" / "memory.max").write_text("max\n")
    (groups / "a" / "b" / "memory.current").write_text("1\n")
    assert available_memory(meminfo, groups, own) == 27000
    own.write_text("3:cpu:/a\n4:memory:/m\n")
    (groups / "memory" / "m").mkdir(parents=True)
    (groups / "memory" / "m" / "memory.limit_in_bytes").write_text("2000\n")
    (groups / "memory" / "m" / "memory.usage_in_bytes").write_text("2500\n")
    assert available_memory(meminfo, groups, own) == 0
    assert available_memory(tmp_path / "none", groups, tmp_path / "none") is None


# -- the batches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["host", "device"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"shuffle": True, "num_workers": 0},
        {"fields": ("label", "image", "key", "weight")},
        {"transform": "normalize", "dtype": torch.float16, "channels_last": True},
        {"transform": lambda each: each.float().mean(dim=(1, 2)), "shuffle": True},
        {"transform": lambda each: each[:, :3], "collate": lambda samples: [(s["index"], s["image"]) for s in samples]},
        {"global_batch_size": 9, "topology": datahub.Topology(1, 2), "shuffle": True, "static_shapes": True},
    ],
    ids=lambda each: "-".join(each) or "nothing",
)
def test_the_same_batches_as_streaming(make, kind, arguments):
    streamed, held = make(residency="stream", **arguments), make(residency=kind, **arguments)
    for _ in range(2):
        assert all(same(a, b) for a, b in zip(streamed, held, strict=True))
    assert held.stats()["bytes"] == 0 and streamed.stats()["bytes"] > 0
    assert f"pixels: {kind}: " in held.explain() and "pixels: stream: asked for" in streamed.explain()


@pytest.mark.parametrize("workers", [0, 3])
def test_augmentation_is_the_same_streamed_resident_resumed_and_resized(make, workers):
    augment = datahub.transforms.Compose(
        [
            datahub.transforms.RandomCrop((10, 12), 3),
            datahub.transforms.RandomHorizontalFlip(),
            datahub.transforms.Scale(),
        ]
    )
    arguments = {"transform": augment, "shuffle": True, "seed": 4, "global_batch_size": 16, "batch_size": None}
    whole = list(make(residency="stream", **arguments))
    held = make(residency="host", num_workers=workers, **arguments)
    assert all(same(a, b) for a, b in zip(whole, held, strict=True))
    resumed = make(residency="host", num_workers=workers, **arguments)
    resumed.load_state_dict(whole[0].state)
    assert all(same(a, b) for a, b in zip(whole[1:], resumed, strict=True))
    assert same(resumed.at(0, 2)["image"], whole[2]["image"])
    ranks = [
        list(make(residency=kind, topology=datahub.Topology(r, 2), **arguments))
        for r, kind in enumerate(("host", "stream"))
    ]
    for number, batch in enumerate(whole):
        assert torch.equal(torch.cat([rank[number]["image"] for rank in ranks]), batch["image"])


def test_auto_keeps_what_is_worth_it(make, home, monkeypatch):
    assert "pixels: stream: 18.0 kB of pixels: too little" in make().explain()
    monkeypatch.setattr(residency, "SMALLEST", 1)
    loader = make()
    assert "pixels: host: 18.0 kB of pixels, decoded once" in loader.explain() and not files(home.home)
    for batch in loader:
        check(batch)
    assert [path.name for path in files(home.home)] == ["train-image.json", "train-image.npy"]
    assert "decoded before" in make().explain()
    other = make("test")
    assert sorted(seen(list(other))) == list(range(7))
    assert len(files(home.home)) == 4


def test_at_decodes_nothing(make, home):
    loader = make(residency="host")
    check(loader.at(0, 3))
    assert not files(home.home)


def test_encoded_bytes_are_read_all_the_same(make, home):
    loader = make(residency="host", fields=("image", "encoded"))
    assert "the encoded bytes, too" in loader.explain()
    images, encoded = next(iter(loader))
    assert len(images) == len(encoded) == 8 and encoded[0][:4] == b"\x89PNG" and not files(home.home)


def test_framings_and_mixtures_are_streamed_and_say_so(make, home):
    crop = datahub.transforms.RandomResizedCrop(6)
    a, b = (make(residency=kind, transform=crop, shuffle=True) for kind in ("host", "stream"))
    assert all(same(x, y) for x, y in zip(a, b, strict=True)) and "crops or scales before" in a.explain()
    tiny_variant(home.home, "other", splits={"train": 30})
    mixed = make(ref=datahub.mix({"tiny": 0.5, "other": 0.5}), residency="host", shuffle=True)
    assert len(list(mixed)) == len(mixed) and "several splits are mixed" in mixed.explain()
    assert not files(home.home)


@pytest.mark.parametrize(
    "arguments", [{"where": "weight >= 60"}, {"part": (0.0, 0.5)}, {"max_samples": 11}, {"ref": "balanced"}], ids=str
)
def test_selections_are_the_same(make, arguments):
    if arguments.get("ref"):
        arguments = {"ref": datahub.balanced("tiny")}
    streamed, held = (make(residency=kind, shuffle=True, **arguments) for kind in ("stream", "host"))
    for _ in range(2):
        assert all(same(a, b) for a, b in zip(streamed, held, strict=True))
    assert held.stats()["bytes"] == 0


def test_images_of_no_fixed_shape_are_refused(home):
    folder = tiny_variant(home.home, "loose")
    path = folder / "dataset.json"
    record = json.loads(path.read_text())
    record["fields"]["image"]["shape"] = None
    path.write_text(json.dumps(record))
    with pytest.raises(BadArgument, match="residency='host': the images have no one shape"):
        StreamingLoader("loose", batch_size=4, residency="host", settings=home)


# -- damaged samples --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_sample_raises_where_it_is_reached(make, workers):
    for _ in range(2):  # decoded now, and from the file
        loader = make(residency="host", num_workers=workers)
        damage(loader, 20)
        loop = iter(loader)
        assert seen([next(loop), next(loop)]) == list(range(16))
        with pytest.raises(DamagedSample, match="sample train-000000020 at byte"):
            next(loop)
        assert loader.state_dict()["position"] == 16


@pytest.mark.parametrize("what", ["damaged", "cut"])
def test_quarantine_is_the_same(make, what):
    first = make()
    if what == "damaged":
        damage(first, 20)
    else:
        last = first.split.locate[49]
        os.truncate(first.split.shards[int(last["shard"])], int(last["offset"]) + 10)
    held = make(residency="host", on_error="quarantine", transform="normalize")
    streamed = make(residency="stream", on_error="quarantine", transform="normalize")
    assert all(same(a, b) for a, b in zip(streamed, held, strict=True))
    assert held.stats()["quarantined"] == 1


def test_a_shard_that_is_gone(make, home, monkeypatch):
    loader = make()
    loader.split.shards[2].unlink()
    with pytest.raises(StoreDamaged, match=loader.split.shards[2].name):
        next(iter(make(residency="host")))
    assert not files(home.home)
    monkeypatch.setattr(residency, "SMALLEST", 1)
    automatic = make()
    check(next(iter(automatic)))
    assert "pixels: stream: decoding once did not work" in automatic.explain()


# -- the files --------------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-50, os.SEEK_END)
        byte = file.read(1)
        file.seek(-50, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))


def shape_lies(path: Path) -> None:
    note = path.with_suffix(".json")
    told = json.loads(note.read_text())
    told["shape"][3] -= 1
    note.write_text(json.dumps(told))


@pytest.mark.parametrize(
    "harm",
    [
        flip,
        lambda path: os.truncate(path, 1000),
        lambda path: path.write_bytes(b"\0" * path.stat().st_size),
        lambda path: path.unlink(),
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: path.with_suffix(".json").write_text("{"),
        shape_lies,
    ],
    ids=["flipped bit", "cut", "zeros", "gone", "no note", "torn note", "another shape"],
)
def test_what_is_not_as_it_was_written_is_made_again(make, harm):
    first = make(residency="host")
    list(first)
    path = array(first)
    before = path.read_bytes()
    harm(path)
    again = make(residency="host")
    for batch in again:
        check(batch)
    assert path.read_bytes() == before and again.stats()["bytes"] == 0


def test_a_touched_file_is_hashed_once_and_kept(make, monkeypatch):
    first = make(residency="host")
    list(first)
    os.utime(array(first), ns=(1, 1))
    hashed = []
    real = residency_files.digest_of
    monkeypatch.setattr(residency_files, "digest_of", lambda *a: hashed.append(a) or real(*a))
    monkeypatch.setattr(residency_files, "decode_split", lambda *a: pytest.fail("decoded again"))
    for _ in range(2):
        check(next(iter(make(residency="host"))))
    assert len(hashed) == 1


def test_other_bytes_under_the_name_are_another_file(make, home):
    first = make(residency="host")
    list(first)
    shutil.rmtree(first.dataset.path)
    tiny_variant(home.home, splits={"train": 50, "test": 7}, shards=2, block=4)
    second = make(residency="host")
    assert array(second) != array(first)
    for batch in second:
        check(batch)


def test_a_store_that_is_read_only(make, home, tmp_path):
    elsewhere = replace(home, home=tmp_path / "mine", stores=(home.home,))
    with StreamingLoader("tiny", batch_size=8, residency="host", settings=elsewhere) as loader:
        for batch in loader:
            check(batch)
    assert len(files(tmp_path / "mine")) == 2 and not (home.home / "derived").exists()


def test_a_full_disk(make, home, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(residency_decode.os, "posix_fallocate", full)
    with pytest.raises(DiskFull, match="train-image"):
        next(iter(make(residency="host")))
    assert not files(home.home)
    monkeypatch.setattr(residency, "SMALLEST", 1)
    loader = make()
    for batch in loader:
        check(batch)
    assert "no space left" in loader.explain()


def test_a_home_that_cannot_be_written(make, home, monkeypatch):
    (home.home / "derived").write_text("in the way")
    monkeypatch.setattr(residency, "SMALLEST", 1)
    check(next(iter(make())))
    with pytest.raises((NotWritable, datahub.errors.NotReadable)):
        next(iter(make(residency="host")))


def test_another_process_that_decodes_is_waited_for(make, home):
    loader = make(residency="host", timeout=1)
    name = array(loader).parent.parent.name
    lock = FileLock(home.locks / f"resident-{name}-train.lock")
    with lock:
        with pytest.raises(LockTimeout):
            iter(loader)
        waited = threading.Timer(0.3, lock.release)
        waited.start()
        check(next(iter(make(residency="host", timeout=20))))
        waited.join()


CHILD = """
import sys
from pathlib import Path
from datahub.core.settings import Settings
from datahub.loader import residency_decode
from datahub.loader.streaming import StreamingLoader

real, home, mode, calls = residency_decode.decode_rows, Path(sys.argv[1]), sys.argv[2], []
def decode_rows(encoded, out):
    calls.append(real(encoded, out))
    if mode == "die":
        print("decoding", flush=True)
        sys.stdin.read()
residency_decode.decode_rows = decode_rows
with StreamingLoader("tiny", batch_size=8, residency="host", timeout=60, settings=Settings(home=home)) as loader:
    print(sum(int(batch["image"].sum()) for batch in loader), len(calls))
"""


def child(home: Path, mode: str) -> subprocess.Popen:
    command = [sys.executable, "-c", CHILD, str(home), mode]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_killed_while_decoding_leaves_nothing_half_made(make, home):
    dying = child(home.home, "die")
    assert dying.stdout.readline() == "decoding\n"
    dying.send_signal(signal.SIGKILL)
    dying.communicate(timeout=30)
    left = files(home.home)
    assert len(left) == 1 and left[0].name.endswith(".tmp")
    for batch in make(residency="host"):
        check(batch)
    assert [path.name for path in files(home.home)] == ["train-image.json", "train-image.npy"]


def test_processes_that_begin_together_decode_once(home):
    total = sum(int(image("train", row).sum()) for row in range(50))
    together = [child(home.home, "") for _ in range(3)]
    found = [tuple(map(int, each.communicate(timeout=60)[0].split())) for each in together]
    assert sorted(found) == [(total, 0), (total, 0), (total, 1)]
    assert [path.name for path in files(home.home)] == ["train-image.json", "train-image.npy"]


def test_gc_knows_decoded_pixels(make, home):
    list(make(residency="host"))
    assert not leftovers(home, older_than=-1)
    half = array(make()).with_name(".train-image.npy.1.0123abcd.tmp")
    half.write_bytes(b"x")
    assert [each.kind for each in leftovers(home, older_than=-1)] == ["temporary"]
    gc(home, older_than=-1)
    shutil.rmtree(home.datasets / "tiny")
    assert not leftovers(home)  # young
    found = gc(home, older_than=-1)
    assert [each.kind for each in found] == ["resident"] and found[0].bytes > 18_000
    assert not files(home.home)


def test_the_pixels_file_is_numpys(make):
    loader = make(residency="host")
    list(loader)
    pixels = np.load(array(loader), mmap_mode="r")
    assert pixels.shape == (50, 3, 10, 12) and pixels.dtype == np.uint8
    assert all(np.array_equal(pixels[row], image("train", row)) for row in range(50))


@pytest.mark.parametrize(("transform", "pieces"), [(datahub.transforms.RandomHorizontalFlip(), 1), (torch.clone, 3)])
def test_resident_rows_that_a_batched_transform_takes_are_not_cut_up(make, monkeypatch, transform, pieces):
    monkeypatch.setattr(work, "PIECE_BYTES", 1)
    found = []
    cut = work.Work.pieces
    monkeypatch.setattr(work.Work, "pieces", lambda self, workers: found.append(cut(self, workers)) or found[-1])
    loader = make(num_workers=3, residency="host", transform=transform)
    assert same(list(loader), list(make(num_workers=0, residency="host", transform=transform)))
    assert max(len(each) for each in found) == pieces
