"""Boxes, masks and keypoints through rotations, affine maps and policies: torchvision's functionals with our draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from datahub.core.errors import BadArgument
from datahub.store.record import FieldSpec
from datahub.tensor.batched import BatchTransform
from datahub.tensor.draws import Draws
from datahub.tensor.following import follow
from datahub.tensor.geometry import stages, unable
from datahub.tensor.policies import NAMES
from datahub.tensor.presets import CIFAR10, FIXED, Moments, preset
from datahub.tensor.transforms import (
    CenterCrop,
    ColorJitter,
    Compose,
    MaskFill,
    Normalize,
    RandAugment,
    RandomAffine,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
    RandomVerticalFlip,
    Resize,
    SanitizeBoundingBoxes,
    TrivialAugmentWide,
)
from datahub.tensor.warp import sources, warp
from datahub.tensor.warped import Warp
from tests.tensor.test_geometry import batch, formats, moved_masks, seeds, sides, specs, wrapped

shapes = st.lists(st.tuples(sides, sides), min_size=1, max_size=3)
Values = list[dict[str, Any]]


def followed(transform: BatchTransform, values: Values, sizes: Any, draws: Draws, form: str) -> list[Warp]:
    """``values`` are changed; returns the steps, all of them warps."""
    steps = stages(transform, sizes, draws)
    before = [{name: np.copy(each) for name, each in value.items()} for value in values]
    kept = [dict(value) for value in values]
    assert np.array_equal(follow(specs(form), values, sizes, steps), sizes)
    for one, other in zip(before, kept, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one), "what was read is written to"
    warps = [step for step in steps if isinstance(step, Warp)]
    assert len(warps) == len(steps)
    return warps


def tied(steps: list[Warp], row: int) -> np.ndarray[Any, Any]:
    """Pixels, of those after the last step, that any step takes from between two, by the last bits of a float32."""
    (height, width), found = steps[0].size[row].tolist(), None
    for step in steps:
        a, b, c, d, e, f = step.maps[row]
        x, y = np.meshgrid(np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2)
        across, down = a * x + b * y + c + (width - 1) / 2, d * x + e * y + f + (height - 1) / 2
        near = np.zeros((height, width), bool)
        for place in (across, down):
            near |= np.abs(place - np.floor(place) - 0.5) < 1e-4
        if found is not None:  # what an earlier step left open goes where this one takes it
            (at,) = sources(torch.from_numpy(step.maps[row : row + 1]), height, width).numpy()
            near |= np.where(at >= 0, found.reshape(-1)[at], False)
        found = near if step.moved[row] else (found if found is not None else np.zeros_like(near))
    assert found is not None
    return found


def check(ours: dict[str, Any], theirs: dict[str, Any], open_pixels: np.ndarray[Any, Any]) -> None:
    for name, each in theirs.items():
        assert type(ours[name]) is type(each) and ours[name].shape == each.shape and ours[name].dtype == each.dtype
        if name in ("masks", "mask"):
            apart = (ours[name] != each).reshape(-1, *open_pixels.shape).any(0).numpy()
            assert not (apart & ~open_pixels).any(), name
        elif name == "labels":
            assert torch.equal(ours[name], each)
        else:
            assert torch.allclose(ours[name], each, rtol=1e-5, atol=1e-4), name
    assert ours["boxes"].canvas_size == theirs["boxes"].canvas_size and ours["boxes"].format == theirs["boxes"].format


angles = st.one_of(st.floats(-400, 400), st.sampled_from([0.0, 90.0, -90.0, 180.0, 270.0, 45.0]))
centers = st.one_of(st.none(), st.tuples(st.floats(-5, 45), st.floats(-5, 45)))
modes = st.sampled_from(["nearest", "bilinear"])


@settings(max_examples=60, deadline=None)
@given(shapes, formats, seeds, angles, centers, modes)
def test_a_rotation_is_torchvisions(
    shapes: list[tuple[int, int]], form: str, seed: int, angle: float, center: Any, mode: str
) -> None:
    values, sizes = batch(seed, shapes, form)
    before = [wrapped(value, form, shape) for value, shape in zip(values, shapes, strict=True)]
    draws = Draws(seed, 3, np.arange(len(shapes)))
    steps = followed(RandomRotation((angle, angle), mode, center, fill=7), values, sizes, draws, form)
    for row, (value, shape) in enumerate(zip(before, shapes, strict=True)):
        turned = {name: F.rotate(each, angle, center=center) for name, each in value.items() if name != "labels"}
        check(wrapped(values[row], form, shape), {**turned, "labels": value["labels"]}, tied(steps, row))


affines = st.tuples(
    *(st.floats(-200, 200), st.floats(0, 1), st.floats(0, 1), st.floats(0.3, 2.5)),
    *(st.floats(-50, 50), st.floats(-50, 50)),
)


@settings(max_examples=60, deadline=None)
@given(shapes, formats, seeds, affines, centers)
def test_an_affine_map_is_torchvisions(
    shapes: list[tuple[int, int]], form: str, seed: int, drawn: tuple[float, ...], center: Any
) -> None:
    angle, across, down, scale, shear_x, shear_y = drawn
    values, sizes = batch(seed, shapes, form)
    before = [wrapped(value, form, shape) for value, shape in zip(values, shapes, strict=True)]
    draws = Draws(seed, 1, np.arange(len(shapes)) + 5)
    shear = (shear_x, shear_x, shear_y, shear_y)
    transform = RandomAffine((angle, angle), (across, down), (scale, scale), shear, center=center)
    steps = followed(transform, values, sizes, draws, form)
    chance = draws.uniform("RandomAffine", 6)[:, 1:3]
    for row, (value, shape) in enumerate(zip(before, shapes, strict=True)):
        move = np.rint(np.array([across * shape[1], down * shape[0]]) * (2 * chance[row] - 1)).tolist()
        made = {
            name: F.affine(each, angle, move, scale, [shear_x, shear_y], center=center)
            for name, each in value.items()
            if name != "labels"
        }
        check(wrapped(values[row], form, shape), {**made, "labels": value["labels"]}, tied(steps, row))


MOVING = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


def by_policy(value: dict[str, Any], choice: list[int], strength: list[float]) -> dict[str, Any]:
    """torchvision's policy refuses boxes and masks; the functionals that it would move the image by take them all."""
    theirs = v2.RandAugment()
    found = {name: each for name, each in value.items() if name != "labels"}
    for number, much in zip(choice, strength, strict=True):
        if NAMES[number] not in MOVING:
            continue
        found = {
            name: theirs._apply_image_or_video_transform(each, NAMES[number], much, theirs.interpolation, theirs._fill)
            for name, each in found.items()
        }
    return {**found, "labels": value["labels"]}


