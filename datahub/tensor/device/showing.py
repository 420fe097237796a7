"""Decoded images on a device to what a batch shows of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from datahub.tensor.batched import BatchTransform, Images
from datahub.tensor.device.parts import Part
from datahub.tensor.draws import Draws
from datahub.tensor.folding import Folded
from datahub.tensor.frames import Frame
from datahub.tensor.fused.apply import Upload, resample
from datahub.tensor.fused.groups import framed_alike
from datahub.tensor.fused.lines import Lookup
from datahub.tensor.fused.regions import Regions


class Shown(NamedTuple):
    part: Part
    frame: Frame


def black(size: tuple[int, int], channels: int, *, whole: bool) -> Shown:
    """Black pixels for an image that is not there: ``whole`` ones, or one that is scaled to ``size``."""
    height, width = size if whole else (1, 1)
    frame = Frame((height, width), (0, 0, width, height), size, (0, 0, *size), False)
    return Shown(Part(np.zeros((height, width, channels), np.uint8), False, (0, 0, width, height)), frame)


def framed_on(
    images: Sequence[torch.Tensor],
    shown: Sequence[Shown],
    fold: Folded,
    dtype: torch.dtype | None,
    draws: Draws,
    *,
    lookup: Lookup | None,
    channels_last: bool,
    upload: Upload,
) -> Images:
    """The frames of ``images``, uint8 ``(C, h, w)`` of any strides, and what ``fold`` does to frames afterwards.

    ``lookup``: on the device, where it is all there is to do; the frames are then made with it.
    """
    scaled = np.array([each.frame.scaled for each in shown], np.int64)
    window = np.array([each.frame.window for each in shown], np.int64)
    flip = np.array([each.frame.flip for each in shown], np.bool_)
    places = [each.part.box for each in shown]
    if fold.output is None:
        return fold(framed_alike(images, scaled, window, flip, places, upload), dtype, draws)
    regions = Regions.of(scaled, window, flip, fold.output, places)
    found = resample(images, regions, lookup=lookup, channels_last=channels_last, upload=upload)
    return found if lookup is not None else laid_out(fold(found, dtype, draws), channels_last)


def whole_on(
    images: Images, transform: BatchTransform | None, dtype: torch.dtype | None, draws: Draws, channels_last: bool
) -> Images:
    """Images of any form, transformed."""
    return laid_out(images if transform is None else transform(images, dtype, draws), channels_last)


def laid_out(images: Images, channels_last: bool) -> Images:
    if channels_last and isinstance(images, torch.Tensor) and images.ndim == 4:
        return images.contiguous(memory_format=torch.channels_last)
    return images
