"""`Drawn`: transforms in two parts, what each sample draws, and pixels computed from that by torch alone."""

from __future__ import annotations

from abc import abstractmethod

import torch

from datahub.core.errors import BadArgument
from datahub.tensor.batched import BatchTransform, Images
from datahub.tensor.draws import Draws

Plan = tuple[torch.Tensor, ...]
"""Tensors of a row a sample, on the host."""


class Drawn(BatchTransform):
    """A transform that keeps the images' shape and type: uint8 ``(B, C, H, W)``, or a list of ``(C, H, W)``.

    A list is worked through an image at a time; each row draws the same wherever it stands, and on every device.
    """

    casts = False
    floats = False
    """Whether normalised images are taken, too."""
    channels: tuple[int, ...] = ()
    """How many channels images may have; empty: any number."""

    @abstractmethod
    def plan(self, draws: Draws, image: tuple[int, int, int]) -> Plan:
        """What each sample draws, for images of ``image`` channels, height and width."""

    @abstractmethod
    def apply(self, images: torch.Tensor, *plan: torch.Tensor) -> torch.Tensor:
        """The transformed images, of what was drawn, on the images' device: what ``torch.compile`` may take whole.

        Nothing here hangs on a value: no shape, and no branch.
        """

    def run(self, images: torch.Tensor, *plan: torch.Tensor) -> torch.Tensor:
        """What `apply` gives, of a plan on the host, whose values may decide what is computed at all."""
        return self.apply(images, *(each.to(images.device, non_blocking=True) for each in plan))

    def __call__(self, images: Images, dtype: torch.dtype | None = None, draws: Draws | None = None) -> Images:
        """Images in the form they came in, which are left as they are. Raises `BadArgument`."""
        self._check(images, dtype)
        if draws is None:
            raise BadArgument("draws", None, "are needed for what is random", "pass datahub's Draws, or use the loader")
        if isinstance(images, list):
            rows = enumerate(images)
            return [self._run(image[None], draws.take(slice(row, row + 1)))[0] for row, image in rows]
        return self._run(images, draws)

    def _run(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        channels, height, width = images.shape[1:]
        return self.run(images.contiguous(), *self.plan(draws, (channels, height, width)))

    def _check(self, images: Images, dtype: torch.dtype | None) -> None:
        name = type(self).__name__
        if dtype not in (None, torch.uint8):
            raise BadArgument("dtype", str(dtype), f"{name} makes none", "add Normalize or Scale")
        for image in images[:1] if isinstance(images, torch.Tensor) else images:
            if image.dtype != torch.uint8 and not (self.floats and image.is_floating_point()):
                raise BadArgument("images", str(image.dtype), f"{name} takes uint8 images", "put Normalize after it")
            if self.channels and image.shape[0] not in self.channels:
                reason = f"{name} takes images of 1 or 3 channels"
                raise BadArgument("images", tuple(image.shape), reason, "leave it out")
