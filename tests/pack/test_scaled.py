"""Variants of smaller images: boxes, keypoints and masks are scaled with them, as torchvision's ``resize`` does it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from datahub.core.errors import LayoutError
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.loader.opening import open_dataset
from datahub.pack import scaling
from datahub.pack.authoring import Writer
from datahub.pack.fetch import Options, pack_files
from datahub.pack.sources import Reading, target_of
from datahub.store import typed
from datahub.store.find import find
from datahub.store.verify import verify
from tests.pack.jpegs import encoded, picture
from tests.pack.test_packing import bytes_of
from tests.pack.things import FIELDS, thing

FOLLOWING = ("boxes", "points", "masks", "mask")
STAYING = ("kind", "score", "iscrowd", "seen", "caption", "meta", "raw", "source", "key")
SIZES = [(90, 150), (150, 90), (64, 64), (40, 200), (97, 131), (64, 300)]
"""Heights and widths; those with a side of 64 or less stay as they are."""


def photos(settings: Settings, *, grey: bool = False) -> None:
    with Writer("photos@1", FIELDS, settings=settings) as writer:
        for number, size in enumerate(SIZES * 2):
            image = encoded(picture(size[1], size[0], number), "Gray" if grey else "420")
            writer.write(source=f"it-{number:03d}", **{**thing(number, size), "image": image})


def packed(settings: Settings, source: str, ref: Ref, reading: Reading | None = None, **options: Any) -> Any:
    wanted = target_of(source, ref, settings, *([reading] if reading else []))
    pack_files(wanted, (), settings, Options(**{"jobs": 1, "replace": True, **options}))
    verify(find(settings, ref), deep=True)
    return open_dataset(ref, settings)


def equal(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def check_resized(small: Any, whole: Any, names: tuple[str, ...]) -> None:
    size = tuple(small["image"].shape[1:])
    for name in names:
        if type(whole[name]) is torch.Tensor:  # points, where torchvision has no type for them
            continue
        expected = F.resize(whole[name], list(size))
        assert type(small[name]) is type(expected) and small[name].dtype == expected.dtype
        assert torch.equal(small[name], expected), name
    if "boxes" in names:
        assert small["boxes"].canvas_size == size and small["boxes"].format == whole["boxes"].format


@pytest.mark.parametrize("grey", [False, True])
def test_annotations_are_scaled_as_torchvision_scales_them(settings: Settings, grey: bool) -> None:
    photos(settings, grey=grey)
    small, whole = packed(settings, "photos", Ref("photos", "1", "max64")), open_dataset("photos@1/published", settings)
    table = pq.read_table(small.path / "index-train.parquet", columns=["boxes", "points"]).to_pydict()
    for at, (one, other) in enumerate(zip(small["train"], whole["train"], strict=True)):
        height, width = other["image"].shape[1:]
        expected = (height, width)
        if min(height, width) > 64:
            expected = (64, round(width * 64 / height)) if height < width else (round(height * 64 / width), 64)
        assert tuple(one["image"].shape[1:]) == expected
        check_resized(one, other, FOLLOWING)
        assert all(equal(one[name], other[name]) for name in STAYING)
        for name, row in (("boxes", (4,)), ("points", (5, 2))):
            assert np.array_equal(np.array(table[name][at], np.float32).reshape(-1, *row), one[name].numpy())
        if expected == (height, width):
            for member in ("json", "masks", "mask"):
                assert small["train"].member(at, member) == whole["train"].member(at, member)


def test_real_annotations_stay_on_their_objects(shared_data: Path, settings: Settings) -> None:
    """COCO's, packed at once or from the variant of published images: the same bytes."""
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    source, reading = f"coco:{shared_data / 'coco-mini' / 'test_coco.json'}", Reading(masks=True)
    whole = packed(settings, source, Ref("own", "1", "published"), reading)
    small = packed(settings, "own@1/published", Ref("own", "1", "max256"))
    kept = bytes_of(small.path)
    at_once = packed(settings, source, Ref("own", "1", "max256"), reading)
    shards = [name for name in kept if name.endswith(".tar")]
    assert shards and all(bytes_of(at_once.path)[name] == kept[name] for name in shards)
    objects = 0
    for one, other in zip(small["train"], whole["train"], strict=True):
        assert min(one["image"].shape[1:]) == 256 and one["source"] == other["source"]
        check_resized(one, other, ("boxes", "keypoints", "masks"))
        assert torch.equal(one["visibility"], other["visibility"]) and torch.equal(one["area"], other["area"])
        for (left, top, right, bottom), mask in zip(one["boxes"].tolist(), one["masks"], strict=True):
            down, across = torch.nonzero(mask, as_tuple=True)
            found = [across.min(), down.min(), across.max() + 1, down.max() + 1]
            assert np.abs(np.array(found) - [left, top, right, bottom]).max() <= 3
            objects += 1
    assert objects == 14


