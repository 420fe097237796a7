"""`Decode`: how a loader decodes images, said in front of what is done to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datahub.core.errors import BadArgument


@dataclass(frozen=True)
class Decode:
    """A ``transform=`` that says how images are decoded: ``Decode(orient=True, then="imagenet_train")``.

    ``orient`` turns each image upright by its EXIF orientation before anything else is done to it; without it images
    come as they are stored, as from torchvision. Boxes, keypoints and masks, which are of the stored pixels, are turned
    with them. ``then`` is what ``transform=`` takes: a preset's name, a transform of
    `datahub.transforms`, or a callable. Raises `BadArgument`.
    """

    orient: bool = False
    then: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.orient, bool):
            raise BadArgument("orient", self.orient, "must be True or False")
        if isinstance(self.then, Decode):
            raise BadArgument("then", self.then, "images are decoded once", "give its own then=")

    @classmethod
    def of(cls, transform: Any) -> Decode:
        """``transform`` itself, or what stands for decoding as usual and then doing it."""
        return transform if isinstance(transform, cls) else cls(then=transform)
