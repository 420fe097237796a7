"""A line chart of one series as a PNG, drawn with Pillow: axes with units, a grid, a title and lines of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 960, 480
LEFT, RIGHT, BOTTOM = 90, 30, 64
INK, FAINT, LINE, MEAN = "#222222", "#dddddd", "#1f5fa8", "#c2571a"
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
"""Between two ticks lies one of these times a power of ten."""


@dataclass(frozen=True, slots=True)
class Chart:
    """``y`` over ``x``, from zero up. ``level`` is a horizontal line with its name; ``notes`` stand under the title."""

    title: str
    x: Sequence[float]
    y: Sequence[float]
    x_label: str
    y_label: str
    level: tuple[float, str] | None = None
    notes: Sequence[str] = ()


def draw(chart: Chart) -> torch.Tensor:
    """The chart as a uint8 ``(3, H, W)`` image, for `datahub.tensor.sheet.save_png`."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    top = 52 + 20 * len(chart.notes)
    pen.text((LEFT, 14), chart.title, INK, _font(20))
    for number, note in enumerate(chart.notes):
        pen.text((LEFT, 42 + 20 * number), _fitted(pen, note, WIDTH - LEFT - RIGHT), INK, _font(14))
    highest = max([*chart.y, chart.level[0] if chart.level else 0.0, 0.0]) or 1.0
    frame = _Frame(top, ticks(max([*chart.x, 0.0]) or 1.0), ticks(highest * 1.05))
    _axes(pen, frame, chart)
    points = [frame.at(x, y) for x, y in zip(chart.x, chart.y, strict=True)]
    if len(points) > 1:
        pen.line(points, LINE, 2, joint="curve")
    for x, y in points if len(points) <= 60 else ():
        pen.ellipse((x - 2, y - 2, x + 2, y + 2), LINE)
    if chart.level is not None:
        value, name = chart.level
        y = frame.at(0, value)[1]
        for x in range(LEFT, WIDTH - RIGHT, 12):
            pen.line((x, y, x + 6, y), MEAN, 2)
        corner = (WIDTH - RIGHT - 6, y - 6)
        pen.rectangle(pen.textbbox(corner, name, _font(14), anchor="rb"), "white")
        pen.text(corner, name, MEAN, _font(14), anchor="rb")
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def ticks(highest: float) -> list[float]:
    """About five round numbers from zero to the first at or above ``highest``, which is positive."""
    rough = highest / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each for each in STEPS if each * power >= rough * (1 - 1e-9)) * power
    return [number * step for number in range(math.ceil(highest / step * (1 - 1e-9)) + 1)]


@dataclass(frozen=True, slots=True)
class _Frame:
    top: int
    x_ticks: list[float]
    y_ticks: list[float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies in the image."""
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        return (
            LEFT + (right - LEFT) * x / self.x_ticks[-1],
            bottom - (bottom - self.top) * y / self.y_ticks[-1],
        )


def _axes(pen: ImageDraw.ImageDraw, frame: _Frame, chart: Chart) -> None:
    bottom, font = HEIGHT - BOTTOM, _font(14)
    for value, text in zip(frame.y_ticks, written(frame.y_ticks), strict=True):
        y = frame.at(0, value)[1]
        pen.line((LEFT, y, WIDTH - RIGHT, y), FAINT)
        pen.text((LEFT - 8, y), text, INK, font, anchor="rm")
    for value, text in zip(frame.x_ticks, written(frame.x_ticks), strict=True):
        x = frame.at(value, 0)[0]
        pen.line((x, bottom, x, bottom + 5), INK)
        pen.text((x, bottom + 8), text, INK, font, anchor="mt")
    pen.line((LEFT, frame.top, LEFT, bottom), INK)
    pen.line((LEFT, bottom, WIDTH - RIGHT, bottom), INK)
    pen.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12), chart.x_label, INK, font, anchor="mb")
    label = Image.new("L", (bottom - frame.top, 20), 0)
    ImageDraw.Draw(label).text((label.width / 2, 10), chart.y_label, 255, font, anchor="mm")
    pen.bitmap((6, frame.top), label.rotate(90, expand=True), INK)


def written(values: Sequence[float]) -> list[str]:
    """Ticks as text, with as many decimals as tell them apart."""
    step = values[1] - values[0]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if step * 10**decimals % 1 > 1e-6:  # 2.5 needs one more than 2 does
        decimals += 1
    return [f"{value:,.{decimals}f}" for value in values]


def _fitted(pen: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """``text``, cut with an ellipsis where it is wider."""
    font = _font(14)
    if pen.textlength(text, font) <= width:
        return text
    while text and pen.textlength(f"{text}…", font) > width:
        text = text[:-1]
    return f"{text}…"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