@settings(max_examples=60, deadline=None)
@given(shapes, formats, seeds, st.sampled_from([RandAugment(3, 13), RandAugment(2, 30), TrivialAugmentWide()]))
def test_a_policys_operations_are_torchvisions(
    shapes: list[tuple[int, int]], form: str, seed: int, policy: RandAugment | TrivialAugmentWide
) -> None:
    values, sizes = batch(seed, shapes, form)
    before = [wrapped(value, form, shape) for value, shape in zip(values, shapes, strict=True)]
    draws = Draws(seed, 0, np.arange(len(shapes)) + seed % 99)
    steps = followed(policy, values, sizes, draws, form)
    for row, (value, shape) in enumerate(zip(before, shapes, strict=True)):
        chosen = policy.chosen(draws.take(slice(row, row + 1)), shape)
        drawn = [int(choice[0]) for choice, _ in chosen], [float(strength[0]) for _, strength in chosen]
        check(wrapped(values[row], form, shape), by_policy(value, *drawn), tied(steps, row))


def test_what_a_policy_leaves_where_it_is_stays_to_the_bit() -> None:
    """Also boxes that reach out of the image, which a warp would clip."""
    count, sizes = 200, np.full((200, 2), 32)
    rng = np.random.default_rng(3)
    boxes = rng.uniform(-9, 60, (count, 2, 4)).astype(np.float32)
    values: Values = [{"boxes": each} for each in boxes]
    policy, draws = TrivialAugmentWide(), Draws(4, 0, np.arange(count))
    follow({"boxes": specs("xywh")["boxes"]}, values, sizes, stages(policy, sizes, draws))
    choice, _ = policy.chosen(draws, (32, 32))[0]
    moved = np.isin(choice, [NAMES.index(name) for name in MOVING])
    same = np.array([np.array_equal(value["boxes"], old) for value, old in zip(values, boxes, strict=True)])
    assert np.array_equal(same, ~moved) and 40 < moved.sum() < 110


