"""Running out of a device's memory: one error, whoever says it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from datahub.core.errors import DeviceOutOfMemory


@contextmanager
def memory_of(device: torch.device) -> Iterator[None]:
    """Out-of-memory errors become `DeviceOutOfMemory`: PyTorch's, and CUDA's own, which have no class."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise DeviceOutOfMemory(str(device), _first_line(error)) from error
        raise


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(" If reserved")[0]
