"""Boxes, masks and keypoints follow the pixels exactly as torchvision's functionals move them with the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from datahub.core.errors import BadArgument
from datahub.store.record import FieldSpec
from datahub.tensor.annotations import wrap
from datahub.tensor.batched import BatchTransform
from datahub.tensor.draws import Draws
from datahub.tensor.following import follow
from datahub.tensor.frames import Frames
from datahub.tensor.geometry import Placement, stages, unable
from datahub.tensor.transforms import (
    CenterCrop,
    ColorJitter,
    Compose,
    GaussianBlur,
    Normalize,
    RandAugment,
    RandomCrop,
    RandomErasing,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
    RandomVerticalFlip,
    Resize,
    SanitizeBoundingBoxes,
)

sides = st.integers(8, 40)
formats = st.sampled_from(["xyxy", "xywh", "cxcywh"])
seeds = st.integers(0, 2**32)


def specs(form: str) -> dict[str, FieldSpec]:
    types = {"boxes": "boxes", "labels": "labels", "points": "keypoints", "masks": "masks", "mask": "mask"}
    return {
        name: FieldSpec(type=kind, extension="", format=form if kind == "boxes" else None)
        for name, kind in types.items()
    }


def sample(rng: np.random.Generator, height: int, width: int, form: str, count: int) -> dict[str, Any]:
    """Objects partly beyond the image, as published ones are."""
    near = rng.uniform(-3, [width, height], (count, 2))
    size = rng.uniform(0, [width, height], (count, 2))
    second = {"xyxy": near + size, "xywh": size, "cxcywh": size}[form]
    first = near + size / 2 if form == "cxcywh" else near
    return {
        "boxes": np.concatenate([first, second], axis=1).astype(np.float32),
        "labels": np.arange(count),
        "points": rng.uniform(-3, 44, (count, 3, 2)).astype(np.float32),
        "masks": (rng.random((count, height, width)) < 0.5).astype(np.uint8),
        "mask": rng.integers(0, 256, (height, width), np.uint8),
    }


def batch(seed: int, shapes: list[tuple[int, int]], form: str) -> tuple[list[dict[str, Any]], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    values = [sample(rng, height, width, form, int(rng.integers(0, 4))) for height, width in shapes]
    return values, np.array(shapes, np.int64)


def wrapped(values: dict[str, Any], form: str, size: tuple[int, int]) -> dict[str, Any]:
    """As a sample shows them; without the points, where torchvision (before 0.23) cannot move any."""
    shown = [name for name in specs(form) if name != "points" or hasattr(tv_tensors, "KeyPoints")]
    return {name: wrap(specs(form)[name], values[name], size) for name in shown}


def by_torchvision(step: BatchTransform, made: Placement, row: int, value: dict[str, Any]) -> dict[str, Any]:
    left, top, width, height = made.box[row].tolist()
    y, x, high, wide = made.window[row].tolist()

    def of(each: Any) -> Any:
        if isinstance(step, RandomResizedCrop):
            each = F.resized_crop(each, top, left, height, width, list(step.size))
        elif isinstance(step, Resize):
            each = F.resize(each, list(step.size))
        elif isinstance(step, CenterCrop):
            each = F.crop(each, y, x, high, wide)
        elif isinstance(step, RandomCrop):
            before, above, behind, below = step.padding
            each = F.crop(F.pad(each, [before, above, behind, below]), y + above, x + before, high, wide)
        each = F.horizontal_flip(each) if made.mirrored[row] else each
        return F.vertical_flip(each) if made.upended[row] else each

    return {name: each if name == "labels" else of(each) for name, each in value.items()}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(sides, sides), min_size=1, max_size=3), formats, seeds, st.integers(0, 5))
def test_every_step_is_torchvisions(shapes: list[tuple[int, int]], form: str, seed: int, which: int) -> None:
    step = [
        RandomResizedCrop((17, 23)),
        Resize(19),
        Resize((31, 9)),
        CenterCrop((14, 12)),
        RandomCrop((10, 8), (1, 2, 3, 4)),
        Compose([RandomHorizontalFlip(), RandomVerticalFlip()]),
    ][which]
    values, sizes = batch(seed, shapes, form)
    draws = Draws(seed, 3, np.arange(len(shapes)) + seed % 1000)
    copies = [{name: np.copy(each) for name, each in value.items()} for value in values]
    before = [wrapped(value, form, shape) for value, shape in zip(copies, shapes, strict=True)]
    (made,) = stages(step, sizes, draws)
    assert isinstance(made, Placement)
    after = follow(specs(form), values, sizes, [made])
    for row, value in enumerate(before):
        ours = wrapped(values[row], form, (int(after[row, 0]), int(after[row, 1])))
        theirs = by_torchvision(step, made, row, value)
        exact = not isinstance(step, RandomCrop)  # which torchvision pads first: two roundings in place of one
        for name, each in theirs.items():
            assert type(ours[name]) is type(each) and ours[name].shape == each.shape, name
            assert torch.equal(ours[name], each) or (not exact and torch.allclose(ours[name], each, atol=1e-4)), name
        assert ours["boxes"].canvas_size == theirs["boxes"].canvas_size
        assert "points" not in ours or ours["points"].canvas_size == ours["boxes"].canvas_size
        assert ours["boxes"].format == theirs["boxes"].format


CHAINS = [
    [RandomCrop(20, 4), RandomHorizontalFlip(), RandomVerticalFlip(0.3)],
    [RandomVerticalFlip(), RandomCrop((18, 22), 6, padding_mode="reflect"), RandomHorizontalFlip()],
    [CenterCrop(30), RandomCrop(24, 3, padding_mode="edge"), RandomCrop(20, 2, padding_mode="symmetric")],
    [CenterCrop((50, 9)), RandomHorizontalFlip()],
]


def moved_masks(chain: list[BatchTransform], alike: bool) -> tuple[Compose, Draws, list[Any], Any]:
    """Masks of random bytes, of one shape or several, and the images of the same pixels as ``chain`` moves them."""
    shapes = [(26, 24)] * 6 if alike else [(26, 24), (24, 30), (40, 25), (26, 24)]
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, 256, shape, np.uint8) for shape in shapes]
    images = [torch.from_numpy(mask)[None].repeat(3, 1, 1) for mask in masks]
    transform, draws = Compose(chain), Draws(5, 1, np.arange(len(shapes)))
    return transform, draws, masks, transform(torch.stack(images) if alike else images, None, draws)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("alike", [True, False])
def test_a_mask_stays_on_the_pixels_that_it_is_of(chain: list[BatchTransform], alike: bool) -> None:
    transform, draws, masks, moved = moved_masks(chain, alike)
    shapes = [mask.shape for mask in masks]
    values: list[dict[str, Any]] = [{"mask": mask} for mask in masks]
    sizes = np.array(shapes, np.int64)
    after = follow({"mask": specs("xyxy")["mask"]}, values, sizes, stages(transform, sizes, draws))
    for image, value, size in zip(moved, values, after.tolist(), strict=True):
        assert list(image.shape[1:]) == size
        assert torch.equal(image[0], torch.from_numpy(value["mask"]))


def test_a_box_stays_around_the_pixels_that_it_is_of() -> None:
    count = 64
    rng = np.random.default_rng(1)
    images = torch.zeros((count, 3, 90, 120), dtype=torch.uint8)
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)) * [100, 70], axis=1)
    corners[:, 1] += 20
    boxes = np.rint(corners.reshape(count, 1, 4)).astype(np.float32)
    for image, ((left, top, right, bottom),) in zip(images, boxes.astype(int).tolist(), strict=True):
        image[:, top:bottom, left:right] = 255
    transform = Compose([RandomResizedCrop(64, scale=(0.3, 1)), RandomHorizontalFlip(), RandomVerticalFlip()])
    draws, sizes = Draws(2, 0, np.arange(count)), np.array([(90, 120)] * count, np.int64)
    moved = transform(images, None, draws)
    values = [{"boxes": box} for box in boxes]
    follow({"boxes": specs("xyxy")["boxes"]}, values, sizes, stages(transform, sizes, draws))
    seen = 0
    for image, value in zip(moved, values, strict=True):
        (left, top, right, bottom) = value["boxes"][0].tolist()
        lit = torch.nonzero(image[0] > 127)
        if right - left < 2 or bottom - top < 2:
            continue
        seen += 1
        found = [lit[:, 1].min(), lit[:, 0].min(), lit[:, 1].max() + 1, lit[:, 0].max() + 1]
        assert np.abs(np.array(found) - [left, top, right, bottom]).max() <= 1
    assert seen > count // 2


@settings(max_examples=40, deadline=None)
@given(formats, seeds, st.sampled_from([(1, 1), (3, 1), (1, 30), (2.5, 20)]))
def test_sanitizing_takes_out_the_objects_that_torchvision_takes_out(form: str, seed: int, least: Any) -> None:
    values, sizes = batch(seed, [(30, 20)] * 4, form)
    before = [dict(value) for value in values]
    step = SanitizeBoundingBoxes(*least)
    follow(specs(form), values, sizes, stages(step, sizes, Draws(0, 0, np.arange(4))))
    for value, old in zip(values, before, strict=True):
        boxes = tv_tensors.BoundingBoxes(torch.from_numpy(old["boxes"]), format=form.upper(), canvas_size=(30, 20))
        wanted, stay = F.sanitize_bounding_boxes(boxes, min_size=least[0], min_area=least[1])
        assert np.array_equal(value["boxes"], wanted.numpy())
        for name in ("labels", "points", "masks"):
            assert np.array_equal(value[name], old[name][stay.numpy()])
        assert value["mask"] is old["mask"]


def test_draws_are_those_of_the_pixels_wherever_a_step_stands() -> None:
    draws, sizes = Draws(1, 2, np.arange(50)), np.full((50, 2), 32)
    chain = Compose([Resize(32), RandomResizedCrop(16), RandomHorizontalFlip(), Normalize((0.5,), (0.5,))])
    made = [step for step in stages(chain, sizes, draws) if isinstance(step, Placement)]
    frames = RandomResizedCrop(16).framed(Frames.whole(sizes), draws.again(1))
    assert np.array_equal(made[1].box, frames.box)
    assert made[2].mirrored.any() and not made[2].mirrored.all()
    images = torch.arange(50 * 3 * 32 * 32).reshape(50, 3, 32, 32).to(torch.uint8)
    flipped = Compose([RandomHorizontalFlip()])(images, None, draws)
    (only,) = stages(Compose([RandomHorizontalFlip()]), sizes, draws)
    assert isinstance(only, Placement)
    assert [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, images, strict=True)] == only.mirrored.tolist()


def test_a_transform_that_nothing_is_known_of_cannot_be_followed() -> None:
    class Swirl(BatchTransform):
        def __call__(self, images: Any, dtype: Any = None, draws: Any = None) -> Any:
            return images

    swirl = Swirl()
    assert unable(Compose([Resize(8), swirl, Normalize((0.5,), (0.5,))])) is swirl
    assert unable(Compose([Resize(8), CenterCrop(4), RandomCrop(2), Normalize((0.5,), (0.5,))])) is None
    still = [ColorJitter(0.1), RandomGrayscale(), GaussianBlur(3), RandomErasing()]
    assert unable(Compose([*still, RandomRotation(10), RandAugment()])) is None
    assert unable(Compose([*still, RandomRotation(10), swirl])) is swirl
    with pytest.raises(BadArgument, match="min_size"):
        SanitizeBoundingBoxes(0)