CHAINS: list[list[BatchTransform]] = [
    [RandomRotation(40)],
    [RandomCrop((22, 20), 3), RandomRotation((-180, 180)), RandomHorizontalFlip(), RandomAffine(5, (0.2, 0.1))],
    [RandomAffine(30, (0.3, 0.3), (0.5, 1.5), (-20, 20, -20, 20)), CenterCrop((30, 18)), RandomVerticalFlip()],
    [RandomCrop(24, 4, padding_mode="reflect"), RandomRotation(90), RandomCrop(20, 2, padding_mode="symmetric")],
    [CenterCrop((40, 12)), RandomRotation(20), CenterCrop((9, 30)), RandomRotation(20)],
]


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("alike", [True, False])
def test_a_mask_stays_on_the_pixels_that_it_is_of(chain: list[BatchTransform], alike: bool) -> None:
    """To the bit: what moves the image moves the mask."""
    transform, draws, masks, moved = moved_masks(chain, alike)
    shapes = [mask.shape for mask in masks]
    values: Values = [
        {"mask": mask, "masks": np.stack([mask, mask]), "none": np.zeros((0, *mask.shape))} for mask in masks
    ]
    sizes = np.array(shapes, np.int64)
    kinds = {"mask": "mask", "masks": "masks", "none": "masks"}
    fields = {name: FieldSpec(type=kind, extension="") for name, kind in kinds.items()}
    after = follow(fields, values, sizes, stages(transform, sizes, draws))
    for image, value, size in zip(moved, values, after.tolist(), strict=True):
        assert list(image.shape[1:]) == size and value["none"].shape == (0, *size)
        assert torch.equal(image[0], torch.from_numpy(value["mask"]))
        assert torch.equal(image[:2], torch.from_numpy(value["masks"]))


@pytest.mark.parametrize("policy", [RandAugment(1, 25, interpolation="bilinear"), TrivialAugmentWide()])
def test_boxes_points_and_masks_stay_on_what_is_seen(policy: BatchTransform) -> None:
    """A bright rectangle, its box, its mask and the points in its corners, wherever a policy takes the image."""
    count, sizes = 150, np.array([(90, 120)] * 150, np.int64)
    rng = np.random.default_rng(1)
    images = torch.zeros((count, 3, 90, 120), dtype=torch.uint8)
    near = np.rint(rng.uniform([35, 25], [50, 35], (count, 2))).astype(np.float32)
    boxes = np.concatenate([near, near + 25], axis=1)[:, None]
    values: Values = []
    for image, ((left, top, right, bottom),) in zip(images, boxes.astype(int).tolist(), strict=True):
        image[:, top:bottom, left:right] = 255
        middles = np.array([[[left + 0.5, top + 0.5], [right - 0.5, bottom - 0.5]]], np.float32)
        box = np.array([[left, top, right, bottom]], np.float32)
        values.append({"boxes": box, "points": middles, "mask": (image[0].numpy() > 127).astype(np.uint8)})
    draws, fields = Draws(2, 0, np.arange(count)), specs("xyxy")
    transform = Compose([RandomHorizontalFlip(), policy])
    moved = transform(images, None, draws)
    steps = stages(transform, sizes, draws)
    follow({name: fields[name] for name in ("boxes", "points", "mask")}, values, sizes, steps)
    seen = 0
    for row, (image, value) in enumerate(zip(moved, values, strict=True)):
        mask = value["mask"].astype(bool)
        inside = mask[1:-1, 1:-1].sum() == mask.sum() > 50  # nothing of it is cut off
        if not inside or not any(step.moved[row] for step in steps if isinstance(step, Warp)):
            continue
        lit = image[0].numpy() > 127
        if (lit != mask).mean() > 0.02:  # solarised, or blanked by what else was drawn
            continue
        seen += 1
        down, across = np.nonzero(mask)
        found = np.array([across.min(), down.min(), across.max() + 1, down.max() + 1])
        assert np.abs(found - value["boxes"][0]).max() <= 1.5
        for x, y in value["points"][0]:
            around = mask[max(0, int(y) - 2) : int(y) + 3, max(0, int(x) - 2) : int(x) + 3]
            assert around.any() and not around.all()  # a corner has both about it
    assert seen > count // 8


