"""What of a batch crosses to the device, in one stretch of staged memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datahub.tensor.annotations import alike
from datahub.tensor.decode import Encoded
from datahub.tensor.device.lanes import Lane, on_device
from datahub.tensor.device.packing import ALIGNED, Packing
from datahub.tensor.device.tree import mapped, tensors_in


class Cargo:
    """``encoded`` is only staged, for the device's decoder reads it there; ``tree`` crosses in one copy.

    ``numbers``: int64 that `upload` has room for; they are known when the work is done.
    """

    def __init__(self, encoded: Sequence[Encoded], tree: Any, numbers: int = 0) -> None:
        self._sizes = [len(data) for data in encoded]
        self._encoded, self._tree = encoded, tree
        begins = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([-(-size // ALIGNED) * ALIGNED for size in self._sizes], out=begins[1:])
        self._begins: list[int] = begins.tolist()
        self._packing = Packing(self._begins[-1])
        for tensor in tensors_in(tree):
            self._packing.add(tensor)
        self._room = -(-self._packing.end // ALIGNED) * ALIGNED
        self._size = self._room + 8 * numbers
        self._stage = torch.empty(0, dtype=torch.uint8)

    def load(self, lane: Lane) -> list[torch.Tensor]:
        """Write everything into ``lane``'s staged memory; the encoded images there."""
        self._stage = lane.stage(self._size)
        bytes_there = self._stage.numpy()
        for begin, data in zip(self._begins, self._encoded, strict=False):
            bytes_there[begin : begin + len(data)] = np.frombuffer(data, np.uint8)
        self._packing.write(self._stage)
        self._encoded = ()
        return [self._stage[begin : begin + size] for begin, size in zip(self._begins, self._sizes, strict=False)]

    def unload(self, device: torch.device) -> Any:
        """The tree on the device; call it in the lane's order, once."""
        begin, end = self._packing.begin, self._packing.end
        if begin == end:
            return self._tree
        views = iter(self._packing.views(on_device(self._stage[begin:end], device)))
        return mapped(self._tree, lambda staged: alike(next(views), staged))

    def upload(self, numbers: NDArray[np.int64], device: torch.device) -> torch.Tensor:
        """``numbers`` on the device, in the lane's order. There is room for them once."""
        staged = self._stage[self._room : self._room + numbers.nbytes]
        if len(staged) < numbers.nbytes:
            return torch.from_numpy(numbers).to(device, non_blocking=True)
        self._room += numbers.nbytes
        found = staged.view(torch.int64).view(numbers.shape)
        found.copy_(torch.from_numpy(numbers))
        return on_device(found, device)
