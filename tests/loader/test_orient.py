"""Loaders that turn images upright: `datahub.transforms.Decode`, on every way a batch is made."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import datahub
from datahub.core.errors import BadArgument
from datahub.core.settings import Settings
from datahub.loader.streaming import StreamingLoader
from datahub.pack import authoring
from datahub.tensor.draws import Draws
from datahub.tensor.transforms import Compose, Decode, Normalize, RandomHorizontalFlip, RandomResizedCrop
from tests.tensor.images import encoded, noise
from tests.tensor.test_formats import exif

COUNT = 16
FORMS = ("JPEG", "PNG", "WEBP", "AVIF")
TRAIN = Compose([RandomResizedCrop(20), RandomHorizontalFlip()])


def picture(row: int, height: int = 40, width: int = 28) -> bytes:
    form = FORMS[row % 4]
    block = exif(row % 8 + 1)
    block = block if form == "PNG" else b"Exif\0\0" + block
    return encoded(noise(height, width, seed=row), form, exif=block)


def shown(row: int) -> torch.Tensor:
    with Image.open(io.BytesIO(picture(row))) as image:
        return torch.from_numpy(np.asarray(ImageOps.exif_transpose(image).convert("RGB")).copy()).permute(2, 0, 1)


@pytest.fixture
def phone(settings: Settings) -> Settings:
    """``phone``: 40 x 28 images of every format that says an orientation, in all eight of them."""
    with authoring.Writer("phone", {"image": "image", "label": "label"}, settings=settings, jobs=1) as writer:
        for row in range(COUNT):
            writer.write(split="train", source=f"{row}", image=picture(row), label="one")
    return settings


def loader(settings: Settings, **arguments) -> StreamingLoader:
    return StreamingLoader(
        "phone",
        "train",
        settings=settings,
        timeout=60,
        fields=("image", "source"),
        **{"batch_size": 8, "num_workers": 2, **arguments},
    )


def rows(sources: list[str]) -> list[int]:
    return [int(source) for source in sources]


def test_images_come_as_stored_unless_they_are_to_be_turned(phone):
    with loader(phone) as plain, loader(phone, transform=Decode(orient=True)) as upright:
        for (stored, names), (turned, same_names) in zip(plain, upright, strict=True):
            assert names == same_names
            for image, other, row in zip(stored, turned, rows(names), strict=True):
                assert image.shape == (3, 40, 28)
                assert torch.equal(other, shown(row))


def test_crops_are_of_what_is_shown(phone):
    with loader(phone, shuffle=True, seed=5, transform=Decode(orient=True, then=TRAIN)) as made:
        for step, (images, names) in enumerate(made):
            draws = Draws(5, 0, np.arange(8) + 8 * step)
            assert torch.equal(images, TRAIN([shown(row) for row in rows(names)], draws=draws))


def test_a_preset_and_a_callable_follow(phone):
    with loader(phone, transform=Decode(orient=True, then="imagenet_eval"), dtype=torch.float16) as made:
        assert next(iter(made))[0].dtype == torch.float16
    with loader(phone, transform=Decode(orient=True, then=lambda image: image.float().mean())) as made:
        images, names = next(iter(made))
        assert torch.allclose(torch.as_tensor(images), torch.stack([shown(row).float().mean() for row in rows(names)]))


def test_what_it_refuses(phone):
    for arguments in ({"orient": 6}, {"then": Decode()}):
        with pytest.raises(BadArgument):
            Decode(**arguments)
    with pytest.raises(BadArgument, match="transform"):
        loader(phone, transform=Decode(then="nothing_known"))
    with pytest.raises(BadArgument, match="give Decode as transform="):
        Compose([Decode(orient=True), Normalize([0.5], [0.5])])
    assert datahub.transforms.Decode is Decode
    with loader(phone, transform=Decode(orient=True)) as made:
        assert "EXIF" in made.explain()
