"""Many arrays in one piece of staged memory, so that a batch crosses to the device in one copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

ALIGNED = 256
"""Where arrays begin: any dtype may be viewed there, and copies run at full speed."""


class Place(NamedTuple):
    begin: int
    end: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Packing:
    """Collects host tensors, says how much memory they need, writes them, and finds them again in a copy of it."""

    def __init__(self, begin: int = 0) -> None:
        self.begin = self.end = _aligned(begin)
        self._tensors: list[torch.Tensor] = []
        self._places: list[Place] = []

    def add(self, tensor: torch.Tensor) -> int:
        """Its number. Dense tensors keep their strides, others become contiguous."""
        if not (tensor.is_contiguous() or tensor.is_contiguous(memory_format=_form(tensor))):
            tensor = tensor.contiguous()
        begin, size = _aligned(self.end), tensor.numel() * tensor.element_size()
        self._places.append(Place(begin, begin + size, tensor.dtype, tuple(tensor.shape), tensor.stride()))
        self._tensors.append(tensor)
        self.end = begin + size
        return len(self._places) - 1

    def write(self, stage: torch.Tensor) -> None:
        """Into ``stage``, whose first byte is byte 0; the tensors are not needed after it."""
        for tensor, place in zip(self._tensors, self._places, strict=True):
            _view(stage, place).copy_(tensor)
        self._tensors.clear()

    def views(self, copy: torch.Tensor) -> Sequence[torch.Tensor]:
        """The tensors in a copy of the stage from `begin` to `end`."""
        return [
            _view(copy, place._replace(begin=place.begin - self.begin, end=place.end - self.begin))
            for place in self._places
        ]


def _view(buffer: torch.Tensor, place: Place) -> torch.Tensor:
    return buffer[place.begin : place.end].view(place.dtype).as_strided(
        place.shape, place.stride, (buffer.storage_offset() + place.begin) // place.dtype.itemsize
    )  # fmt: skip


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNED) * ALIGNED


def _form(tensor: torch.Tensor) -> torch.memory_format:
    return torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
