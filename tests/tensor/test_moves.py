"""Batched crops and flips: each row as torchvision's functions give it, drawn as torchvision draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from datahub.core.errors import BadArgument
from datahub.tensor.draws import Draws
from datahub.tensor.moves import Moves, chained
from datahub.tensor.presets import CIFAR10, Moments, preset
from datahub.tensor.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip, RandomVerticalFlip, Scale

MODES = ("constant", "edge", "reflect", "symmetric")


def draws(count: int, seed: int = 3, first: int = 0) -> Draws:
    return Draws(seed, 0, np.arange(first, first + count))


def images(count: int, channels: int = 3, height: int = 9, width: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def expected(batch: torch.Tensor, moves: Moves, crop: RandomCrop | None) -> torch.Tensor:
    """torchvision, an image at a time, from the offsets and flags."""
    out = []
    for row, image in enumerate(batch):
        if crop is not None:
            left, top, right, bottom = moves.edges
            vector = len(crop.fill) > 1 and crop.padding_mode == "constant"  # torchvision's limit
            fill = list(crop.fill) if vector else crop.fill[0]
            image = F.pad(image, [left, top, right, bottom], fill=fill, padding_mode=crop.padding_mode)
            image = F.crop(image, int(moves.top[row]) + top, int(moves.left[row]) + left, *crop.size)
        image = F.horizontal_flip(image) if moves.mirrored[row] else image
        out.append(F.vertical_flip(image) if moves.upended[row] else image)
    return torch.stack(out)


@pytest.mark.parametrize(("height", "width"), [(150, 131), (33000, 1), (1, 33000)])
def test_images_worth_a_call_of_their_own_are_flipped_alike(height: int, width: int) -> None:
    batch = images(6, 3, height, width)
    moves = chained((RandomHorizontalFlip(), RandomVerticalFlip()), 6, (height, width), draws(6))
    before, rows = batch.clone(), np.array([5, 0, 0, 3, 1, 2])
    assert moves.mirrored.any() and not moves.mirrored.all()
    found = moves.apply(batch.numpy(), rows)
    assert torch.equal(torch.from_numpy(found), expected(batch[torch.from_numpy(rows)], moves, None))
    assert torch.equal(batch, before)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding", [0, 3, (1, 2), (1, 0, 2, 3)])
@pytest.mark.parametrize("size", [(9, 12), (5, 4)])
@pytest.mark.parametrize("fill", [0, (7, 0, 255)])
def test_a_crop_and_flips_are_torchvisions(mode, padding, size, fill):
    steps = (RandomCrop(size, padding, fill, mode), RandomHorizontalFlip(), RandomVerticalFlip(0.3))
    batch = images(40)
    moves = chained(steps, 40, (9, 12), draws(40))
    found = Compose(steps)(batch, None, draws(40))
    assert torch.equal(found, expected(batch, moves, steps[0])) and found.is_contiguous()
    assert moves.mirrored.any() and not moves.mirrored.all() and moves.upended.any()
    assert torch.equal(batch, images(40))


@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.sampled_from([1, 3, 4]),
    count=st.integers(1, 9),
    padding=st.tuples(*[st.integers(0, 6)] * 4),
    fill=st.integers(0, 255),
    data=st.data(),
)
@settings(deadline=None, max_examples=150)
def test_any_crop(height, width, channels, count, padding, fill, data):
    left, top, right, bottom = padding
    size = data.draw(st.tuples(st.integers(1, height + top + bottom), st.integers(1, width + left + right)))
    steps = data.draw(st.permutations([RandomCrop(size, padding, fill), RandomHorizontalFlip()]))
    batch = images(count, channels, height, width)
    found = Compose(steps)(batch, None, draws(count))
    parts = [expected_in_turn(batch[row], steps, draws(count).take(slice(row, row + 1))) for row in range(count)]
    assert torch.equal(found, torch.stack(parts))


def expected_in_turn(image: torch.Tensor, steps, draw: Draws) -> torch.Tensor:
    """Each step alone, by torchvision's functions, from the numbers it would draw."""
    for step in steps:
        if isinstance(step, RandomHorizontalFlip):
            image = F.horizontal_flip(image) if draw.uniform("RandomHorizontalFlip")[0, 0] < step.p else image
        else:
            image = F.pad(image, list(step.padding), fill=step.fill[0])
            chance = draw.uniform("RandomCrop", 2)[0]
            room = image.shape[1] - step.size[0], image.shape[2] - step.size[1]
            image = F.crop(image, int(chance[0] * (room[0] + 1)), int(chance[1] * (room[1] + 1)), *step.size)
    return image


def test_the_first_and_last_image_have_no_neighbours():
    pixels = images(3).numpy()
    step = RandomCrop((9, 12), 4)
    for first in range(0, 400, 20):
        d = draws(20, first=first)
        rows = np.tile([0, 2], 10)
        found = step.of_rows(pixels, rows, None, d)
        assert torch.equal(found, step(torch.from_numpy(pixels[rows]), None, d))
        assert torch.equal(found, expected(torch.from_numpy(pixels[rows]), chained((step,), 20, (9, 12), d), step))


def test_large_masks_are_not_kept():
    step, batch = RandomCrop((60, 50), 24), images(4, 3, 64, 64)
    assert torch.equal(step(batch, None, draws(4)), expected(batch, chained((step,), 4, (64, 64), draws(4)), step))


