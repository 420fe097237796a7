"""Boxes, masks, keypoints and bytes: written, packed, verified, and refused where they are wrong."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from datahub.core.errors import BadArgument, NotReadable
from datahub.core.events import ignore
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.pack import objects
from datahub.pack.authoring import Writer
from datahub.pack.fetch import Options, pack_files
from datahub.pack.sources import target_of
from datahub.store import samples
from datahub.store.dataset import Dataset, open_dataset
from datahub.store.find import Located, find
from datahub.store.verify import verify
from tests.pack.jpegs import encoded, picture
from tests.pack.test_packing import bytes_of
from tests.pack.things import CLASSES, COUNT, FIELDS, check, thing, write_things


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings(home=tmp_path_factory.mktemp("things") / "home")
    write_things(settings)
    return settings


def numbered(dataset: Dataset) -> dict[int, Any]:
    return {int(sample["source"][3:]): sample for sample in dataset["train"]}


def test_what_was_written_is_read_again(things: Settings) -> None:
    verify(find(things, Ref("things")), deep=True)
    dataset = open_dataset("things", things)
    assert dataset.classes == CLASSES
    assert dataset.record.task == "keypoint-detection"
    assert dataset.record.fields["points"].shape == [5, 2] and dataset.record.fields["boxes"].format == "xywh"
    found = numbered(dataset)
    assert sorted(found) == list(range(COUNT))
    for number, sample in found.items():
        check(sample, number)
        assert sample["boxes"].dtype == np.float32 and sample["boxes"].shape[1:] == (4,)
        assert sample["points"].shape[1:] == (5, 2) and sample["seen"].shape[1:] == (5,)


def test_the_index_holds_the_rows_for_queries(things: Settings) -> None:
    dataset = open_dataset("things", things)
    table = pq.read_table(dataset.path / "index-train.parquet").to_pydict()
    for at, source in enumerate(table["source"]):
        wanted = thing(int(source[3:]))
        assert np.array_equal(np.array(table["boxes"][at], np.float32).reshape(-1, 4), wanted["boxes"])
        assert [CLASSES[each] for each in table["kind"][at]] == wanted["kind"]
        assert table["raw_size"][at] == len(wanted["raw"])
    with pytest.raises(BadArgument, match="boxes"):
        dataset["train"].meets("boxes > 3")


def test_parts_and_order_do_not_show_in_the_bytes(settings: Settings, things: Settings) -> None:
    for part in ("2/3", "1/3", "3/3"):
        write_things(settings, part=part)
    one, other = (find(each, Ref("things")).path for each in (things, settings))
    shards = sorted(path.name for path in one.glob("*.tar"))
    assert [bytes_of(one)[name] for name in shards] == [bytes_of(other)[name] for name in shards]


def test_another_variant_carries_the_annotations(settings: Settings) -> None:
    with Writer("photos@1", FIELDS, settings=settings) as writer:
        for number in range(4):
            sample = {**thing(number, (24, 40)), "image": encoded(picture(40, 24, number))}
            writer.write(source=f"it-{number:03d}", **sample)
    pack_files(target_of("photos", Ref("photos", "1", "raw"), settings), (), settings, Options(jobs=1))
    verify(find(settings, Ref("photos", "1", "raw")), deep=True)
    one, other = (open_dataset(f"photos@1/{variant}", settings) for variant in ("published", "raw"))
    for number, sample in numbered(other).items():
        check(sample, number, (24, 40))
        assert sample["key"] == numbered(one)[number]["key"]
        split = one["train"]
        assert other["train"].member(sample["index"], "json") == split.member(sample["index"], "json")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("boxes", [[1, 2, 3]], r"has the shape \(1, 3\), not \(N, 4\)"),
        ("boxes", [[1, 2, 3, float("nan")]], "not finite"),
        ("boxes", [[1, 2, 3, 1e39]], "not finite"),
        ("boxes", [[5, 5, -1, 2]], "box 0, .* ends before it begins: is it xywh"),
        ("boxes", ["a"], "no array"),
        ("boxes", None, "no array"),
        ("boxes", [[1, 2], [3]], "no array"),
        ("boxes", np.zeros((2, 4)), "kind has 1 rows, boxes has 2"),
        ("kind", ["cat", "dog"], "kind has 2 rows, boxes has 1"),
        ("kind", "cat", "no list of classes"),
        ("kind", [1.5], "neither a class's name nor its number"),
        ("iscrowd", [0.5], "not whole"),
        ("iscrowd", [2**63], "64 bits"),
        ("score", [float("inf")], "not finite"),
        ("points", [[1, 2]], "no array"),
        ("seen", [[0.5] * 5], "not whole"),
        ("masks", np.zeros((1, 4, 4), np.uint8), "the image is 24 x 30"),
        ("masks", np.zeros((24, 30), np.uint8), "no array"),
        ("masks", [{"size": [24, 30], "counts": [3]}], "do not add up"),
        ("masks", [{"size": [30, 24], "counts": [720]}], "is 30 x 24"),
        ("mask", np.zeros((30, 24), np.uint8), "is 24 x 30, the image 30 x 24"),
        ("mask", np.full((24, 30), -1), "holds the class -1"),
        ("mask", np.full((24, 30), 70000), "65535"),
        ("mask", np.zeros((24, 30)), "no array"),
        ("mask", Image.new("RGB", (30, 24)), "has the mode RGB"),
        ("mask", None, "no array"),
        ("mask", b"x", "cannot identify|cannot be decoded"),
        ("raw", "text", "neither bytes nor a path"),
    ],
)
def test_a_wrong_value_is_refused_as_it_is_written(settings: Settings, name: str, value: Any, reason: str) -> None:
    sound = thing(1, (24, 30))
    writer = Writer("x@1", FIELDS, settings=settings)
    with pytest.raises(BadArgument, match=reason) as caught:
        writer.write(**{**sound, name: value})
    assert len(str(caught.value)) < 400
    writer.discard()


def test_other_boxes_than_the_fields_and_paths_that_are_not_there(settings: Settings, tmp_path: Path) -> None:
    writer = Writer("x@1", FIELDS, settings=settings, classes=CLASSES)
    sound = thing(1, (24, 30))
    boxes = tv_tensors.BoundingBoxes(torch.ones(1, 4), format="XYXY", canvas_size=(24, 30))
    with pytest.raises(BadArgument, match="another format than the field's, xywh"):
        writer.write(**{**sound, "boxes": boxes})
    with pytest.raises(BadArgument, match="not one of the classes"):
        writer.write(**{**sound, "kind": ["cow"]})
    with pytest.raises(NotReadable):
        writer.write(**{**sound, "mask": tmp_path / "none.png"})
    with pytest.raises(BadArgument, match="points=None: is missing"):
        writer.write(**{name: value for name, value in sound.items() if name != "points"})
    writer.discard()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"boxes": "boxes:yxyx"}, "no format of boxes"),
        ({"boxes": "boxes:"}, "no format of boxes"),
        ({"labels": "labels:x"}, "not a type"),
        ({"a": "boxes", "b": "boxes"}, "one field of boxes, and that is a"),
        ({"json": "mask"}, "another column"),
        ({"mask": "mask", "mask_size": "int"}, "another column"),
        ({"a" * 50: "mask"}, "at most 40"),
        ({"json_size": "int"}, "every sample has already"),
    ],
)
def test_fields_that_cannot_be(settings: Settings, fields: dict[str, str], reason: str) -> None:
    with pytest.raises(BadArgument, match=reason):
        Writer("x@1", {"image": "image", **fields}, settings=settings)


def saved(pixels: Any, mode: str, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    (image if mode in ("P", image.mode) else image.convert(mode)).save(buffer, form, **options)
    return buffer.getvalue()


CLASSES_OF_PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def seen(data: bytes) -> np.ndarray[Any, Any]:
    from datahub.store import typed

    return typed.member(typed.spec("mask", "mask"), data, (3, 4))  # type: ignore[no-any-return]


def test_masks_keep_their_numbers_however_they_come(tmp_path: Path) -> None:
    pixels, wide = CLASSES_OF_PIXELS, CLASSES_OF_PIXELS.astype(np.uint16) * 1000
    for data in (saved(pixels, "L"), saved(pixels, "P"), saved(pixels, "P", bits=4)):
        assert objects.mask(data) == data
        assert np.array_equal(seen(data), pixels) and seen(data).dtype == np.uint8
    kept = saved(wide, "I;16")
    assert objects.mask(kept) == kept and np.array_equal(seen(kept), wide) and seen(kept).dtype == np.int32
    for form in ("TIFF", "BMP", "GIF"):
        assert np.array_equal(seen(objects.mask(saved(pixels, "L", form))), pixels)
    assert np.array_equal(seen(objects.mask(wide.astype(np.int64))), wide)
    assert np.array_equal(seen(objects.mask(pixels > 3)), pixels > 3)
    (tmp_path / "a.png").write_bytes(saved(pixels > 3, "1"))
    assert np.array_equal(seen(objects.mask(tmp_path / "a.png")), pixels > 3)
    with pytest.raises(ValueError, match="is a JPEG, which changes class numbers"):
        objects.mask(saved(pixels, "L", "JPEG"))


def test_four_bit_gray_is_read_as_its_numbers() -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes([16 * row[0] + row[1], 16 * row[2] + row[3]]) for row in CLASSES_OF_PIXELS.tolist())
    head = struct.pack(">IIBBBBB", 4, 3, 4, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert np.array_equal(seen(objects.mask(png)), CLASSES_OF_PIXELS)


@pytest.mark.parametrize("member", ["mask", "masks", "json"])
def test_verify_finds_what_was_damaged(settings: Settings, member: str) -> None:
    write_things(settings, count=9)
    split = open_dataset("things", settings)["train"]
    row = next(row for row in range(9) if split[row]["source"] == "it-003")
    offset, size = (each[row] for each in split.beside.of(member))
    with split.shards[int(split.locate[row]["shard"])].open("r+b") as file:
        file.seek(int(offset) + int(size) // 2)
        file.write(b"\xff\xff\xff\xff")
    problems = members_of(find(settings, Ref("things")))
    assert [each for each in problems if split.key(row) in each and f"its {'' if member == 'json' else member}" in each]


def members_of(located: Located) -> list[str]:
    """What is wrong with samples, digests left aside."""
    return [each.message for each in samples.check(located, frozenset(), jobs=1, listener=ignore)]
