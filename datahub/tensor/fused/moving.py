"""`moved`: rows of a uniform uint8 batch, each a window of its own, mirrored, upended and looked up, in one pass.

What `datahub.tensor.windows` does on the host, for tensors on any device: with Triton where it runs, else in torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from datahub.core.errors import BadArgument
from datahub.tensor.fused.apply import Upload
from datahub.tensor.fused.launching import LAUNCHER
from datahub.tensor.windows import Bools, Ints

MODES = {"constant": 0, "edge": 1, "reflect": 2, "symmetric": 3}
FIELDS = 4
"""What is said of each output: the row it is of, the window's top and left, and 1 if mirrored plus 2 if upended."""
BLOCK = 1024
"""Values that a program makes."""


class Windows(Protocol):
    """A window of each image, as `datahub.tensor.moves.Moves` says them."""

    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def top(self) -> Ints: ...
    @property
    def left(self) -> Ints: ...
    @property
    def mirrored(self) -> Bools: ...
    @property
    def upended(self) -> Bools: ...
    @property
    def mode(self) -> str: ...
    @property
    def fill(self) -> Sequence[int]: ...


def moved(
    pixels: torch.Tensor,
    rows: Ints | None,
    moves: Windows | None,
    *,
    table: torch.Tensor | None = None,
    channels_last: bool = False,
    upload: Upload | None = None,
    kernel: bool | None = None,
) -> torch.Tensor:
    """``(B, C, h, w)`` of ``pixels``, contiguous uint8 ``(N, C, H, W)``: its ``rows`` (None: all), moved (None: as they
    are). ``table`` ``(C, 256)`` on the same device says what becomes of each value; without it they stay uint8.
    """
    count = len(pixels) if rows is None else len(rows)
    channels = pixels.shape[1]
    size, mode = ((pixels.shape[2], pixels.shape[3]), "constant") if moves is None else (moves.size, moves.mode)
    numbers = _described(count, channels, rows, moves)
    given = torch.from_numpy(numbers).to(pixels.device, non_blocking=True) if upload is None else upload(numbers)
    form = torch.channels_last if channels_last else torch.contiguous_format
    dtype = torch.uint8 if table is None else table.dtype
    out = torch.empty((count, channels, *size), dtype=dtype, device=pixels.device, memory_format=form)
    if not out.numel():
        return out

    def launch() -> None:
        # Triton launches on the thread's current device.
        with torch.cuda.device_of(out):  # type: ignore[no-untyped-call]
            _launch(pixels, given, MODES[mode], table, channels_last, out)

    if not LAUNCHER.made(launch, pixels.device.type, kernel):
        _in_torch(pixels, given[: count * FIELDS].view(count, FIELDS), given[count * FIELDS :], mode, table, out)
    return out


def _described(count: int, channels: int, rows: Ints | None, moves: Windows | None) -> Ints:
    """`FIELDS` numbers of each output, then what fills each channel."""
    numbers = np.zeros(count * FIELDS + channels, np.int64)
    each = numbers[: count * FIELDS].reshape(count, FIELDS)
    each[:, 0] = np.arange(count) if rows is None else rows
    if moves is not None:
        if len(moves.fill) not in (1, channels):
            raise BadArgument("fill", moves.fill, f"has {len(moves.fill)} values, the images {channels} channels")
        each[:, 1], each[:, 2] = moves.top, moves.left
        each[:, 3] = moves.mirrored + 2 * moves.upended
        numbers[count * FIELDS :] = moves.fill
    return numbers


def _launch(
    pixels: torch.Tensor, given: torch.Tensor, mode: int, table: torch.Tensor | None, channels_last: bool,
    out: torch.Tensor,
) -> None:  # fmt: skip
    from datahub.tensor.fused.kernel_moved import moved as kernel

    count, channels, height, width = out.shape
    blocks = -(-channels * height * width // BLOCK)
    kernel[(blocks * count,)](
        pixels, given, given[count * FIELDS :], out if table is None else table, out,
        pixels.shape[2], pixels.shape[3], height, width, blocks,
        CHANNELS=channels, INTERLEAVED=channels_last, LOOKED_UP=table is not None, MODE=mode, BLOCK=BLOCK,
    )  # fmt: skip


def _in_torch(
    pixels: torch.Tensor, each: torch.Tensor, fill: torch.Tensor, mode: str, table: torch.Tensor | None,
    out: torch.Tensor,
) -> None:  # fmt: skip
    _, channels, height, width = out.shape
    y = _along(each[:, 1], height, each[:, 3] >= 2)
    x = _along(each[:, 2], width, each[:, 3] % 2 == 1)
    inside_y, y = _within(y, pixels.shape[2], mode)
    inside_x, x = _within(x, pixels.shape[3], mode)
    channel = torch.arange(channels, device=pixels.device)[None, :, None, None]
    found = pixels[each[:, 0][:, None, None, None], channel, y[:, None, :, None], x[:, None, None, :]]
    inside = inside_y[:, None, :, None] & inside_x[:, None, None, :]
    found = torch.where(inside, found, fill.to(torch.uint8)[None, :, None, None])
    out.copy_(found if table is None else table[channel, found.to(torch.int64)])


def _along(start: torch.Tensor, length: int, backwards: torch.Tensor) -> torch.Tensor:
    """Coordinates in the image of a window's rows or columns, ``(B, length)``."""
    steps = torch.arange(length, device=start.device)
    return start[:, None] + torch.where(backwards[:, None], length - 1 - steps, steps)


def _within(at: torch.Tensor, limit: int, mode: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether a coordinate shows the image, and where in it."""
    inside = (at >= 0) & (at < limit)
    if mode == "constant":
        return inside, at.clamp(0, limit - 1)
    if mode == "reflect":
        at = torch.where(at < 0, -at, torch.where(at >= limit, 2 * limit - 2 - at, at))
    elif mode == "symmetric":
        at = torch.where(at < 0, -1 - at, torch.where(at >= limit, 2 * limit - 1 - at, at))
    return torch.ones_like(inside), at.clamp(0, limit - 1)
