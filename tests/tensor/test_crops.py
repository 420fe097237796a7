"""Framings give what torchvision's functions give for the same boxes, and draw as torchvision draws."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from datahub.core.errors import BadArgument
from datahub.tensor.draws import Draws
from datahub.tensor.frames import Frames
from datahub.tensor.transforms import CenterCrop, Compose, Normalize, RandomHorizontalFlip, RandomResizedCrop, Resize
from tests.tensor.images import noise

sides = st.integers(1, 70)


def draws(count: int, start: int = 0) -> Draws:
    return Draws(3, 1, np.arange(start, start + count, dtype=np.int64))


def image(height: int, width: int, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(noise(height, width, channels, seed).reshape(height, width, channels)).permute(2, 0, 1)


def ks(a: np.ndarray, b: np.ndarray) -> float:
    """The two-sample Kolmogorov-Smirnov statistic, scaled so that 1.95 is exceeded once in a thousand."""
    grid = np.sort(np.concatenate([a, b]))
    steps = [np.searchsorted(np.sort(each), grid, side="right") / len(each) for each in (a, b)]
    return float(np.abs(steps[0] - steps[1]).max() * math.sqrt(len(a) * len(b) / (len(a) + len(b))))


@functools.cache
def scales_bytes() -> bool:
    """Whether this torch scales uint8 images as such, as libraries of images do; torch 2.6 goes through floats."""
    pixels = image(100, 130)
    floats = F.resize(pixels.float(), [64, 83], antialias=True).round().to(torch.uint8)
    return not torch.equal(F.resize(pixels, [64, 83], antialias=True), floats)


def scaled_alike(found, wanted) -> bool:
    """Bit for bit, or within the level by which floats are rounded otherwise."""
    if scales_bytes():
        return torch.equal(found, wanted)
    return found.shape == wanted.shape and int((found.int() - wanted.int()).abs().max()) <= 1


@pytest.mark.parametrize("size", [(400, 300), (64, 500), (500, 40), (224, 224)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.5, 3.0)])
def test_boxes_are_distributed_as_torchvisions(size, scale):
    count = 3000
    ours = RandomResizedCrop(224, scale).boxes(np.tile(np.array(size), (count, 1)), draws(count))
    torch.manual_seed(0)
    theirs = v2.RandomResizedCrop(224, scale)
    blank = torch.empty(1, *size)
    found = [theirs.make_params([blank]) for _ in range(count)]
    wanted = np.array([[each[k] for k in ("left", "top", "width", "height")] for each in found])
    for column in range(4):
        assert ks(ours[:, column], wanted[:, column]) < 1.95, column
    assert ks(ours[:, 2] / ours[:, 3], wanted[:, 2] / wanted[:, 3]) < 1.95
    assert ks(ours[:, 2] * ours[:, 3], wanted[:, 2] * wanted[:, 3]) < 1.95


@given(sides, sides, st.integers(0, 1 << 40), st.sampled_from([(0.08, 1.0), (1.0, 1.0), (0.001, 0.002)]))
@settings(max_examples=200, deadline=None)
def test_boxes_lie_within_their_images(height, width, start, scale):
    source = np.tile(np.array([height, width]), (9, 1))
    x, y, w, h = RandomResizedCrop(8, scale, (0.2, 6.0)).boxes(source, draws(9, start)).T
    assert (w >= 1).all() and (h >= 1).all() and (x >= 0).all() and (y >= 0).all()
    assert (x + w <= width).all() and (y + h <= height).all()


def test_a_box_that_never_fits_is_the_middle():
    for height, width in ((400, 10), (10, 400), (1, 1)):
        box = RandomResizedCrop(8, (5.0, 6.0)).boxes(np.array([[height, width]]), draws(1))[0]
        ratio = box[2] / box[3]
        assert box.tolist() == [(width - box[2]) // 2, (height - box[3]) // 2, box[2], box[3]]
        assert 0.7 <= ratio <= 1.4 and (box[2] == width or box[3] == height)


def test_crops_are_torchvisions_of_the_same_boxes():
    images = [image(50, 70), image(31, 200), image(300, 280), image(9, 8), image(224, 224)]
    crop = RandomResizedCrop((40, 56))
    boxes = crop.boxes(np.array([each.shape[1:] for each in images]), draws(len(images)))
    found = crop(images, draws=draws(len(images)))
    for each, (x, y, w, h), made in zip(images, boxes.tolist(), found, strict=True):
        assert scaled_alike(made, F.resized_crop(each, y, x, h, w, [40, 56], antialias=True))


@given(sides, sides, st.one_of(sides, st.tuples(sides, sides)), st.sampled_from([1, 3]))
@settings(max_examples=150, deadline=None)
def test_resize_is_torchvisions(height, width, size, channels):
    found = Resize(size)([image(height, width, channels)])[0]
    wanted = v2.Resize(size if isinstance(size, int) else list(size), antialias=True)(image(height, width, channels))
    assert scaled_alike(found, wanted)


@given(sides, sides, st.one_of(sides, st.tuples(sides, sides)))
@settings(max_examples=150, deadline=None)
def test_centre_crop_is_torchvisions_also_where_it_pads(height, width, size):
    found = CenterCrop(size)(image(height, width)[None])[0]
    assert torch.equal(found, v2.CenterCrop(size if isinstance(size, int) else list(size))(image(height, width)))


def test_the_usual_evaluation():
    ours = Compose([Resize(64), CenterCrop(56)])
    theirs = v2.Compose([v2.Resize(64, antialias=True), v2.CenterCrop(56)])
    for shape in ((100, 130), (333, 200), (64, 64), (20, 30)):
        assert scaled_alike(ours([image(*shape)])[0], theirs(image(*shape)))


def test_rows_draw_alone():
    images = [image(60, 80, seed=i) for i in range(6)]
    both = Compose([RandomResizedCrop(16), RandomHorizontalFlip()])
    whole = both(images, draws=draws(6))
    parts = [both([each], draws=draws(6).take(slice(i, i + 1)))[0] for i, each in enumerate(images)]
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_results_are_a_tensor_where_sizes_are_alike():
    images = [image(20, 30), image(40, 25)]
    assert isinstance(Resize(10)(images), list) and isinstance(Resize((10, 12))(images), torch.Tensor)
    assert isinstance(Resize(10)(torch.stack(images[:1])), torch.Tensor)
    both = Compose([CenterCrop(10), Normalize([0.5], [0.5])])
    assert both(images).dtype == torch.float32 and both(images, torch.float16).dtype == torch.float16


def test_frames_say_what_is_shown():
    frames = CenterCrop(4).framed(Resize(8).framed(Frames.whole(np.array([[16, 32]])), None), None)
    assert frames.rows() == [((16, 32), (0, 0, 32, 16), (8, 16), (2, 6, 4, 4), False)]


@pytest.mark.parametrize("size", [0, -1, (0, 5), (5, 5, 5), (), 1.5, True, "224", 1 << 20])
def test_sizes_that_are_none(size):
    for kind in (RandomResizedCrop, Resize, CenterCrop):
        with pytest.raises(BadArgument, match="size"):
            kind(size)


@pytest.mark.parametrize("bounds", [(0, 1), (1, 0.5), (-1, 1), (1,), 3, (0.1, math.inf), ("a", "b"), (math.nan, 1)])
def test_bounds_that_are_none(bounds):
    with pytest.raises(BadArgument, match="scale"):
        RandomResizedCrop(8, scale=bounds)
    with pytest.raises(BadArgument, match="ratio"):
        RandomResizedCrop(8, ratio=bounds)


def test_what_framings_refuse():
    batch = torch.stack([image(8, 8)])
    with pytest.raises(BadArgument, match="draws"):
        RandomResizedCrop(8)(batch)
    with pytest.raises(BadArgument, match="uint8"):
        CenterCrop(4)(batch.float())
    with pytest.raises(BadArgument, match="add Normalize"):
        CenterCrop(4)(batch, torch.float32)
