"""Damaged samples set aside: their rows alone change, on every run, rank and resume, and the record says why."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from datahub.core.errors import DamagedSample, DiskError, NotWritable, StoreDamaged
from datahub.core.settings import Settings
from datahub.loader import quarantine, work
from datahub.loader.streaming import StreamingLoader
from datahub.loader.topology import Topology
from datahub.loader.torch_dataset import StreamingDataset
from tests.loader.conftest import image, label, same
from tests.store.builder import encoded, pixels, tiny_variant

BROKEN, RESIZED, GARBAGE = 3, 20, 41
"""Rows of ``tiny`` that `spoil` damages, each in another way."""


def spoil(home: Settings) -> list[int]:
    """Damage three samples in place: pixels without their checksum, an image of another size, no image at all."""
    from datahub.loader.opening import open_dataset

    split = open_dataset("tiny", home)["train"]
    for row, how in ((BROKEN, "pixels"), (RESIZED, "size"), (GARBAGE, "garbage")):
        place = split.locate[row]
        size = int(place["size"])
        with split.shards[int(place["shard"])].open("r+b") as file:
            file.seek(int(place["offset"]) + (45 if how == "pixels" else 0))
            small = encoded(pixels("train", row, size=(5, 4)))
            file.write({"pixels": b"\xff" * 20, "size": small.ljust(size, b"\0"), "garbage": b"x" * size}[how])
    return [BROKEN, RESIZED, GARBAGE]


def files(home: Settings) -> list[Path]:
    return sorted(home.home.rglob("derived/*/quarantine/*"))


def entries(home: Settings) -> list[dict]:
    return [json.loads(line) for path in files(home) for line in path.read_text().splitlines()]


def check_rows(batches, bad, whole) -> None:
    """Against the batches of the undamaged set: damaged rows are black and not valid, all else is bit for bit alike."""
    for batch, sound in zip(batches, whole, strict=True):
        aside = torch.tensor([row in bad for row in batch["index"].tolist()])
        assert torch.equal(batch["index"], sound["index"]) and torch.equal(batch["label"], sound["label"])
        assert torch.equal(batch["valid"], sound["valid"] & ~aside)
        assert torch.equal(batch["image"][~aside], sound["image"][~aside])
        assert not batch["image"][aside].any() and batch["n_global"] == sound["n_global"]
        assert batch.state == sound.state


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("piece", [work.PIECE_BYTES, 500])
def test_only_the_damaged_rows_change(make, home, workers, piece, monkeypatch):
    monkeypatch.setattr(work, "PIECE_BYTES", piece)
    whole = list(make(shuffle=True))
    bad = spoil(home)
    loader = make(shuffle=True, num_workers=workers, on_error="quarantine")
    check_rows(list(loader), bad, whole)
    stats = loader.stats()
    assert (stats["samples"], stats["quarantined"], stats["batches"]) == (47, 3, 7)
    assert "3 quarantined" in loader.explain()
    found = {entry["row"]: entry for entry in entries(home)}
    assert sorted(found) == bad
    place = loader.split.locate[RESIZED]
    assert found[RESIZED] == {
        "row": RESIZED,
        "shard": loader.split.shards[int(place["shard"])].name,
        "key": f"train-{RESIZED:09d}",
        "offset": int(place["offset"]),
        "cause": "is 5 x 4, not 12 x 10 as its index says",
    }
    assert "checksum" in found[BROKEN]["cause"] and "no image" in found[GARBAGE]["cause"]


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_on_every_rank_and_on_resume(make, home, world_size):
    whole = list(make(global_batch_size=8, shuffle=True))
    bad = spoil(home)
    once = list(make(global_batch_size=8, shuffle=True, on_error="quarantine"))
    check_rows(once, bad, whole)
    for start in (0, 4):
        parts = []
        for rank in range(world_size):
            loader = make(global_batch_size=8, shuffle=True, on_error="quarantine", topology=Topology(rank, world_size))
            loader.skip(start)
            parts.append(list(loader))
        for step, expected in enumerate(once[start:]):
            mine = [part[step] for part in parts]
            assert {each["n_global"] for each in mine} == {expected["n_global"]}
            valid = torch.cat([each["index"][each["valid"]] for each in mine])
            assert torch.equal(valid, expected["index"][expected["valid"]])
            images = torch.cat([each["image"][each["valid"]] for each in mine])
            assert torch.equal(images, expected["image"][expected["valid"]])


def test_any_batch_of_any_moment_marks_them_too(make, home):
    spoil(home)
    loader = make(shuffle=True, on_error="quarantine")
    epochs = [list(loader) for _ in range(2)]
    assert all(same(make(shuffle=True, on_error="quarantine").at(1, step), epochs[1][step]) for step in range(7))


def test_the_record_does_not_grow(make, home):
    bad = spoil(home)
    loader = make(shuffle=True, on_error="quarantine")
    for _ in range(3):
        list(loader)
    assert loader.stats()["quarantined"] == 9
    before = [path.read_bytes() for path in files(home)]
    list(make(shuffle=True, on_error="quarantine"))
    assert [path.read_bytes() for path in files(home)] == before
    assert len(before) == 1 and sorted(each["row"] for each in entries(home)) == bad


def test_a_torn_line_is_passed_over(make, home):
    bad = spoil(home)
    list(make(on_error="quarantine"))
    (path,) = files(home)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    list(make(on_error="quarantine"))
    assert sorted(each.row for each in quarantine.recorded(path.parent)) == bad


def test_without_a_quarantine_the_first_is_an_error(make, home):
    spoil(home)
    with pytest.raises(DamagedSample, match="train-000000003"):
        list(make())
    assert files(home) == []


def test_a_shard_cut_short_costs_its_end_alone(make, home):
    whole = list(make())
    loader = make(on_error="quarantine")
    rows = loader.split.locate[:]
    path = loader.split.shards[1]
    inside = [row for row in range(50) if rows["shard"][row] == 1]
    bad = inside[10:]
    os.truncate(path, int(rows["offset"][bad[0]]) + 7)
    check_rows(list(loader), set(bad), whole)
    assert sorted(each["row"] for each in entries(home)) == bad
    assert all("ends at byte" in each["cause"] for each in entries(home))


def test_encoded_bytes_of_a_shard_cut_short_come_empty(make, home):
    loader = make(on_error="quarantine", fields=("encoded", "index", "valid"))
    rows = loader.split.locate[:]
    inside = [row for row in range(50) if rows["shard"][row] == 1]
    os.truncate(loader.split.shards[1], int(rows["offset"][inside[12]]) + 7)
    got = {row: (data, valid) for batch in loader for data, row, valid in zip(*(map(list, batch)), strict=True)}
    found = {int(row): (data, bool(valid)) for row, (data, valid) in got.items()}
    assert {row for row, (data, valid) in found.items() if not valid} == set(inside[12:])
    assert all(bool(data) == valid for data, valid in found.values())


def test_a_missing_shard_stays_an_error(make, home):
    loader = make(on_error="quarantine")
    loader.split.shards[1].unlink()
    with pytest.raises(StoreDamaged, match=loader.split.shards[1].name):
        list(loader)
    assert files(home) == []


def test_a_set_that_is_damaged_throughout_is_an_error(make, home):
    loader = make(on_error="quarantine")
    for path in loader.split.shards:
        os.truncate(path, 0)
    with pytest.raises(StoreDamaged, match=r"2[0-9] of 50 samples cannot be read or decoded"):
        list(loader)


def test_images_of_many_sizes_keep_the_size_the_index_says(settings):
    folder = tiny_variant(settings.home, splits={"train": 12}, format="jpeg", size=(30, 20))
    text = (folder / "dataset.json").read_text()
    document = json.loads(text)
    document["fields"]["image"]["shape"] = None
    (folder / "dataset.json").write_text(json.dumps(document))
    with StreamingLoader("tiny", batch_size=4, settings=settings, on_error="quarantine") as loader:
        place = loader.split.locate[5]
        with loader.split.shards[int(place["shard"])].open("r+b") as file:
            file.seek(int(place["offset"]))
            file.write(b"no JPEG")
        batches = list(loader)
    assert batches[1]["valid"].tolist() == [True, False, True, True]
    assert [tuple(each.shape) for each in batches[1]["image"]] == [(3, 20, 30)] * 4
    assert not batches[1]["image"][1].any() and batches[1]["image"][2].any()


@pytest.mark.parametrize(("width", "height"), [(0, 0), (60_000, 60_000)])
def test_a_black_image_is_never_as_large_as_damage_may_promise(width, height):
    made = quarantine.filler({"width": width, "height": height}, 3)
    assert made.shape == (3, quarantine.UNKNOWN, quarantine.UNKNOWN)


def test_transforms_and_collate_see_the_black_image(make, home):
    spoil(home)
    whole = next(iter(make(on_error="quarantine", batch_size=50, transform=lambda image: image.float() + 1)))
    assert whole["image"].shape == (50, 3, 10, 12) and whole["image"][BROKEN].eq(1).all()
    samples = next(iter(make(on_error="quarantine", batch_size=50, collate=lambda samples: samples)))
    assert [row for row, sample in enumerate(samples) if not sample["valid"]] == [BROKEN, RESIZED, GARBAGE]
    assert samples[RESIZED]["label"] == label("train", RESIZED)
    assert torch.equal(samples[0]["image"], image("train", 0))


def test_an_error_of_a_callable_is_no_damage(make, home):
    def fail(image):
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        list(make(on_error="quarantine", transform=fail))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_data_loader_set_the_same_rows_aside(make, home, method):
    bad = spoil(home)
    expected = list(make(shuffle=True, on_error="quarantine"))
    shutil.rmtree(home.home / "derived")
    dataset = StreamingDataset("tiny", batch_size=8, shuffle=True, on_error="quarantine", settings=home)
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context=method)
    assert all(same(a, b) for a, b in zip(loader, expected, strict=True))
    assert sorted(each["row"] for each in entries(home)) == bad
    assert 1 <= len(files(home)) <= 2  # a file for each process that met one
    dataset.close()


def in_child(kept: quarantine.Quarantine, row: int) -> None:
    kept.add(row, DamagedSample("shard", f"k-{row}", 7, "cause " * 400))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_each_process_writes_a_file_of_its_own(tmp_path, method):
    kept = quarantine.Quarantine(tmp_path / "quarantine", "tiny", 10)
    in_child(kept, 1)
    context = multiprocessing.get_context(method)
    for row in (1, 2):
        child = context.Process(target=in_child, args=(kept, row))
        child.start()
        child.join(30)
        assert child.exitcode == 0
    written = sorted((tmp_path / "quarantine").iterdir())
    assert len(written) == 2 and all(path.suffix == ".jsonl" for path in written)
    assert [each.row for each in sorted(quarantine.recorded(tmp_path / "quarantine"), key=lambda e: e.row)] == [1, 2]
    assert all(len(line) < 700 for path in written for line in path.read_bytes().splitlines())
    assert pickle.loads(pickle.dumps(kept)).folder == kept.folder


def test_a_home_that_cannot_be_written_is_told_at_once(make, home, monkeypatch):
    monkeypatch.setattr(quarantine.os, "access", lambda path, mode: False)
    with pytest.raises(NotWritable, match="quarantine"):
        make(on_error="quarantine")


def test_a_record_that_cannot_be_written_is_an_error(make, home, monkeypatch):
    spoil(home)
    loader = make(on_error="quarantine")
    target = home.home / "derived"
    shutil.rmtree(target, ignore_errors=True)
    target.write_text("in the way")
    with pytest.raises(DiskError):
        list(loader)
