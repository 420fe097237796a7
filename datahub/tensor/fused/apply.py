"""`resample`: decoded images of any sizes to one batch; the Triton kernel where it runs, else its torch reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from datahub.tensor.fused import reference
from datahub.tensor.fused.launching import LAUNCHER
from datahub.tensor.fused.lines import Lookup
from datahub.tensor.fused.regions import Ints, Regions

FIELDS = 13
"""Numbers of an image that the kernels are told, as int64; see `datahub.tensor.fused.kernel_tables`."""
NUMBERS = FIELDS + 4
"""Of those, with four of float64 behind them."""
BLOCK = 256
"""Pixels of an axis that a program of the table kernel holds at once."""
TALL, WIDE = 32, 128
"""The tile of a warp: rows and values of output. Chosen by counting compiled instructions and registers."""

Upload = Callable[[NDArray[np.int64]], torch.Tensor]
"""Puts numbers on the device, as a tensor of their own."""


def resample(
    images: Sequence[torch.Tensor],
    regions: Regions,
    *,
    lookup: Lookup | None = None,
    channels_last: bool = False,
    upload: Upload | None = None,
    kernel: bool | None = None,
) -> torch.Tensor:
    """``(B, C, *regions.size)``: the regions of uint8 images ``(C, h, w)`` of any strides, on one device.

    Pixels are those of torchvision's ``resized_crop(antialias=True)`` on uint8 and a flip, bit for bit.
    ``lookup`` says what becomes of each value, and the dtype; without it they stay uint8. ``kernel``: None for Triton's
    on CUDA devices. Raises ``ValueError`` for images and regions that do not fit each other.
    """
    table = None if lookup is None else lookup.table
    limits = checked(images, regions, table)
    device, channels = images[0].device, len(images[0])
    form = torch.channels_last if channels_last else torch.contiguous_format
    dtype = torch.uint8 if table is None else table.dtype
    out = torch.empty((len(images), channels, *regions.size), dtype=dtype, device=device, memory_format=form)

    def launch() -> None:
        numbers = described(images, regions, limits)
        given = torch.from_numpy(numbers).to(device, non_blocking=True) if upload is None else upload(numbers)
        # Triton launches on the thread's current device.
        with torch.cuda.device_of(out):  # type: ignore[no-untyped-call]
            _launch(regions, given, lookup, channels_last, out)

    if not LAUNCHER.made(launch, device.type, kernel):
        reference.resample(images, regions, limits, table, out)
    return out


def checked(images: Sequence[torch.Tensor], regions: Regions, table: torch.Tensor | None) -> tuple[Ints, Ints]:
    """First and past-the-last input of each row and column; raises ``ValueError`` where anything does not fit."""
    if not images or len(images) != len(regions):
        raise ValueError(f"{len(images)} images and {len(regions)} regions")
    first = images[0]
    for row, image in enumerate(images):
        if image.dtype != torch.uint8 or image.ndim != 3 or len(image) != len(first) or image.device != first.device:
            raise ValueError(f"image {row} is no uint8 (C, H, W) with the channels and the device of the first")
    if table is not None and (table.shape != (len(first), 256) or table.device != first.device):
        raise ValueError(f"the table is {tuple(table.shape)} on {table.device}, not ({len(first)}, 256) beside images")
    return regions.limits(np.array([image.shape[1:] for image in images], np.int64))


def described(images: Sequence[torch.Tensor], regions: Regions, limits: tuple[Ints, Ints]) -> Ints:
    """The kernels' ``params``, int64 ``(B, NUMBERS)``; the last four columns are float64."""
    low, high = limits
    numbers = np.empty((len(images), NUMBERS), np.int64)
    numbers[:, :4] = [(image.data_ptr(), *image.stride()) for image in images]
    numbers[:, 4] = regions.flip
    for axis, at in ((0, 5), (1, 9)):
        numbers[:, at] = regions.corner[:, axis]
        numbers[:, at + 1] = regions.scaled[:, axis]
        numbers[:, at + 2] = low[:, axis]
        numbers[:, at + 3] = high[:, axis]
    numbers[:, FIELDS:] = regions.box[:, [1, 3, 0, 2]].copy().view(np.int64)
    return numbers


def taps_of(regions: Regions) -> int:
    """Inputs that an output may depend on, the most of any axis."""
    scale = np.maximum(regions.box[:, [3, 2]] / regions.scaled, 1.0)
    return 2 * int(np.ceil(scale.max())) + 1


def _launch(
    regions: Regions, given: torch.Tensor, lookup: Lookup | None, channels_last: bool, out: torch.Tensor
) -> None:
    from datahub.tensor.fused.kernel_resample import resample as kernel
    from datahub.tensor.fused.kernel_tables import tables

    batch, channels, height, width = out.shape
    shown, record, device = max(height, width), 2 + 2 * -(-taps_of(regions) // 4), out.device
    spans = torch.empty((batch, 2, shown, record), dtype=torch.int32, device=device)
    bits = torch.empty((batch, 4), dtype=torch.int32, device=device)
    kind, read = (0, out) if lookup is None else (1, lookup.table) if lookup.line is None else (2, lookup.line)
    values = -(-width * channels // WIDE) if channels_last else channels * -(-width // WIDE)
    tiles = values * -(-height // TALL)
    tables[(batch, 2)](
        given, given.view(torch.float64), spans, bits, height, width, shown, record,
        FIELDS=FIELDS, BLOCK=BLOCK, enable_fp_fusion=False,
    )  # fmt: skip
    kernel[(tiles * batch,)](
        given, spans, bits, read, out, height, width, shown, record, TALL, tiles,
        FIELDS=FIELDS, CHANNELS=channels, INTERLEAVED=channels_last, LOOKUP=kind, WIDE=WIDE,
        ASM=device.type == "cuda", num_warps=1,
    )  # fmt: skip
