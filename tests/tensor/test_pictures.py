"""Charts and what is done so that transformed images can be looked at."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datahub.tensor import chart
from datahub.tensor.chart import Chart, draw, ticks, written
from datahub.tensor.sheet import CAPTION, contact_sheet
from datahub.tensor.transforms import Normalize
from datahub.tensor.viewing import viewable

BLUE, ORANGE = (0x1F, 0x5F, 0xA8), (0xC2, 0x57, 0x1A)


def places(image: torch.Tensor, colour: tuple[int, int, int]) -> torch.Tensor:
    """(row, column) of the pixels of one colour."""
    return (image == torch.tensor(colour, dtype=torch.uint8)[:, None, None]).all(0).nonzero()


@given(st.floats(1e-6, 1e12))
def test_ticks_reach_past_the_highest_in_few_steps(highest):
    found = ticks(highest)
    assert found[0] == 0 and found[-1] >= highest * (1 - 1e-6) and 3 <= len(found) <= 7
    if highest > 0.01:
        texts = written(found)
        assert len(set(texts)) == len(texts)
        assert all(float(text.replace(",", "")) == pytest.approx(tick) for text, tick in zip(texts, found, strict=True))


def test_a_line_lies_where_its_numbers_say():
    made = draw(Chart("t", [0, 5, 10], [10, 10, 10], "s", "n", level=(5.0, "mean")))
    assert made.shape == (3, chart.HEIGHT, chart.WIDTH) and made.dtype == torch.uint8
    line, level = places(made, BLUE), places(made, ORANGE)
    bottom = chart.HEIGHT - chart.BOTTOM
    height = bottom - line[:, 0].float().median()
    assert float(bottom - level[:, 0].float().mode()[0]) == pytest.approx(float(height) / 2, abs=2)
    assert line[:, 1].min() == pytest.approx(chart.LEFT, abs=3)
    assert line[:, 1].max() == pytest.approx(chart.WIDTH - chart.RIGHT, abs=3)


@pytest.mark.parametrize(("x", "y"), [([], []), ([1.0], [3.0]), ([0.0, 0.0], [0.0, 0.0]), (range(500), range(500))])
def test_any_series_can_be_drawn(x, y):
    assert draw(Chart("title " * 40, list(x), list(y), "s", "n", notes=["note " * 60] * 2)).float().std() > 0


@pytest.mark.parametrize("single", [True, False])
def test_normalised_images_come_back(single):
    images = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    normalise = Normalize([0.5], [0.25]) if single else Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

    class Chain:
        transforms = (torch.nn.Flatten(), normalise)

    for transform in (normalise, Chain()):
        for made in (normalise(images), list(normalise(images, torch.float16))):
            found = torch.stack(viewable(made, transform))
            assert (found.int() - images.int()).abs().max() <= (0 if isinstance(made, torch.Tensor) else 1)
    assert all(torch.equal(a, b) for a, b in zip(viewable(images, None), images, strict=True))


def test_unknown_numbers_are_stretched_over_the_batch():
    found = viewable([torch.full((1, 2, 2), -3.0), torch.full((1, 2, 2), 5.0), torch.full((1, 2, 2), 1.0)])
    assert [int(each.max()) for each in found] == [0, 255, 128]
    assert viewable([torch.zeros(1, 2, 2)])[0].max() == 0


def test_captions_of_several_lines_make_room():
    images = [torch.full((3, 8, 8), 100, dtype=torch.uint8)] * 2
    one, two = (contact_sheet(images, [text] * 2, size=40) for text in ("a", "a\nb"))
    assert two.shape[1] - one.shape[1] == CAPTION
