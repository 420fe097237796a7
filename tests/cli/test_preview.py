"""`preview` as a person types it: what is on the sheet, and what cannot be shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from datahub.core.settings import Settings
from datahub.loader.streaming import StreamingLoader
from datahub.pack import authoring
from datahub.tensor.marks import COLOURS, Marks, marked
from tests.store.builder import CLASSES, damaged, label, tiny_variant
from tests.tensor.images import encoded

CAPTION = 28


@pytest.fixture
def tiny(home: Path) -> Path:
    tiny_variant(home, splits={"train": 50, "test": 7}, shards=3, block=4)
    return home


@pytest.fixture
def scenes(home: Path) -> Path:
    """One gray image of 40 x 80 with two boxes, their masks and points; the second object lies at its right edge."""
    fields = {"image": "image", "boxes": "boxes:xywh", "kinds": "labels", "masks": "masks", "points": "keypoints"}
    masks = np.zeros((2, 40, 80), np.uint8)
    masks[0, 10:30, 10:30], masks[1, 5:15, 70:79] = 1, 1
    with authoring.Writer("scenes", fields, classes=["cat", "dog"], settings=Settings(home), jobs=1) as writer:
        writer.write(
            split="val", source="a", image=encoded(np.full((40, 80, 3), 100, np.uint8), "PNG"), kinds=[1, 0],
            boxes=[[10, 10, 20, 20], [70, 5, 9, 10]], masks=masks, points=[[[20, 35]], [[75, 35]]],
        )  # fmt: skip
    return home


def tiles(path: Path, count: int, size: int, columns: int) -> list[np.ndarray]:
    sheet = np.asarray(Image.open(path)).astype(int)
    tall, wide = size + CAPTION + 4, size + 4
    places = (divmod(at, columns) for at in range(count))
    return [sheet[row * tall + 4 :][:size, column * wide + 4 :][:, :size] for row, column in places]


def test_a_sheet_shows_the_samples_that_it_names(cli, tiny: Path, tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    found = cli("preview", "tiny", "--count", 7, "--seed", 4, "--size", 48, "-o", picture, "--json")
    assert found.code == 0, found.err
    with StreamingLoader("tiny", shuffle=True, seed=4, batch_size=7, settings=Settings(tiny), num_workers=0) as run:
        batch = run.at(0, 0)
    told = found.json
    assert [each["index"] for each in told["samples"]] == batch["index"].tolist()
    assert all(each["class"] == CLASSES[label("train", each["index"])] for each in told["samples"])
    assert told["split"] == "train" and told["of"] == 50
    for tile, image in zip(tiles(picture, 7, 48, 3), batch["image"], strict=True):
        assert np.abs(tile[4:44].mean((0, 1)) - image.float().mean((1, 2)).numpy()).max() < 12
    said = cli("preview", "tiny", "--split", "test", "--where", "label == 1", "-o", picture)
    wanted = sum(label("test", row) == 1 for row in range(7))
    assert f"tiny@1.0/published test: {wanted} of {wanted} samples" in said.out


def test_it_shows_what_a_preset_makes_of_them(cli, tiny: Path, tmp_path: Path) -> None:
    plain, same, other, normal = (tmp_path / f"{name}.png" for name in "abcd")
    assert cli("preview", "tiny", "--augment", "imagenet_train_strong", "--count", 4, "-o", plain).code == 0
    assert cli("preview", "tiny", "--augment", "imagenet_train_strong", "--count", 4, "-o", same).code == 0
    assert (
        cli("preview", "tiny", "--augment", "imagenet_train_strong", "--count", 4, "--epoch", 1, "-o", other).code == 0
    )
    assert plain.read_bytes() == same.read_bytes() != other.read_bytes()
    assert cli("preview", "tiny", "--no-shuffle", "-o", plain).code == 0
    assert cli("preview", "tiny", "--no-shuffle", "--augment", "normalize", "-o", normal).code == 0
    assert plain.read_bytes() == normal.read_bytes()  # scaled back to what was seen


def test_boxes_masks_and_points_are_drawn_where_they_are(cli, scenes: Path, tmp_path: Path) -> None:
    picture, bare = tmp_path / "p.png", tmp_path / "b.png"
    assert cli("preview", "scenes", "--size", 160, "-o", picture).code == 0  # val: there is no train
    image = np.asarray(Image.open(picture)).astype(int)[40:120]  # 80 x 160 in the middle; a lone tile has no border
    first, second = (np.array(ImageColor.getrgb(colour)) for colour in COLOURS[:2])
    assert (image[45:55, 20] == first).all() and (image[20:28, 140] == second).all()
    assert np.abs(image[50, 30] - (first + 100) / 2).max() <= 2 and (image[5, 5] == 100).all()
    assert (image[70, 40] == first).all() and (image[70, 150] == second).all()
    assert cli("preview", "scenes", "--fields", "image", "-o", bare).code == 0
    assert (np.asarray(Image.open(bare))[40:120] == 100).all()


def test_a_damaged_sample_is_black_and_told(cli, tiny: Path, tmp_path: Path) -> None:
    with StreamingLoader("tiny", batch_size=4, settings=Settings(tiny), num_workers=0) as run:
        place = run.split.locate[2]
        damaged(run.split.shards[int(place["shard"])], int(place["offset"]) + 60, 0xFF)
    said = cli("preview", "tiny", "--no-shuffle", "--count", 4, "--size", 48, "-o", tmp_path / "p.png")
    assert "4 of 50 samples, 1 of them damaged" in said.out
    assert tiles(tmp_path / "p.png", 4, 48, 2)[2][4:44].max() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("tiny", "--augment", "nope"), 2, "not a preset"),
        (("tiny", "--where", "labl == 1"), 2, "did you mean label?"),
        (("tiny", "--where", "label > 98"), 2, "leaves none of the 50 samples"),
        (("tiny", "--split", "val"), 2, "no split 'val'"),
        (("tiny", "--fields", "boxes"), 2, "not a field"),
        (("tiny", "--count", 0), 2, "--count"),
        (("mnist",), 7, "datahub fetch mnist"),
        (("tiny", "-o", "file/p.png"), 5, "file"),
    ],
)
def test_wrong_use_is_one_line(cli, tiny: Path, tmp_path: Path, monkeypatch, arguments, code: int, says: str) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    result = cli("preview", *arguments)
    assert result.code == code, result.err
    assert says in result.err and result.err.count("\n") == 1 and result.out == ""
    assert not list(tmp_path.glob("*.png")) and not torch.cuda.is_initialized()


def test_boxes_are_drawn_where_a_policy_puts_them(cli, scenes: Path, tmp_path: Path) -> None:
    first = np.array(ImageColor.getrgb(COLOURS[0]))
    counts = []
    for epoch in range(6):
        options = ("--augment", "imagenet_train_strong", "--epoch", epoch, "--size", 224, "-o")
        assert cli("preview", "scenes", *options, tmp_path / "p.png").code == 0
        assert cli("preview", "scenes", "--fields", "image", *options, tmp_path / "b.png").code == 0
        seen, bare = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("p.png", "b.png"))
        assert seen.shape == bare.shape
        counts.append(int((seen == first).all(axis=-1).sum() - (bare == first).all(axis=-1).sum()))
    assert sum(count > 50 for count in counts) >= 4, counts


@pytest.mark.parametrize("command", ["preview", "replay", "bench", "demo"])
@pytest.mark.parametrize("name", ["sheet.jpg", "sheet", "", "."])
def test_a_picture_is_a_png_by_name(tiny, tmp_path, cli, monkeypatch, command, name):
    monkeypatch.chdir(tmp_path)
    options = ["--epoch", "0", "--step", "0", "--batch-size", "4"] if command == "replay" else []
    done = cli(command, "tiny", *options, "-o", name)
    assert done.code == 2 and "write FILE.png" in done.err and len(done.err.splitlines()) == 1
    assert not [each for each in tmp_path.iterdir() if each.is_file()]


def test_a_class_of_masks_has_one_colour_in_all_images():
    for classes in ([0, 3], [1, 3], [3, 255]):
        seen = torch.tensor(classes, dtype=torch.uint8).repeat_interleave(20).expand(40, 40)
        found = marked(torch.zeros((3, 40, 40), dtype=torch.uint8), Marks(classes=seen), 40)
        at = int(np.flatnonzero(np.array(classes) == 3)[0]) * 20 + 10
        expected = torch.tensor(ImageColor.getrgb(COLOURS[2])) // 2
        assert (found[:, 20, at].int() - expected).abs().max() <= 1
