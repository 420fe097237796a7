"""What transforms are made with: anything that means nothing is refused in one line, then or at the first run."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch

from datahub import transforms
from datahub.core.errors import BadArgument
from datahub.tensor.draws import Draws
from datahub.tensor.mixing import beta
from tests.tensor.images import noise

NAN, INF = float("nan"), float("inf")
NONSENSE = (
    None, -1, 0, NAN, INF, -INF, "3", "", b"12", [], (), {}, {1: 2}, (1,), (2, 1), (NAN, 1), (0, INF), (-1, 1),
    ("1", "2"), 10**30, 10**400, 1e300, True, object(), np.float32(0.5), np.int64(3), np.array([1, 2]), torch.tensor(2),
    [[1, 2], [3, 4]], {3, 4}, range(2), (1, 2, 3), 0.5, 2, len,
)  # fmt: skip
BASE: dict[str, dict[str, Any]] = {
    "RandomResizedCrop": {"size": 8},
    "Resize": {"size": 8},
    "CenterCrop": {"size": 8},
    "RandomCrop": {"size": 8},
    "GaussianBlur": {"kernel_size": 3},
    "RandomRotation": {"degrees": 10},
    "RandomAffine": {"degrees": 10},
    "Normalize": {"mean": (0.5,), "std": (0.5,)},
    "MaskFill": {"value": 1},
    "Compose": {"transforms": [transforms.RandomHorizontalFlip()]},
    "RandomMix": {"mixings": [transforms.MixUp(num_classes=3)]},
    "Planned": {"transform": transforms.RandomHorizontalFlip(), "image": (3, 16, 16)},
}
NAMES = [
    name
    for name in transforms.__all__
    if inspect.isclass(each := getattr(transforms, name)) and not inspect.isabstract(each)
]
IMAGES = torch.from_numpy(np.stack([noise(16, 16, seed=seed).transpose(2, 0, 1) for seed in range(4)]))
DRAWS = Draws(1, 0, np.arange(4))


def run(made: Any) -> None:
    if isinstance(made, transforms.Mixing):
        made = made.bound(3)
        classes = min(3, made.num_classes or 3)
        made(IMAGES, torch.arange(4) % classes, made.plan(DRAWS, np.array([1, 0, 3, 2])))
    elif isinstance(made, transforms.BatchTransform):
        found = made(IMAGES, None, DRAWS)
        assert len(found) == 4 and (not torch.is_tensor(found) or torch.isfinite(found).all())


@pytest.mark.parametrize("name", NAMES)
def test_nonsense_is_refused_in_one_line_or_harmless(name: str) -> None:
    made = getattr(transforms, name)
    for argument in inspect.signature(made).parameters:
        for value in NONSENSE:
            try:
                run(made(**{**BASE.get(name, {}), argument: value}))
            except BadArgument as error:
                assert "\n" not in str(error) and len(str(error)) < 250 + len(repr(value)), argument


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("RandomResizedCrop", {"scale": "12"}),
        ("RandomResizedCrop", {"scale": (1, 0.1)}),
        ("RandomResizedCrop", {"ratio": (0, 1)}),
        ("RandomResizedCrop", {"ratio": {3, 4}}),
        ("RandomCrop", {"padding_mode": ["edge"]}),
        ("ColorJitter", {"brightness": INF}),
        ("GaussianBlur", {"kernel_size": True}),
        ("RandomErasing", {"value": np.array([[1, 2]])}),
        ("RandomAffine", {"fill": [[1], [2]]}),
        ("RandomAffine", {"interpolation": np.array([1, 2])}),
        ("RandAugment", {"num_ops": 10**30}),
        ("TrivialAugmentWide", {"num_magnitude_bins": 10**30}),
        ("Normalize", {"mean": 0.5}),
        ("Normalize", {"mean": "12", "std": "12"}),
        ("Normalize", {"mean": (NAN,)}),
        ("RandomMix", {"p": 0.5}),
        ("MixUp", {"num_classes": 10**30}),
        ("Planned", {"image": (3, 16)}),
        ("Planned", {"image": (3, 0, 16)}),
        ("Clip", {"frames": 10**30}),
        ("Clip", {"field": 3}),
        ("Clip", {"start": np.array([1, 2])}),
    ],
)
def test_what_was_taken_for_something_else(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadArgument):
        getattr(transforms, name)(**{**BASE.get(name, {}), **wrong})


def test_arrays_and_tensors_are_lists_of_numbers() -> None:
    made = transforms.Normalize(np.array([0.5, 0.25], np.float32), torch.tensor([1.0, 2.0]))
    assert (made.mean, made.std) == ((0.5, 0.25), (1.0, 2.0))
    assert transforms.Normalize([np.float32(0.5)], [np.float32(0.5)]).mean == (0.5,)
    assert transforms.RandomResizedCrop(8, np.array([0.5, 1.0])).scale == (0.5, 1.0)


@pytest.mark.parametrize("alpha", [1e-300, 1e-6, 1.0, 600.0, 5000.0, 1e6, 1e300])
def test_any_positive_alpha_has_a_distribution(alpha: float) -> None:
    found = beta(alpha, (np.arange(1000) + 0.5) / 1000)
    assert ((found >= 0) & (found <= 1)).all() and (np.diff(found) >= 0).all()
    if alpha > 500:  # the deviation of Beta(alpha, alpha)
        assert found.std() == pytest.approx((4 * (2 * alpha + 1)) ** -0.5, rel=0.05, abs=2e-4)