def test_rows_of_a_set_and_a_batch_of_them_are_the_same():
    pixels, rows = images(30).numpy(), np.array([4, 4, 29, 0, 7])
    whole = Compose([RandomVerticalFlip(), RandomCrop(8, 2), RandomHorizontalFlip(), Normalize([0.5], [0.25])])
    batch = torch.from_numpy(pixels[rows])
    for transform in (whole, RandomCrop(5), RandomHorizontalFlip(), Normalize([0.5], [0.25]), Scale()):
        a, b = transform.of_rows(pixels, rows, None, draws(5)), transform(batch, None, draws(5))
        assert a.dtype == b.dtype and torch.equal(a, b)
        assert all(torch.equal(x, y) for x, y in zip(transform([*batch], None, draws(5)), b, strict=True))


def test_a_row_draws_the_same_wherever_it_stands():
    pixels = images(20).numpy()
    whole = preset("cifar_train", lambda: None)
    small = Compose([RandomCrop(8, 2), *whole.transforms[1:]])
    all_rows = small.of_rows(pixels, np.arange(20), None, draws(20))
    for rows in (np.arange(5, 9), np.array([19, 2])):
        assert torch.equal(small.of_rows(pixels, rows, None, draws(20).take(rows)), all_rows[rows])


def test_two_crops_and_equal_flips_each_have_draws_of_their_own():
    twice = Compose([RandomHorizontalFlip(), RandomHorizontalFlip()])
    batch = images(400, 1, 1, 2)
    flipped = (twice(batch, None, draws(400)) != batch).any(dim=(1, 2, 3)).float().mean()
    assert 0.4 < flipped < 0.6  # with the same draws twice none would be
    crops = Compose([RandomCrop(9, 4), RandomCrop(9, 4), Scale()])
    found = crops(images(300, 1, 9, 9), None, draws(300))
    assert found.shape == (300, 1, 9, 9)
    once = RandomCrop(9, 4)(images(300, 1, 9, 9), None, draws(300))
    assert (found == 0).float().mean() > 1.2 * (once == 0).float().mean()


def test_offsets_are_uniform_as_torchvisions():
    ours = chained((RandomCrop(32, 4),), 8100, (32, 32), draws(8100))
    theirs = v2.RandomCrop(32, 4)
    torch.manual_seed(0)
    made = [theirs.make_params([torch.zeros(1, 32, 32)]) for _ in range(2000)]
    span = range(-4, 5)
    assert set(ours.top) == set(ours.left) == set(span)
    assert {each["top"] for each in made} == {each["left"] for each in made} == set(range(9))
    cells = np.bincount((ours.top + 4) * 9 + ours.left + 4, minlength=81)
    assert stats.chisquare(cells).pvalue > 1e-3
    assert stats.ks_2samp(ours.top + 4, [each["top"] for each in made]).pvalue > 1e-3
    assert stats.ks_2samp(ours.left + 4, [each["left"] for each in made]).pvalue > 1e-3


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 1.0])
def test_flips_have_their_probability(p):
    moves = chained((RandomHorizontalFlip(p), RandomVerticalFlip(p)), 8000, (4, 4), draws(8000))
    for found in (moves.mirrored, moves.upended):
        assert stats.binomtest(int(found.sum()), 8000, p).pvalue > 1e-3
    both = int((moves.mirrored & moves.upended).sum())
    assert stats.binomtest(both, 8000, p * p).pvalue > 1e-3  # independent of each other


def test_cifar_train():
    own = Moments([0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    assert repr(preset("cifar_train", lambda: own)) == repr(
        Compose([RandomCrop(32, 4), RandomHorizontalFlip(), Normalize(*own)])
    )
    published = preset("cifar_train", lambda: None).transforms[-1]
    assert (published.mean, published.std) == CIFAR10
    batch = images(64, 3, 32, 32)
    found = preset("cifar_train", lambda: own)(batch, torch.float16, draws(64))
    moved = Compose([RandomCrop(32, 4), RandomHorizontalFlip()])(batch, None, draws(64))
    assert found.dtype == torch.float16 and torch.equal(found, Normalize(*own)(moved, torch.float16))


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomCrop(0),
        lambda: RandomCrop((3, 4, 5)),
        lambda: RandomCrop(2.5),
        lambda: RandomCrop(3, padding=-1),
        lambda: RandomCrop(3, padding=(1, 2, 3)),
        lambda: RandomCrop(3, fill=256),
        lambda: RandomCrop(3, fill=()),
        lambda: RandomCrop(3, padding_mode="wrap"),
        lambda: RandomHorizontalFlip(1.5),
        lambda: RandomVerticalFlip("x"),
        lambda: Compose([]),
        lambda: Compose([lambda x: x]),
        lambda: Compose(RandomHorizontalFlip()),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_made(make):
    with pytest.raises(BadArgument):
        make()


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (RandomCrop(20, 2), "larger than the padded image of 13 x 16"),
        (RandomCrop(5, 9, padding_mode="reflect"), "less than that to mirror"),
        (RandomCrop(5, 2, fill=(1, 2)), "has 2 values, the images 3 channels"),
    ],
)
def test_images_that_a_crop_cannot_take(step, reason):
    with pytest.raises(BadArgument, match=reason):
        step(images(4), None, draws(4))


def test_what_a_move_cannot_do():
    with pytest.raises(BadArgument, match="draws=None: are needed"):
        RandomHorizontalFlip()(images(2))
    with pytest.raises(BadArgument, match="only uint8 images can be moved; put Normalize last"):
        RandomHorizontalFlip()(images(2).float(), None, draws(2))
    with pytest.raises(BadArgument, match="crops and flips give uint8"):
        RandomCrop(3)(images(2), torch.float16, draws(2))
    with pytest.raises(BadArgument, match="nothing here makes it"):
        Compose([RandomCrop(3)])(images(2), torch.float16, draws(2))
    assert not Compose([RandomCrop(3)]).casts and Compose([RandomCrop(3), Scale()]).casts
