from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from datahub.core.errors import BadArgument
from datahub.tensor import lookup
from datahub.tensor.presets import Moments, preset
from datahub.tensor.transforms import Normalize, Scale

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def images(channels: int) -> torch.Tensor:
    values = torch.arange(6 * channels * 8 * 16, dtype=torch.int64) % 256
    return values.to(torch.uint8).reshape(6, channels, 8, 16)


def torchvision(batch: torch.Tensor, mean, std) -> torch.Tensor:
    return v2.Normalize(list(mean), list(std))(v2.ToDtype(torch.float32, scale=True)(batch))


@pytest.mark.parametrize(("mean", "std"), [(MEAN, STD), ((0.1307,), (0.3081,))])
def test_equals_torchvision_bit_for_bit(mean, std):
    batch = images(len(mean))
    found = Normalize(mean, std)(batch)
    assert found.is_contiguous() and torch.equal(found, torchvision(batch, mean, std))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_that_rounded(dtype):
    found = Normalize(MEAN, STD)(images(3), dtype)
    assert found.dtype == dtype and torch.equal(found, torchvision(images(3), MEAN, STD).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("pairs", [True, False])
def test_two_at_a_time_are_the_same(monkeypatch, dtype, pairs):
    every_pair = torch.arange(65536).view(1, 1, 256, 256)
    batch = torch.cat([every_pair % 256, every_pair // 256], dim=3).to(torch.uint8)
    batch = torch.stack([batch, batch.flip(3)]).view(2, 1, 256, 512)
    pixels = torch.stack([every_pair % 256, every_pair // 256], dim=-1).to(torch.uint8).view(1, 1, 256, 512)
    monkeypatch.setattr(lookup, "takes_pairs", lambda: pairs)
    for each in (batch, pixels, pixels[..., :-1]):
        assert torch.equal(Normalize([0.1307], [0.3081])(each, dtype), torchvision(each, [0.1307], [0.3081]).to(dtype))


def test_one_value_stands_for_every_channel():
    assert torch.equal(Normalize([0.5], [0.25])(images(3)), torchvision(images(3), [0.5] * 3, [0.25] * 3))


def test_images_of_differing_sizes_come_as_a_list():
    parts = [images(3)[0, :, : 3 + i] for i in range(3)]
    for part, found in zip(parts, Normalize(MEAN, STD)(parts), strict=True):
        assert torch.equal(found, torchvision(part, MEAN, STD))


def test_channels_last_memory_is_read_right():
    batch = images(3).contiguous(memory_format=torch.channels_last)
    assert torch.equal(Normalize(MEAN, STD)(batch), torchvision(images(3), MEAN, STD))


def test_scale():
    found = Scale()(images(3))
    assert torch.equal(found, v2.ToDtype(torch.float32, scale=True)(images(3)))
    assert found.min() == 0 and found.max() == 1


@pytest.mark.parametrize(("mean", "std"), [((), ()), ((0.5,), (0.1, 0.2)), ((0.5,), (0.0,))])
def test_bad_values(mean, std):
    with pytest.raises(BadArgument):
        Normalize(mean, std)


def test_bad_images_and_dtypes():
    with pytest.raises(BadArgument, match="uint8"):
        Normalize(MEAN, STD)(images(3).float())
    with pytest.raises(BadArgument, match="channels"):
        Normalize(MEAN, STD)(images(1))
    with pytest.raises(BadArgument, match="float32"):
        Scale()(images(1), torch.int64)


def test_presets():
    assert preset("mnist", lambda: None).mean == (0.1307,)
    assert preset("normalize", lambda: Moments([0.4, 0.5], [0.2, 0.0])).std == (0.2, 1.0)
    with pytest.raises(BadArgument, match="no mean"):
        preset("normalize", lambda: None)
    with pytest.raises(BadArgument, match="known: cifar_train, cifar_train_strong, normalize, mnist"):
        preset("mnits", lambda: None)
