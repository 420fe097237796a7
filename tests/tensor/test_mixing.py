"""MixUp and CutMix: each row with its partner as torchvision mixes two, shares and boxes drawn as it draws them."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchvision.transforms import v2

from datahub.core.errors import BadArgument
from datahub.tensor.draws import Draws
from datahub.tensor.mixing import Mixture, beta, partners
from datahub.tensor.transforms import CutMix, MixUp, RandomMix

COUNT, CLASSES = 40, 7
PAIRS = partners(np.arange(COUNT), np.ones(COUNT, np.bool_), 2)


def draws(count: int = COUNT, seed: int = 8) -> Draws:
    return Draws(seed, 0, np.arange(count))


def batch(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (COUNT, 3, 18, 25), generator=generator)
    return images.to(dtype), torch.randint(0, CLASSES, (COUNT,), generator=generator)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("kind", ["MixUp", "CutMix"])
def test_a_row_and_its_partner_as_torchvision_mixes_two(kind, alpha):
    ours = {"MixUp": MixUp, "CutMix": CutMix}[kind](alpha, CLASSES)
    images, labels = batch()
    plan = ours.plan(draws(), PAIRS)
    found, soft = ours(images, labels, plan)
    assert soft.dtype == torch.float32 and soft.shape == (COUNT, CLASSES)
    theirs = getattr(v2, kind)(alpha=alpha, num_classes=CLASSES)
    boxes = plan.boxes(25, 18)
    for row, partner in enumerate(PAIRS.tolist()):
        area = float((boxes[row, 2:] - boxes[row, :2]).prod()) / (18 * 25)
        own = {"lam": float(plan.ratio[row])} if kind == "MixUp" else {"box": boxes[row].tolist()}
        made = {**own, "lam_adjusted": 1 - area}
        with mock.patch.object(theirs, "make_params", lambda inputs, made=made: made):
            image, label = theirs(images[[row, partner]], labels[[row, partner]])
        assert torch.allclose(found[row], image[0], rtol=1e-6, atol=1e-4)
        assert torch.allclose(soft[row], label[0], atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 4.0])
def test_shares_are_beta_distributed(alpha):
    chance = draws(6000).uniform("x")[:, 0]
    found = beta(alpha, chance)
    assert np.abs(found - stats.beta(alpha, alpha).ppf(chance)).max() < 1e-4
    assert np.allclose(beta(alpha, 1 - chance), 1 - found, atol=1e-4) and found.min() >= 0 and found.max() <= 1


def test_boxes_are_drawn_as_torchvisions():
    plan = CutMix(0.7, CLASSES).plan(draws(4000), partners(np.arange(4000), np.ones(4000, np.bool_), 2))
    boxes = plan.boxes(30, 20).numpy()
    theirs = v2.CutMix(alpha=0.7, num_classes=CLASSES)
    torch.manual_seed(4)
    made = np.array([theirs.make_params([torch.zeros(3, 20, 30)])["box"] for _ in range(1500)])
    for column in range(4):
        assert stats.ks_2samp(boxes[:, column], made[:, column]).pvalue > 1e-3
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= [30, 20]).all() and (boxes[:, :2] <= boxes[:, 2:]).all()


@given(
    slots=st.lists(st.integers(0, 60), min_size=1, max_size=30, unique=True).map(sorted),
    group=st.integers(1, 9),
    data=st.data(),
)
@settings(deadline=None, max_examples=120)
def test_partners(slots, group, data):
    valid = np.array(data.draw(st.lists(st.booleans(), min_size=len(slots), max_size=len(slots))))
    found = partners(np.array(slots), valid, group)
    for row, partner in enumerate(found.tolist()):
        mates = [other for other, slot in enumerate(slots) if valid[other] and slot // group == slots[row] // group]
        expected = mates[mates.index(row) - 1] if valid[row] else row
        assert partner == expected
    # What a rank sees of its own groups is what one rank alone would.
    edge = data.draw(st.integers(0, 61 // group)) * group
    mine = np.array(slots) >= edge
    assert np.array_equal(partners(np.array(slots)[mine], valid[mine], group) + (~mine).sum(), found[mine])


def test_rows_alone_stay_as_they_are():
    images, labels = batch()
    alone = np.arange(COUNT)
    for mixing in (MixUp(1.0, CLASSES), CutMix(1.0, CLASSES), RandomMix([MixUp(1.0, CLASSES), CutMix(1.0, CLASSES)])):
        found, soft = mixing(images, labels, mixing.plan(draws(), alone))
        assert torch.equal(found, images)
        assert torch.equal(soft, torch.nn.functional.one_hot(labels, CLASSES).float())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float64])
def test_images_keep_their_type_and_are_left_as_they_were(dtype):
    images, labels = batch(dtype)
    before = images.clone()
    mixing = RandomMix([MixUp(0.5, CLASSES), CutMix(0.5, CLASSES)], [1, 3])
    plan = mixing.plan(draws(), PAIRS)
    found, soft = mixing(images, labels, plan)
    exact, same = mixing(images.double(), labels, plan)
    assert torch.equal(images, before) and found.dtype == dtype and torch.equal(soft, same)
    assert (found.double() - exact).abs().max() <= (0.5 if dtype == torch.uint8 else 256 * torch.finfo(dtype).eps)
    assert torch.allclose(soft.sum(1), torch.ones(COUNT)) and (soft > 0).sum() > COUNT


def test_which_mixing_is_drawn_for_each_row():
    partner = partners(np.arange(4000), np.ones(4000, np.bool_), 4)
    mixing = RandomMix([MixUp(1.0, CLASSES), CutMix(1.0, CLASSES)], [3, 1])
    plan = mixing.plan(draws(4000), partner)
    cut = int((plan.half > 0).sum())
    assert stats.binomtest(cut, 4000, 0.25).pvalue > 1e-3 and not ((plan.half > 0) & (plan.ratio < 1)).any()
    rows = np.array([5, 3999, 17])
    some = mixing.plan(draws(4000).take(rows), rows - 1)  # none its own partner
    assert all(torch.equal(a, b[rows]) for a, b in zip(some[1:], plan[1:], strict=True))


def test_whole_batches_at_once_are_the_same(monkeypatch):
    images, labels = batch()
    mixing = RandomMix([MixUp(1.0, CLASSES), CutMix(1.0, CLASSES)])
    plan = mixing.plan(draws(), PAIRS)
    expected = mixing(images, labels, plan)
    for patch in ({"on_cpu": lambda images: False}, {"images_a_piece": lambda images: 7}):
        with monkeypatch.context() as patched:
            for name, value in patch.items():
                patched.setattr(f"datahub.tensor.mixing.{name}", value)
            assert all(torch.equal(a, b) for a, b in zip(mixing(images, labels, plan), expected, strict=True))
    assert isinstance(plan, Mixture)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MixUp(0),
        lambda: MixUp("x"),
        lambda: MixUp(float("inf")),
        lambda: CutMix(1.0, 0),
        lambda: CutMix(mix_group=0),
        lambda: CutMix(mix_group=2.0),
        lambda: RandomMix([]),
        lambda: RandomMix([v2.MixUp(num_classes=3)]),
        lambda: RandomMix([MixUp(), CutMix()], [1]),
        lambda: RandomMix([MixUp(), CutMix()], [0, 0]),
        lambda: RandomMix([MixUp(), CutMix(mix_group=4)]),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_made(make):
    with pytest.raises(BadArgument):
        make()
