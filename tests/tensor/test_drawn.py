"""Colour, warp and erasing transforms: each sample its own draws, drawn as torchvision draws, applied as it applies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from datahub.core.errors import BadArgument
from datahub.tensor import policies
from datahub.tensor.draws import Draws
from datahub.tensor.policies import NAMES
from datahub.tensor.transforms import (
    ColorJitter,
    Compose,
    GaussianBlur,
    Normalize,
    RandAugment,
    RandomAffine,
    RandomErasing,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomRotation,
    TrivialAugmentWide,
)
from datahub.tensor.warp import affine_maps

COUNT = 60
ALL = [
    ColorJitter(0.4, 0.4, 0.4, 0.2),
    ColorJitter(hue=(-0.1, 0.3)),
    ColorJitter(),
    RandomGrayscale(0.4),
    GaussianBlur((3, 5)),
    RandomRotation(40, fill=(1, 2, 3)),
    RandomAffine(20, (0.1, 0.2), (0.7, 1.3), (-5, 5, -10, 10), "bilinear"),
    RandAugment(3, 13),
    RandAugment(0),
    TrivialAugmentWide(interpolation="bilinear", fill=128),
    RandomErasing(0.7, value=(3, 4, 5)),
]


def draws(count: int = COUNT, first: int = 0, seed: int = 5) -> Draws:
    return Draws(seed, 1, np.arange(first, first + count))


def images(count: int = COUNT, channels: int = 3, height: int = 20, width: int = 17) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    coarse = torch.rand((count, channels, 5, 5), generator=generator) * 300 - 20
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return (smooth + 9 * torch.rand(smooth.shape, generator=generator)).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("transform", ALL, ids=repr)
def test_rows_are_alone_and_left_as_they_were(transform):
    batch = images()
    found = transform(batch, None, draws())
    assert torch.equal(batch, images()) and found.dtype == torch.uint8 and found.is_contiguous()
    rows = np.array([7, 55, 8])
    assert torch.equal(transform(batch[rows], None, draws().take(rows)), found[rows])
    listed = transform([*batch[:4]], None, draws(4))
    assert isinstance(listed, list) and torch.equal(torch.stack(listed), found[:4])
    last = batch.contiguous(memory_format=torch.channels_last)
    assert torch.equal(transform(last, None, draws()), found)
    assert transform(batch[:0], None, draws(0)).shape == (0, 3, 20, 17)


@pytest.mark.parametrize("transform", ALL, ids=repr)
def test_what_is_computed_whole_and_by_choice_is_the_same(transform):
    plan = transform.plan(draws(), (3, 20, 17))
    assert torch.equal(transform.apply(images(), *plan), transform.run(images(), *plan))
    gray = images(channels=1)
    if not isinstance(transform, RandomErasing | RandomRotation):
        plan = transform.plan(draws(), (1, 20, 17))
        assert torch.equal(transform.apply(gray, *plan), transform.run(gray, *plan))


def test_jitter_is_torchvisions_in_the_order_drawn():
    jitter = ColorJitter(0.5, (0.2, 1.7), 0.9, 0.4)
    functions = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    order, factors = jitter.plan(draws(), (3, 20, 17))
    found, orders = jitter(images(), None, draws()), set()
    for row, image in enumerate(images()):
        orders.add(tuple(order[row].tolist()))
        for number, factor in zip(order[row].tolist(), factors[row, :, 0].tolist(), strict=True):
            image = functions[number](image, factor)
        # A level that one step rounds otherwise is a few after steps that stretch.
        assert (image.int() - found[row].int()).abs().max() <= 5 and (image != found[row]).float().mean() < 0.01
    assert len(orders) > 18


def test_jitter_draws_as_torchvision():
    arguments = {"brightness": 0.4, "contrast": (0.3, 0.9), "saturation": 1.5, "hue": 0.3}
    order, factors = ColorJitter(**arguments).plan(draws(6000), (3, 8, 8))
    theirs = v2.ColorJitter(**arguments)
    torch.manual_seed(0)
    made = [theirs.make_params([]) for _ in range(1500)]
    by_kind = torch.zeros(6000, 4, dtype=torch.float64).scatter_(1, order, factors[..., 0]).numpy()
    for number, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        assert stats.ks_2samp(by_kind[:, number], [each[f"{name}_factor"] for each in made]).pvalue > 1e-3
    ranks = (order.numpy() * [64, 16, 4, 1]).sum(axis=1)
    counts = np.unique(ranks, return_counts=True)[1]
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > 1e-3
    assert abs(np.corrcoef(by_kind.T) - np.eye(4)).max() < 0.05


def test_affine_draws_as_torchvision():
    arguments = {"degrees": (-10, 50), "translate": (0.3, 0.1), "scale": (0.6, 1.5), "shear": (-9, 9, 3, 20)}
    ours = RandomAffine(**arguments).maps(draws(4000), (3, 40, 30))
    theirs = v2.RandomAffine(**arguments)
    torch.manual_seed(1)
    made = [theirs.make_params([torch.zeros(3, 40, 30)]) for _ in range(1500)]
    columns = [np.array([each[name] for each in made]) for name in ("angle", "translate", "scale", "shear")]
    expected = affine_maps(*columns)
    for number in range(6):
        assert stats.ks_2samp(ours[:, number], expected[:, number]).pvalue > 1e-3
    angle = RandomRotation(30).maps(draws(4000), (3, 8, 8))
    turned = np.degrees(np.arctan2(angle[:, 3], angle[:, 0]))  # the inverse of a counter-clockwise turn
    assert stats.kstest(turned, "uniform", (-30, 60)).pvalue > 1e-3


@pytest.mark.parametrize("arguments", [{}, {"p": 1.0, "scale": (0.3, 0.9), "ratio": (0.2, 5)}], ids=str)
def test_erasing_draws_as_torchvision(arguments):
    (box,) = RandomErasing(**{"p": 1.0, **arguments}).plan(draws(4000), (3, 24, 32))
    theirs = v2.RandomErasing(**{"p": 1.0, **arguments})
    torch.manual_seed(2)
    made = [theirs.make_params([torch.zeros(3, 24, 32)]) for _ in range(2000)]
    made = [(0, 0, 0, 0) if each["v"] is None else tuple(each[name] for name in "ijhw") for each in made]
    for number in range(4):
        assert stats.ks_2samp(box[:, number].numpy(), [each[number] for each in made]).pvalue > 1e-3
    assert (box[:, :2] + box[:, 2:] <= torch.tensor([24, 32])).all()
    (some,) = RandomErasing(0.3).plan(draws(4000), (3, 24, 32))
    assert stats.binomtest(int((some[:, 2] * some[:, 3] > 0).sum()), 4000, 0.3).pvalue > 1e-3


def test_erasing_is_torchvisions_before_and_after_normalising():
    erase, batch = RandomErasing(0.8, value=(1, 250, 7)), images()
    (box,) = erase.plan(draws(), (3, 20, 17))
    value = torch.tensor([1, 250, 7])[:, None, None]
    expected = [F.erase(image, *place, value.to(torch.uint8)) for image, place in zip(batch, box.tolist(), strict=True)]
    assert torch.equal(erase(batch, None, draws()), torch.stack(expected))
    chain = Compose([RandomHorizontalFlip(0), Normalize([0.5], [0.25]), RandomErasing(1.0)])
    found = chain(batch, torch.float16, draws())
    assert found.dtype == torch.float16
    blank = (found == 0).all(dim=1).flatten(1).sum(dim=1).numpy()
    (box,) = RandomErasing(1.0).plan(draws().again(2), (3, 20, 17))
    assert (blank >= (box[:, 2] * box[:, 3]).numpy()).all() and blank.min() > 0


def expected_of(name: str, image: torch.Tensor, magnitude: float, fill) -> torch.Tensor:
    theirs = v2.RandAugment(fill=fill)
    return theirs._apply_image_or_video_transform(image, name, magnitude, theirs.interpolation, theirs._fill)


@pytest.mark.parametrize("fill", [None, 40])
@pytest.mark.parametrize("name", NAMES)
def test_each_operation_of_the_policies_is_torchvisions(name, fill):
    batch = images(12)
    space = v2.TrivialAugmentWide._AUGMENTATION_SPACE[name]
    strengths = space[0](12, 20, 17)
    strengths = np.zeros(12) if strengths is None else strengths.double().numpy()
    strengths[::2] *= -1 if space[1] else 1
    policy, number = RandAugment(fill=fill), NAMES.index(name)
    plan = policy.planned(draws(12), (3, 20, 17), [(np.full(12, number), strengths)])
    found = policy.run(batch, *plan)
    expected = [
        expected_of(name, image, float(strength), fill) for image, strength in zip(batch, strengths, strict=True)
    ]
    apart = (found.int() - torch.stack(expected).int()).abs()
    assert (apart > 0).float().mean() < 2e-3 and (apart.max() <= 1 or name in ("Rotate", "ShearX", "ShearY"))


@pytest.mark.parametrize(
    ("ours", "theirs"), [(policies.RANDAUGMENT, v2.RandAugment), (policies.TRIVIAL, v2.TrivialAugmentWide)]
)
@pytest.mark.parametrize("bins", [31, 10, 2])
def test_the_policies_strengths_are_torchvisions(ours, theirs, bins):
    assert tuple(theirs._AUGMENTATION_SPACE) == NAMES
    for name, (strengths, signed) in theirs._AUGMENTATION_SPACE.items():
        expected = strengths(bins, 20, 34)
        expected = np.zeros(bins) if expected is None else expected.double().numpy()
        assert np.array_equal(ours[name].of(bins, (20, 34)), expected) and ours[name].signed == signed


def test_policies_draw_evenly():
    choice, numbers = TrivialAugmentWide().plan(draws(14 * 31 * 20), (3, 32, 32))
    counts = np.unique(choice.numpy(), return_counts=True)[1]
    assert len(counts) == 14 and stats.chisquare(counts).pvalue > 1e-3
    bright = numbers[choice[:, 0] == NAMES.index("Brightness"), 0, 0].numpy() - 1
    levels = np.unique(np.round(np.abs(bright), 6), return_counts=True)[1]
    assert len(levels) == 31 and stats.chisquare(levels).pvalue > 1e-3
    assert stats.binomtest(int((bright < 0).sum()), int((bright != 0).sum()), 0.5).pvalue > 1e-3
    choice, _ = RandAugment(2).plan(draws(9800), (3, 32, 32))
    pairs = np.unique(choice[:, 0] * 20 + choice[:, 1], return_counts=True)[1]
    assert len(pairs) == 196 and stats.chisquare(pairs).pvalue > 1e-3


@pytest.mark.parametrize(
    "make",
    [
        lambda: ColorJitter(-1),
        lambda: ColorJitter(hue=0.6),
        lambda: ColorJitter(saturation=(1, 0.5)),
        lambda: ColorJitter(contrast="x"),
        lambda: RandomGrayscale(2),
        lambda: GaussianBlur(4),
        lambda: GaussianBlur(3, 0),
        lambda: GaussianBlur((3, 3, 3)),
        lambda: RandomRotation(-3),
        lambda: RandomRotation((5, 1)),
        lambda: RandomRotation(3, "bicubic"),
        lambda: RandomRotation(3, fill=300),
        lambda: RandomAffine(3, translate=(0.5, 1.5)),
        lambda: RandomAffine(3, scale=(0, 1)),
        lambda: RandomAffine(3, shear=(1, 2, 3)),
        lambda: RandomAffine(3, center=5),
        lambda: RandAugment(-1),
        lambda: RandAugment(2, 31),
        lambda: RandAugment(2.0),
        lambda: TrivialAugmentWide(1),
        lambda: TrivialAugmentWide(fill="red"),
        lambda: RandomErasing(0.5, (0.5, 0.1)),
        lambda: RandomErasing(0.5, (0.5, 1.1)),
        lambda: RandomErasing(0.5, ratio=(0, 1)),
        lambda: RandomErasing(value="random"),
        lambda: RandomErasing(p=float("nan")),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_made(make):
    with pytest.raises(BadArgument):
        make()


def test_images_that_they_cannot_take():
    with pytest.raises(BadArgument, match="takes uint8 images; put Normalize after it"):
        ColorJitter(0.5)(images().float(), None, draws())
    with pytest.raises(BadArgument, match="takes images of 1 or 3 channels"):
        TrivialAugmentWide()(images(channels=4), None, draws())
    with pytest.raises(BadArgument, match="draws=None: are needed"):
        RandomErasing()(images())
    with pytest.raises(BadArgument, match="ColorJitter makes none"):
        ColorJitter(0.5)(images(), torch.float32, draws())
    with pytest.raises(BadArgument, match="has 2 values, the images 3 channels"):
        RandomRotation(5, fill=(1, 2))(images(), None, draws())
    with pytest.raises(BadArgument, match="less than its half to mirror in images of 20 x 17"):
        GaussianBlur(35)(images(), None, draws())
