"""Transforms over given draws: what they give without, compiled whole as well."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datahub.core.errors import BadArgument
from datahub.tensor.draws import Draws
from datahub.tensor.transforms import (
    ColorJitter,
    Compose,
    Normalize,
    Planned,
    RandomAffine,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomVerticalFlip,
    Scale,
    TrivialAugmentWide,
)

MEAN, STD = (0.4, 0.5, 0.45), (0.2, 0.25, 0.3)
USUAL = Compose([ColorJitter(0.4, 0.4, 0.4, 0.1), RandomHorizontalFlip(), Normalize(MEAN, STD), RandomErasing(0.5)])


def images(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(6)
    return torch.randint(0, 256, (count, 3, 14, 11), dtype=torch.uint8, generator=generator)


def draws(count: int, first: int = 0) -> Draws:
    return Draws(2, 0, np.arange(first, first + count))


@pytest.mark.parametrize(
    "transform",
    [
        USUAL,
        Scale(),
        RandomVerticalFlip(),
        Compose([RandomHorizontalFlip(), RandomCrop((12, 9), 3, (9, 8, 7)), RandomVerticalFlip()]),
        Compose([RandomCrop(16, (4, 3), padding_mode="reflect"), RandomHorizontalFlip(), RandomCrop(8)]),
        Compose([RandomCrop(18, 7, padding_mode="symmetric"), RandomHorizontalFlip()]),
        Compose([RandomVerticalFlip(), RandomCrop((40, 20), 15, padding_mode="edge"), TrivialAugmentWide()]),
        RandomAffine(20, interpolation="bilinear", fill=3),
    ],
    ids=repr,
)
def test_as_without(transform):
    planned = Planned(transform, (3, 14, 11))
    assert torch.equal(planned.apply(images(20), planned.plan(draws(20))), transform(images(20), None, draws(20)))


def test_compiled_whole_for_any_draws():
    torch._dynamo.reset()
    planned, graphs = Planned(USUAL, (3, 14, 11)), []

    def counted(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    compiled = torch.compile(planned.apply, fullgraph=True, backend=counted)
    for first in (0, 8, 16):
        plans = planned.plan(draws(8, first))
        found, expected = compiled(images(8), plans), USUAL(images(8), None, draws(8, first))
        assert torch.equal(found, expected)
    assert len(graphs) == 1  # other draws need no other graph


def test_what_is_decided_before_decoding():
    with pytest.raises(BadArgument, match=r"RandomResizedCrop.*before images are decoded; plan what follows it"):
        Planned(Compose([RandomResizedCrop(9), Scale()]), (3, 14, 11))
    with pytest.raises(BadArgument, match="larger than the padded image"):
        Planned(RandomCrop(30), (3, 14, 11))
    with pytest.raises(BadArgument, match="has 2 values"):
        Planned(RandomCrop(9, fill=(1, 2)), (3, 14, 11))
