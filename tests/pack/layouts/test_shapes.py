"""The generator: each sample a pure function of seed, split and index, balanced, ImageNet-like in size, decodable."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datahub.core.errors import BadArgument
from datahub.pack.layouts import drawing, open_source, shapes
from datahub.pack.layouts.drawing import Draws
from datahub.registry.schema import Layout

GOLDEN = [161016084, 2986808069, 2470321303, 4004625199]
GRAIN = [-64, 70, 62, 96, 32, -68]
LABELS = [9, 7, 6, 4, 0, 2, 1, 5, 3, 8, 5, 6, 4, 7, 2, 8, 9, 1, 3, 0]


def opened(classes: tuple[str, ...] = (), **options: Any) -> shapes.ShapesSource:
    splits = {"train": 1000, "test": 200}
    source = open_source(Layout(kind="shapes", options=options), {}, splits=splits, classes=classes)
    assert isinstance(source, shapes.ShapesSource)
    return source


def test_any_order_any_copy_same_samples() -> None:
    source = opened(seed=3)
    whole = source.read("train", np.arange(30))
    chosen = np.array([29, 3, 3, 17])
    some = pickle.loads(pickle.dumps(source)).read("train", chosen)
    assert isinstance(whole.images, list) and whole.labels is not None and whole.sizes is not None
    assert some.images == [whole.images[i] for i in chosen]
    assert some.labels.tolist() == whole.labels[chosen].tolist()
    assert some.sources == [whole.sources[i] for i in chosen]
    assert some.sizes.tolist() == whole.sizes[chosen].tolist()


def test_seed_split_and_index_decide() -> None:
    plain = opened().read("train", np.arange(8)).images
    assert opened(seed=1).read("train", np.arange(8)).images != plain
    assert opened().read("test", np.arange(8)).images != plain
    assert len(set(plain)) == 8


def test_draws_are_frozen() -> None:
    """Other numbers would be other pictures under the same plan: raise `shapes.GENERATOR` with them."""
    draws = Draws("golden", 1)
    assert [draws.below(1 << 32) for _ in range(4)] == GOLDEN
    assert draws.noise()[:6].tolist() == GRAIN
    assert [opened().label("train", i) for i in range(20)] == LABELS
    assert shapes.GENERATOR == 1


def test_labels_are_balanced_and_named() -> None:
    source = opened()
    labels = [source.label("train", i) for i in range(1000)]
    assert np.bincount(labels).tolist() == [100] * 10
    assert labels[:10] != labels[10:20]
    three = opened(classes=("star", "ring", "heart"))
    assert three.classes() == ["star", "ring", "heart"]
    assert {three.label("train", i) for i in range(3)} == {0, 1, 2}
    chunk = three.read("train", np.arange(3))
    assert chunk.sources[0].split("/")[1] == three.classes()[chunk.labels[0]]


@pytest.mark.parametrize("options", [{}, {"clutter": 0.0}, {"clutter": 4, "short_side": 48}, {"short_side": 16}])
def test_images_decode_to_their_sizes(options: dict[str, Any]) -> None:
    source = opened(**options)
    chunk = source.read("test", np.arange(40))
    assert chunk.sizes is not None
    for data, (width, height) in zip(chunk.images, chunk.sizes.tolist(), strict=True):
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (width, height))
            assert np.asarray(image).std() > 1


def test_sizes_are_like_imagenet() -> None:
    """Mostly 4:3 and 3:2, more wide than tall, 0.2 megapixels in the mean where the short side is 375."""
    source = opened(short_side=375)
    pictures = [Draws("picture", 0, "train", i) for i in range(2000)]
    sizes = np.array([source._size(draws) for draws in pictures])
    assert 170_000 < sizes.prod(axis=1).mean() < 220_000
    wide = sizes[:, 0] > sizes[:, 1]
    assert 0.65 < wide.mean() < 0.85
    assert ((sizes == (500, 375)).all(axis=1)).mean() > 0.3
    assert len(np.unique(sizes, axis=0)) > 50


def test_estimate_is_near() -> None:
    for side in (64, 120, 375):
        source = opened(short_side=side)
        mean = np.mean([len(data) for data in source.read("train", np.arange(100)).images])
        assert 0.7 < source.estimate("train") / mean < 1.4


def test_shapes_differ_from_their_ground_and_each_other() -> None:
    """Without clutter, a shape covers about as much as its outline says: more for a circle, less for a crescent."""
    covers = {}
    for name in drawing.NAMES:
        parts = []
        for i in range(30):
            pixels = drawing.picture(name, 160, 120, Draws("cover", name, i), clutter=0).astype(int)
            corner = np.median(pixels[:4].reshape(-1, 3), axis=0)
            parts.append((np.abs(pixels - corner).sum(axis=2) > 120).mean())
        covers[name] = float(np.median(parts))
    assert all(0.05 < cover < 0.6 for cover in covers.values()), covers
    assert covers["circle"] > covers["square"] > covers["star"]


@pytest.mark.parametrize(
    ("options", "classes", "reason"),
    [
        ({"short_side": 8}, (), "must be from 16 to 4096"),
        ({"clutter": -1}, (), "must be from 0 to 10"),
        ({"clutter": "much"}, (), "expected `float`"),
        ({"sed": 1}, (), "did you mean seed? known: seed, short_side, clutter"),
        ({}, ("circle", "sphere"), "known: circle, square"),
    ],
)
def test_bad_options(options: dict[str, Any], classes: tuple[str, ...], reason: str) -> None:
    with pytest.raises(BadArgument) as caught:
        opened(classes, **options)
    assert reason in str(caught.value)
