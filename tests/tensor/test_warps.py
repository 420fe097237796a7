"""Images warped by maps of their own: each as torchvision's functions give it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from datahub.tensor.pieces import in_pieces
from datahub.tensor.warp import affine_maps, warp

COUNT = 16
MODES = {False: InterpolationMode.NEAREST, True: InterpolationMode.BILINEAR}


def pictures(channels: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randint(0, 256, (COUNT, channels, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("fill", [None, 0, (9, 200, 40)], ids=str)
@pytest.mark.parametrize("bilinear", [False, True])
@pytest.mark.parametrize(("height", "width"), [(31, 20), (16, 48), (1, 5)])
def test_affine(height, width, bilinear, fill):
    batch, chance = pictures(3, height, width), np.random.default_rng(7)
    angle, scale = chance.uniform(-200, 200, COUNT), chance.uniform(0.4, 2, COUNT)
    move, shear = np.rint(chance.uniform(-9, 9, (COUNT, 2))), chance.uniform(-40, 40, (COUNT, 2))
    center = None if fill is None else (3.0, 11.5)
    from_middle = (0.0, 0.0) if center is None else (center[0] - width / 2, center[1] - height / 2)
    values = None if fill is None else (fill,) if isinstance(fill, int) else fill
    maps = torch.from_numpy(affine_maps(angle, move, scale, shear, from_middle))
    found = in_pieces(partial(warp, bilinear=bilinear, fill=values), batch, (maps,))
    expected = [
        F.affine(
            image, angle[row], move[row].tolist(), scale[row], shear[row].tolist(), MODES[bilinear],
            list(fill) if isinstance(fill, tuple) else fill, center,
        )
        for row, image in enumerate(batch)
    ]  # fmt: skip
    apart = (found.int() - torch.stack(expected).int()).abs()
    if bilinear:
        assert apart.max() <= 1 and (apart > 0).float().mean() < 2e-3
    else:  # a pixel from between two may be either of them, by the last bit of a float32
        assert (apart > 0).float().mean() < 2e-4


@pytest.mark.parametrize("angle", [0.0, 90.0, 180.0, 270.0, -90.0, 33.0, -121.5])
def test_rotate(angle):
    batch, none = pictures(1, 24, 24), np.zeros((COUNT, 2))
    maps = torch.from_numpy(affine_maps(np.full(COUNT, -angle), none, np.ones(COUNT), none))
    expected = torch.stack([F.rotate(image, angle) for image in batch])
    assert (warp(batch, maps) != expected).float().mean() < 2e-4


def test_what_lies_outside_is_filled():
    none = np.zeros((COUNT, 2))
    maps = torch.from_numpy(affine_maps(np.zeros(COUNT), none + 100, np.ones(COUNT), none))
    for bilinear in (False, True):
        found = warp(pictures(3, 8, 9), maps, bilinear=bilinear, fill=(1.0, 2.0, 3.0))
        assert torch.equal(found, torch.tensor([1, 2, 3], dtype=torch.uint8).view(1, 3, 1, 1).expand_as(found))
        assert not warp(pictures(3, 8, 9), maps, bilinear=bilinear).any()


def test_one_by_one_is_the_same(monkeypatch):
    batch, chance = pictures(3, 15, 22), np.random.default_rng(3)
    none = np.zeros((COUNT, 2))
    maps = torch.from_numpy(affine_maps(chance.uniform(0, 360, COUNT), none, np.ones(COUNT), none))
    whole = warp(batch, maps)
    monkeypatch.setattr("datahub.tensor.pieces.PIECE", 3 * batch[0].numel())
    assert torch.equal(in_pieces(warp, batch, (maps,)), whole)
