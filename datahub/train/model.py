"""The small convolutional net that the demo trains."""

from __future__ import annotations

import torch
from torch import nn


def small_net(channels: int, classes: int, size: int) -> nn.Sequential:
    """A classifier of ``(B, channels, size, size)`` float images; about 0.2 M parameters.

    Above 40 pixels the first convolution halves the image, so that a minute on two cores is enough.
    """
    stem = 2 if size > 40 else 1
    return nn.Sequential(
        *_block(channels, 32, stride=stem, kernel=5 if stem == 2 else 3),
        *_block(32, 48),
        nn.MaxPool2d(2),
        *_block(48, 96),
        nn.MaxPool2d(2),
        *_block(96, 128),
        nn.AdaptiveMaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128 * 4, classes),
    )


def _block(inputs: int, outputs: int, *, stride: int = 1, kernel: int = 3) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


@torch.no_grad()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> int:
    """How many of a batch the model gets right."""
    return int((model(images).argmax(1) == labels).sum())
