"""Operations chosen for each sample, one after the other: what `ColorJitter` and the automatic policies are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from datahub.tensor.drawn import Drawn
from datahub.tensor.pieces import Kernel, on_rows


@dataclass(frozen=True, slots=True)
class Operation:
    """``kernel`` takes images and, if ``count``, so many float64 numbers of each: ``(n,)``, or ``(n, count)``."""

    kernel: Kernel
    count: int = 1
    whole: bool = False
    """The kernel makes no floats of the images, and takes as many as there are at once."""

    def __call__(self, images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        if not self.count:
            return self.kernel(images)
        return self.kernel(images, numbers[:, 0] if self.count == 1 else numbers[:, : self.count])


class Staged(Drawn):
    """Its plan: ``choice`` int64 ``(B, stages)``, numbers of `operations` or -1, and float64 ``(B, stages, count)``."""

    channels = (1, 3)

    @property
    def operations(self) -> Sequence[Operation]:
        raise NotImplementedError

    def apply(self, images: torch.Tensor, *plan: torch.Tensor) -> torch.Tensor:
        """Every operation on every image, of which each keeps its own."""
        choice, numbers = plan
        for stage in range(choice.shape[1]):
            found = images
            for number, operation in enumerate(self.operations):
                chosen = (choice[:, stage] == number)[:, None, None, None]
                found = torch.where(chosen, operation(images, numbers[:, stage]), found)
            images = found
        return images

    def run(self, images: torch.Tensor, *plan: torch.Tensor) -> torch.Tensor:
        choice, numbers = plan
        images = images.clone()
        for stage in range(choice.shape[1]):
            chosen = choice[:, stage].numpy()
            for number in np.unique(chosen[chosen >= 0]).tolist():
                operation = self.operations[number]
                rows = np.flatnonzero(chosen == number)
                on_rows(operation, images, rows, (numbers[:, stage],), whole=operation.whole)
        return images
