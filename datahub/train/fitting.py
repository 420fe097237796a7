"""Whether a model and its images go together, asked of one image before anything is learnt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from datahub.core.errors import BadArgument
from datahub.tensor.device.memory import memory_of


@torch.no_grad()
def check_size(module: nn.Module, images: torch.Tensor, model: str) -> None:
    """Raise `BadArgument` where ``model`` takes no images of this size; ``images`` are a batch, on its device."""
    training = module.training
    try:
        with memory_of(images.device):
            module.eval()(images[:1])
    except (RuntimeError, ValueError, AssertionError) as error:
        height, width = images.shape[-2:]
        reason = f"takes no images of {width} x {height}: {str(error).partition(chr(10))[0]}"
        hint = "train another model, or on larger images: --augment imagenet_train makes 224 x 224 of them"
        raise BadArgument("model", model, reason, hint) from error
    finally:
        module.train(training)


@contextmanager
def learning(device: torch.device, batch: int) -> Iterator[None]:
    """Around a training step. Raises `DeviceOutOfMemory`, and `BadArgument` for a batch too small to be normalised."""
    try:
        with memory_of(device):
            yield
    except ValueError as error:
        if not str(error).startswith("Expected more than 1 value per channel"):
            raise
        reason = "a rank gets one image of it, and the model normalises over several"
        raise BadArgument("batch", batch, reason, "use a larger batch") from error
