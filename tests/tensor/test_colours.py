"""Colours of whole batches: each image as torchvision's function gives it, with a number of its own."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from datahub.tensor import colour, tables
from datahub.tensor.pieces import in_pieces

COUNT = 24

EXACT = {
    "brightness": (tables.brightness, F.adjust_brightness, (0.0, 2.5)),
    "solarize": (tables.solarize, F.solarize, (0.0, 255.0)),
    "posterize": (tables.posterize, lambda image, bits: F.posterize(image, round(bits)), (0, 8)),
    "autocontrast": (tables.autocontrast, F.autocontrast, None),
    "equalize": (tables.equalize, F.equalize, None),
    "invert": (tables.invert, F.invert, None),
    "grayscale": (colour.grayscale, lambda image: F.rgb_to_grayscale(image, image.shape[0]), None),
}
WITHIN_ONE = {
    "sharpness": (colour.sharpness, F.adjust_sharpness, (0.0, 2.5)),
    "contrast": (tables.contrast, F.adjust_contrast, (0.0, 2.5)),
    "saturation": (colour.saturation, F.adjust_saturation, (0.0, 2.5)),
    "hue": (colour.hue, F.adjust_hue, (-0.5, 0.5)),
}
SHAPES = [(3, 24, 31), (1, 9, 12), (3, 2, 5), (3, 1, 1), (1, 3, 3)]


def pictures(channels: int, height: int, width: int) -> torch.Tensor:
    """Noise, smooth images, plain ones, black and white, and few values."""
    generator = torch.Generator().manual_seed(channels * height)
    noise = torch.randint(0, 256, (COUNT, channels, height, width), dtype=torch.uint8, generator=generator)
    coarse = torch.rand((8, channels, 3, 3), generator=generator) * 200 + 20
    noise[:8] = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").to(torch.uint8)
    noise[8], noise[9], noise[10] = 0, 255, 77
    noise[11] //= 128
    noise[12, 0] = 0
    noise[13, 0] = 255
    return noise


def numbers(bounds: tuple[float, float] | None) -> list[torch.Tensor]:
    """Both ends and draws between them, as float64 that float32 holds, so that torchvision rounds the same."""
    if bounds is None:
        return []
    found = torch.rand(COUNT, generator=torch.Generator().manual_seed(2)) * (bounds[1] - bounds[0]) + bounds[0]
    found[0], found[-1] = bounds
    return [found.double()]


def found_and_expected(entry, shape) -> tuple[torch.Tensor, torch.Tensor]:
    kernel, theirs, bounds = entry
    batch, given = pictures(*shape), numbers(bounds)
    if bounds == (0, 8):
        given = [each.round() for each in given]
    before = batch.clone()
    found = in_pieces(kernel, batch, given)
    assert torch.equal(batch, before) and found.dtype == torch.uint8
    rows = [[float(each[row]) for each in given] for row in range(COUNT)]
    return found, torch.stack([theirs(image, *own) for image, own in zip(batch, rows, strict=True)])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", EXACT)
def test_the_same_bits_as_torchvision(name, shape):
    found, expected = found_and_expected(EXACT[name], shape)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", WITHIN_ONE)
def test_a_level_away_where_float32_rounds_otherwise(name, shape):
    found, expected = found_and_expected(WITHIN_ONE[name], shape)
    apart = (found.int() - expected.int()).abs()
    assert apart.max() <= 1 and (apart > 0).float().mean() < 1e-3


@pytest.mark.parametrize("name", [*EXACT, *WITHIN_ONE])
def test_one_by_one_and_in_larger_pieces(name, monkeypatch):
    kernel, _, bounds = {**EXACT, **WITHIN_ONE}[name]
    batch, given = pictures(3, 24, 31), numbers(bounds)
    whole = in_pieces(kernel, batch, given, whole=True)
    monkeypatch.setattr("datahub.tensor.pieces.PIECE", 5 * batch[0].numel())
    assert torch.equal(in_pieces(kernel, batch, given), whole)


@pytest.mark.parametrize("name", ["autocontrast", "equalize", "contrast", "brightness", "solarize"])
def test_tables_looked_up_by_torch_are_the_same(name, monkeypatch):
    kernel, _, bounds = {**EXACT, **WITHIN_ONE}[name]
    batch, given = pictures(3, 24, 31), numbers(bounds)
    expected = kernel(batch, *given)
    for module in ("tables", "gray"):
        monkeypatch.setattr(f"datahub.tensor.{module}.on_cpu", lambda images: False)
    assert torch.equal(kernel(batch, *given), expected)


@pytest.mark.parametrize(("down", "across"), [(3, 3), (5, 9), (1, 7), (23, 23)])
def test_blur(down, across):
    batch = pictures(3, 24, 31)
    sigma = torch.linspace(0.1, 3, COUNT).double()
    edge = [(size - 1) / (2 * 2**0.5) for size in (down, across)]
    lines = [torch.linspace(-e, e, size).double() for e, size in zip(edge, (down, across), strict=True)]
    weights = [torch.softmax(-((line / sigma[:, None]) ** 2), 1).float() for line in lines]
    found = in_pieces(colour.blur, batch, weights)
    expected = [F.gaussian_blur(image, [across, down], [float(s)] * 2) for image, s in zip(batch, sigma, strict=True)]
    apart = (found.int() - torch.stack(expected).int()).abs()
    assert apart.max() <= 1 and (apart > 0).float().mean() < 1e-3