@pytest.mark.parametrize("member", ["mask", "masks"])
def test_a_mask_that_cannot_be_scaled(settings: Settings, member: str) -> None:
    """Where damaged images are kept, too: a mask beside a smaller image would be one of another."""
    photos(settings)
    split = open_dataset("photos@1", settings)["train"]
    row = next(row for row in range(len(SIZES) * 2) if split[row]["source"] == "it-007")  # 150 x 90
    offset, size = (int(each[row]) for each in split.beside.of(member))
    with split.shards[int(split.locate[row]["shard"])].open("r+b") as file:
        file.seek(offset + (size // 2 if member == "mask" else 40))
        file.write(b"\xff" * 9)
    split.close()
    with pytest.raises(LayoutError, match=rf"it-007.*: {member} .*say --damaged quarantine"):
        packed(settings, "photos", Ref("photos", "1", "max64"))
    found = packed(settings, "photos", Ref("photos", "1", "max64"), damaged="quarantine")
    assert sorted(each["source"] for each in found["train"]) == [f"it-{n:03d}" for n in range(12) if n != 7]


def saved(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_masks_keep_their_colours_and_their_bits() -> None:
    spec, numbers = typed.spec("mask", "mask"), np.random.default_rng(2).integers(0, 250, (60, 90), np.uint8)
    coloured = Image.fromarray(numbers)
    coloured.putpalette(bytes(range(256)) * 3)
    for image in (coloured, Image.fromarray(numbers), Image.fromarray(numbers.astype(np.uint16))):
        data = saved(image)
        made = scaling.member(spec, data, (60, 90), (20, 31))
        assert np.array_equal(
            typed.member(spec, made, (20, 31)),
            F.resize(tv_tensors.Mask(typed.member(spec, data, (60, 90))), [20, 31]).numpy(),
        )
        assert typed.member(spec, made, (20, 31)).dtype == typed.member(spec, data, (60, 90)).dtype
        with Image.open(io.BytesIO(made)) as again:
            assert again.mode == image.mode and again.getpalette() == image.getpalette()


sides = st.tuples(st.integers(1, 60), st.integers(1, 60))
numbers = st.floats(-1e4, 1e4, width=32)


@limits(max_examples=150, deadline=None)
@given(sides, sides, st.lists(st.tuples(*[numbers] * 4), max_size=3), st.integers(0, 2**32))
def test_any_scale_is_torchvisions(
    before: tuple[int, int], after: tuple[int, int], rows: list[tuple[float, ...]], seed: int
) -> None:
    for form in typed.FORMATS:
        boxes = tv_tensors.BoundingBoxes(torch.tensor(rows).reshape(-1, 4), format=form.upper(), canvas_size=before)
        found = np.array(scaling.rows("boxes", [list(row) for row in rows], before, after), np.float32)
        assert np.array_equal(found.reshape(-1, 4), F.resize(boxes, list(after)).numpy())
    # Points are the corners of boxes: torchvision before 0.23 has no type for them.
    points = [[row[:2], row[2:]] for row in rows]
    corners = tv_tensors.BoundingBoxes(torch.tensor(rows).reshape(-1, 4), format="XYXY", canvas_size=before)
    found = np.array(scaling.rows("keypoints", points, before, after), np.float32)
    assert np.array_equal(found.reshape(-1, 4), F.resize(corners, list(after)).numpy())
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 256, before, np.uint8)
    made = scaling.member(typed.spec("mask", "mask"), saved(Image.fromarray(mask)), before, after)
    expected = F.resize(tv_tensors.Mask(mask), list(after)).numpy()
    assert np.array_equal(typed.member(typed.spec("mask", "mask"), made, after), expected)


@pytest.mark.parametrize("nothing", [None, []])
def test_nothing_stays_nothing(nothing: Any) -> None:
    assert scaling.rows("boxes", nothing, (4, 4), (2, 2)) == nothing
    assert scaling.rows("labels", [1, 2], (4, 4), (2, 2)) == [1, 2]
    assert scaling.member(typed.spec("masks", "masks"), b"", (4, 4), (2, 2)) == b""
    assert scaling.member(typed.spec("masks", "masks"), b"[]", (4, 4), (2, 2)) == b"[]"
    assert scaling.member(typed.spec("raw", "bytes"), b"\0x", (4, 4), (2, 2)) == b"\0x"
