"""`replay`, `bench` and `estimate` as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datahub.core.settings import Settings
from datahub.loader.streaming import StreamingLoader
from datahub.tensor.chart import HEIGHT, WIDTH
from tests.store.builder import CLASSES, damaged, tiny_variant


@pytest.fixture
def tiny(home: Path) -> Path:
    tiny_variant(home, splits={"train": 50, "test": 7}, shards=3, block=4)
    return home


def thumbnails(path: Path, count: int, lines: int = 2) -> list[np.ndarray]:
    """The pictures of a sheet of 96-pixel thumbnails, eight a row, without their captions."""
    sheet = np.asarray(Image.open(path))
    tall, wide = 96 + 14 * lines + 4, 100
    return [
        sheet[row * tall + 4 :][:96, column * wide + 4 :][:, :96]
        for row, column in (divmod(i, 8) for i in range(count))
    ]


def loader(home: Path, **arguments) -> StreamingLoader:
    return StreamingLoader("tiny", shuffle=True, settings=Settings(home), num_workers=0, **arguments)


def test_replay_draws_the_batch_that_the_run_saw(cli, tiny: Path, tmp_path: Path) -> None:
    picture = tmp_path / "b.png"
    result = cli("replay", "tiny", "--epoch", 3, "--step", 2, "--seed", 9, "--batch-size", 12, "-o", picture, "--json")
    assert result.code == 0, result.err
    with loader(tiny, batch_size=12, seed=9) as run:
        batches = [list(run) for _ in range(4)]
    batch = batches[3][2]
    found = result.json
    assert [each["index"] for each in found["samples"]] == batch["index"].tolist()
    assert [each["label"] for each in found["samples"]] == batch["label"].tolist()
    assert found["state"] == dict(batch.state) and found["position"] == 24 and found["n_global"] == 12
    first = found["samples"][0]
    assert first["key"] == f"train-{first['index']:09d}" and first["class"] == CLASSES[first["label"]]
    assert first["source"] == f"train/{first['class']}/{first['index']}.png" and first["valid"] is True
    for thumbnail, image in zip(thumbnails(picture, 12), batch["image"], strict=True):
        assert np.abs(thumbnail[8:88].mean((0, 1)) - image.float().mean((1, 2)).numpy()).max() < 12


def test_replay_of_a_rank_and_an_augmented_batch(cli, tiny: Path, tmp_path: Path) -> None:
    options = ("--global-batch-size", 12, "--rank", 1, "--world-size", 3, "--step", 0, "--split", "train")
    plain, normal = tmp_path / "p.png", tmp_path / "n.png"
    first = cli("replay", "tiny", *options, "-o", plain, "--json")
    second = cli("replay", "tiny", *options, "--augment", "normalize", "-o", normal, "--json")
    assert len(first.json["samples"]) == 4 and first.json["samples"] == second.json["samples"]
    assert plain.read_bytes() == normal.read_bytes()  # scaled back to what was seen
    said = cli("replay", "tiny", *options, "-o", plain)
    assert "4 samples, 4 valid" in said.out and str(plain) in said.out


def test_replay_shows_a_damaged_sample_for_what_it_is(cli, tiny: Path, tmp_path: Path) -> None:
    with loader(tiny, batch_size=8) as run:
        row = int(run.at(0, 0)["index"][2])
        place = run.split.locate[row]
        damaged(run.split.shards[int(place["shard"])], int(place["offset"]) + 60, 0xFF)
    picture = tmp_path / "d.png"
    result = cli("replay", "tiny", "--step", 0, "--batch-size", 8, "-o", picture, "--json")
    assert [each["valid"] for each in result.json["samples"]] == [at != 2 for at in range(8)]
    assert thumbnails(picture, 8)[2][8:88].max() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("replay", "tiny", "--step", 0), 2, "--batch-size"),
        (("replay", "tiny", "--step", 0, "--batch-size", 4, "--global-batch-size", 4), 2, "--batch-size"),
        (("replay", "tiny", "--step", 7, "--batch-size", 8), 2, "an epoch has 7 steps"),
        (("replay", "tiny", "--batch-size", 8), 2, "--step"),
        (("replay", "tiny", "--step", 0, "--batch-size", 8, "--split", "val"), 2, "no split 'val'"),
        (("replay", "tiny", "--step", 0, "--batch-size", 8, "--augment", "nope"), 2, "not a preset"),
        (("replay", "tiny", "--step", 0, "--batch-size", 8, "--window", "x"), 2, "window"),
        (("replay", "tiny", "--step", 0, "--batch-size", 8, "--lanes", 3), 2, "does not divide"),
        (("replay", "tiny", "--step", 0, "--batch-size", 8, "--rank", 1), 2, "rank"),
        (("replay", "mnist", "--step", 0, "--batch-size", 8), 7, "datahub fetch mnist"),
        (("bench", "mnist"), 7, "datahub fetch mnist"),
        (("bench", "tiny", "--seconds", 0), 2, "--seconds"),
        (("bench", "tiny", "--transform", "nope"), 2, "not a preset"),
        (("estimate", "tiny"), 2, "--nodes"),
        (("estimate", "mnits", "--nodes", 2), 2, "did you mean mnist"),
        (("estimate", "tiny", "--nodes", 2, "--split", "val"), 2, "no split 'val'"),
        (("estimate", "tiny", "--nodes", 2, "--image-bytes", "lots"), 2, "is not a size"),
        (("estimate", "tiny", "--nodes", 2, "--window", "x"), 2, "window"),
    ],
)
def test_wrong_use_is_one_line(cli, tiny: Path, tmp_path: Path, monkeypatch, arguments, code: int, says: str) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli(*arguments)
    assert result.code == code, result.err
    assert says in result.err and result.err.count("\n") == 1 and result.out == ""
    assert not list(tmp_path.glob("*.png"))


def test_a_picture_that_cannot_be_written_is_a_disk_error(cli, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = cli("replay", "tiny", "--step", 0, "--batch-size", 8, "-o", tmp_path / "file" / "b.png")
    assert result.code == 5 and result.err.count("\n") == 1


def test_bench_tells_stages_bottleneck_and_draws(cli, tiny: Path, tmp_path: Path) -> None:
    picture = tmp_path / "c.png"
    result = cli("bench", "tiny", "--batch-size", 8, "--steps", 30, "--transform", "normalize", "-o", picture, "-q")
    assert (result.code, result.out) == (0, ""), result.err
    image = np.asarray(Image.open(picture))
    assert image.shape == (HEIGHT, WIDTH, 3) and len(np.unique(image.reshape(-1, 3), axis=0)) > 10
    result = cli("bench", "tiny", "--batch-size", 8, "--steps", 30)
    assert result.code == 0 and "over 30 batches of 8 x 3 x 10 x 12 uint8" in result.out
    for word in ("read", "decode", "transform", "assemble", "bottleneck: ", "samples/s"):
        assert word in result.out


def test_bench_as_json(cli, tiny: Path) -> None:
    found = cli("bench", "tiny", "--batch-size", 8, "--seconds", 0.3, "--num-workers", 0, "--json").json
    assert found["steps"] > 7  # it goes on into later epochs
    assert 0.25 < found["points"][-1]["seconds"] < 5 and len(found["points"]) <= 42
    pairs = list(zip(found["points"], found["points"][1:], strict=False))
    assert all(a["seconds"] < b["seconds"] and a["samples"] < b["samples"] for a, b in pairs)
    assert found["stats"]["bottleneck"] and found["samples_per_second"] > 0 and found["first_batch"] > 0


def test_bench_counts_as_a_stopwatch_does(tiny: Path) -> None:
    from datahub.core.refs import Ref
    from datahub.loader.bench import Run, bench

    report = bench(Ref.parse("tiny"), Settings(tiny), Run(batch_size=8, steps=14, num_workers=1))
    first, last = report.points[0], report.points[-1]
    assert (first.samples, last.samples, report.steps) == (8, 100, 14)
    assert report.samples_per_second == pytest.approx(92 / (last.seconds - first.seconds))
    areas = sum(
        rate * (b.seconds - a.seconds)
        for (_, rate), a, b in zip(report.pace(), report.points, report.points[1:], strict=False)
    )
    assert areas == pytest.approx(92)


def test_estimate_for_people_and_programs(cli, tiny: Path) -> None:
    said = cli("estimate", "imagenet", "--nodes", 64, "--gpus", 8, "--rate", 2000, "--batch", 64)
    assert said.code == 0, said.err
    assert "64 nodes x 8 GPUs x 2,000 images/s = 1,024,000 images/s" in said.out
    for word in ("1,281,167 images", "147.9 GB", "cores", "Gbit/s", "Order(lanes=64)", "40 steps"):
        assert word in said.out
    found = cli("estimate", "tiny", "--nodes", 2, "--gpus", 1, "--rate", 10, "--lanes", 2, "--window", 1, "--json").json
    assert found["facts"]["samples"] == 50 and found["images_per_second"] == 10 and found["epoch_seconds"] == 2.5
    # All of so small a set lies in one block of 4 MiB, which both nodes need.
    assert [way["first"] for way in found["ways"]] == [found["facts"]["packed"]] * 3
    assert found["ways"][1]["first_per_second"] == pytest.approx(found["facts"]["packed"] / 2.5)
    json.dumps(found)


def test_the_same_moment_gives_the_same_picture(cli, tiny: Path, tmp_path: Path) -> None:
    pictures = [tmp_path / "1.png", tmp_path / "2.png"]
    for picture in pictures:
        assert cli("replay", "tiny", "--step", 1, "--batch-size", 5, "-o", picture).code == 0
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    assert not torch.cuda.is_initialized()
