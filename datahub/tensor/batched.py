"""What a batched transform is: `BatchTransform`, the seam between a loader and what is done to its images."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from datahub.tensor.draws import Draws
from datahub.tensor.windows import Ints, Pixels, take_rows

Images = torch.Tensor | list[torch.Tensor]
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class BatchTransform(ABC):
    """Something done to a batch of uint8 images at once."""

    casts = True
    """Whether it makes the dtype that is asked for; what only moves pixels does not."""
    still = False
    """Whether every pixel stays where it was, so that boxes and masks may, too."""

    @abstractmethod
    def __call__(self, images: Images, dtype: torch.dtype | None = None, draws: Draws | None = None) -> Images:
        """The transformed batch, in ``dtype`` (None: the transform's own); what is random comes from ``draws``."""

    def of_rows(self, pixels: Pixels, rows: Ints, dtype: torch.dtype | None, draws: Draws | None) -> Images:
        """The transformed ``rows`` of ``pixels``, uint8 ``(N, C, H, W)``: as calling it with them, in fewer passes."""
        return self(torch.from_numpy(take_rows(pixels, rows)), dtype, draws)
