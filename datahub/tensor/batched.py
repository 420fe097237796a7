"""What a batched transform is: `BatchTransform`, the seam between a loader and what is done to its images."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from datahub.tensor.draws import Draws

Images = torch.Tensor | list[torch.Tensor]
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class BatchTransform(ABC):
    """Something done to a batch of uint8 images at once."""

    @abstractmethod
    def __call__(self, images: Images, dtype: torch.dtype | None = None, draws: Draws | None = None) -> Images:
        """The transformed batch, in ``dtype`` (None: the transform's own); what is random comes from ``draws``."""