def test_what_leaves_the_image_is_a_box_without_area_until_it_is_taken_out() -> None:
    """As after a crop: torchvision's `SanitizeBoundingBoxes` then takes out the same objects."""
    boxes = np.array([[2, 2, 8, 8], [20, 2, 30, 9], [25, 25, 31, 31], [0, 0, 32, 32], [5, 5, 5, 20]], np.float32)
    points = np.arange(10, dtype=np.float32).reshape(5, 1, 2)
    sizes = np.array([(32, 32)])
    away = Warp(np.array([[1.0, 0, 15, 0, 1, 0]]), np.array([True]), sizes)  # to the left by 15 pixels
    values: Values = [{"boxes": boxes, "labels": np.arange(5), "points": points, "masks": np.ones((5, 32, 32))}]
    fields = {name: spec for name, spec in specs("xyxy").items() if name != "mask"}
    follow(fields, values, sizes, [away])
    (value,) = values
    assert value["boxes"].tolist() == [[0, 2, 0, 8], [5, 2, 15, 9], [10, 25, 16, 31], [0, 0, 17, 32], [0, 5, 0, 20]]
    assert len(value["labels"]) == 5 and value["points"][0].tolist() == [[-15, 1]]
    assert (value["masks"][:, :, :17] == 1).all() and (value["masks"][:, :, 17:] == 0).all()
    theirs = tv_tensors.BoundingBoxes(torch.from_numpy(value["boxes"]), format="XYXY", canvas_size=(32, 32))
    _, stay = F.sanitize_bounding_boxes(theirs)
    follow(fields, values, sizes, stages(SanitizeBoundingBoxes(), sizes, Draws.none(1)))
    assert value["labels"].tolist() == np.flatnonzero(stay).tolist() == [1, 2, 3]


@pytest.mark.parametrize("shear", [(90, 90), (0, 0, 90, 90), (90, 90, 90, 90), (-90, 90, 89.99, 90)])
def test_a_shear_to_a_line_gives_places_that_are_numbers(shear: tuple[float, ...]) -> None:
    values, sizes = batch(7, [(20, 30), (31, 17), (20, 30)], "cxcywh")
    transform = RandomAffine(10, shear=shear, scale=(0.01, 100))
    follow(specs("cxcywh"), values, sizes, stages(transform, sizes, Draws(1, 0, np.arange(3))))
    for value, (height, width) in zip(values, sizes.tolist(), strict=True):
        assert np.isfinite(value["boxes"]).all() and np.isfinite(value["points"]).all()
        assert (value["boxes"] >= 0).all() and (value["boxes"] <= max(height, width)).all()


@pytest.mark.parametrize("last", [RandomRotation((45, 45)), RandomCrop(40, 10), CenterCrop(50)])
def test_masks_of_classes_hold_what_a_loss_ignores_beyond_the_image(last: BatchTransform) -> None:
    sizes, draws = np.array([(32, 32)]), Draws(3, 0, np.arange(1))
    fields = {name: specs("xyxy")[name] for name in ("mask", "masks")}

    def made(*chain: BatchTransform) -> dict[str, Any]:
        values: Values = [{"mask": np.full((32, 32), 9, np.uint8), "masks": np.ones((2, 32, 32), np.uint8)}]
        transform = Compose(chain)
        follow(fields, values, sizes, stages(transform, sizes, draws))
        return values[0]

    plain, filled = made(Normalize((0.5,), (0.5,)), last), made(MaskFill(255), last)
    assert set(np.unique(plain["mask"])) == {0, 9} and set(np.unique(filled["mask"])) == {255, 9}
    assert np.array_equal(plain["mask"] == 0, filled["mask"] == 255)
    assert np.array_equal(plain["masks"], filled["masks"]) and np.array_equal(plain["masks"][0], plain["mask"] // 9)
    images = torch.zeros((2, 3, 4, 4), dtype=torch.uint8)
    assert MaskFill(255)(images) is images and unable(Compose([MaskFill(255), last])) is None
    for value in (-1, 256, 2.0, True, "void"):
        with pytest.raises(BadArgument, match="is no class number"):
            MaskFill(value)  # type: ignore[arg-type]


FOLLOWED: list[Callable[[], BatchTransform]] = [
    *FIXED.values(),
    lambda: preset("cifar_train_strong", lambda: Moments(*CIFAR10)),
    lambda: Compose([Resize(8), ColorJitter(0.1), RandomErasing(), RandomResizedCrop(9), RandAugment()]),
]


@pytest.mark.parametrize("make", FOLLOWED)
def test_every_preset_can_be_followed(make: Callable[[], BatchTransform]) -> None:
    assert unable(make()) is None


def test_pixels_beyond_what_a_float32_counts() -> None:
    """More than 2**24 pixels: those of the last rows have numbers of their own, not the nearest even one."""
    side = 4200
    image = (torch.arange(side)[None] * 7 + torch.arange(side)[:, None] * 13).to(torch.uint8)[None, None]
    by_three = torch.tensor([[1.0, 0, 3, 0, 1, 0]], dtype=torch.float64)
    assert torch.equal(warp(image, by_three)[..., :-3], image[..., 3:])
