"""The seam to an accelerator: a `Backend` gives `Lane`s, each a queue of device work with host memory of its own.

What is put on a lane happens in order, some time after the call returns. Lanes know nothing of each other. A lane is
used by one thread at a time; only what a `Ticket` gives may leave it. `datahub.tensor.device.cuda` is the real one,
`datahub.tensor.device.rehearsal` one in memory that breaks every order nobody has asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

PIECE = 32 << 20
"""Bytes of page-locked memory that large arrays cross through."""

T = TypeVar("T")
Out = TypeVar("Out", covariant=True)


class Ticket(Protocol[Out]):
    """Work that is queued."""

    def receive(self) -> Out:
        """Its result: what the calling thread's current stream does from here on comes after the work.

        Does not wait on the host. Raises what the work raised where that was not known before.
        """


class Lane(Protocol):
    def stage(self, size: int) -> torch.Tensor:
        """``size`` bytes of host memory, uint8, to copy from or decode from; what the last call gave is void.

        Waits on the host for the lane's work, which may still read it.
        """

    def decode(self, encoded: Sequence[torch.Tensor], channels: int) -> list[torch.Tensor]:
        """JPEGs, each uint8 ``(n,)`` in staged memory, to uint8 ``(channels, h, w)`` on the device, in its order.

        Decoders write as soon as they are called, whatever is queued before them: the lane must stand drained. Raises
        `Undecodable` where they refuse any of the images; which one is not known.
        """

    def enqueue(self, work: Callable[[], T]) -> Ticket[T]:
        """Queue ``work``, which makes tensors on the device and waits for nothing."""

    def drain(self) -> None:
        """Wait on the host until everything that was enqueued is done."""


@runtime_checkable
class Backend(Protocol):
    device: torch.device

    def lane(self) -> Lane:
        """A new lane."""

    def decodes(self) -> str | None:
        """What decodes JPEGs on the device, in words; None where nothing does."""

    def free_memory(self) -> int | None:
        """Bytes free on the device; None where that cannot be told."""


class Undecodable(Exception):
    """The device's decoder refused a batch. ``which`` of it, where that was found out: `decoded_by`."""

    def __init__(self, cause: str, which: Sequence[int] = ()) -> None:
        super().__init__(cause)
        self.which = which


def on_device(staged: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy of ``staged`` on the device, to be made in the current lane's order, never the same memory."""
    return torch.empty_like(staged, device=device).copy_(staged, non_blocking=True)


def decoded_by(lane: Lane, encoded: Sequence[torch.Tensor], channels: int) -> list[torch.Tensor]:
    """As `Lane.decode`, or `Undecodable` with those that it refuses: what others become does not hang on them."""
    if not encoded:
        return []
    try:
        return lane.decode(encoded, channels)
    except Undecodable as refusal:
        # One that is refused with others alone is no reason to give any of them to the device.
        which = _refused(lane, encoded, channels, 0) or range(len(encoded))
        raise Undecodable(str(refusal), which) from refusal


def _refused(lane: Lane, encoded: Sequence[torch.Tensor], channels: int, first: int) -> list[int]:
    """Places of images that are refused, found by halves."""
    try:
        lane.decode(encoded, channels)
    except Undecodable:
        half = len(encoded) // 2
        if not half:
            return [first]
        left, right = encoded[:half], encoded[half:]
        return _refused(lane, left, channels, first) + _refused(lane, right, channels, first + half)
    return []


def kept(pixels: NDArray[Any], lane: Lane, device: torch.device) -> torch.Tensor:
    """An array on the device for good: every lane may read it, for the host has waited until it is there.

    It crosses in pieces, so that little of the host's memory is page-locked for it.
    """
    pixels = np.ascontiguousarray(pixels)
    ticket = lane.enqueue(lambda: torch.empty(pixels.nbytes, dtype=torch.uint8, device=device))
    found = ticket.receive()
    flat = pixels.reshape(-1).view(np.uint8)
    for begin in range(0, len(flat), PIECE):
        piece = flat[begin : begin + PIECE]
        staged = lane.stage(len(piece))
        staged.numpy()[:] = piece
        lane.enqueue(partial(found[begin : begin + PIECE].copy_, staged, non_blocking=True))
    lane.drain()
    return found.view(torch.from_numpy(np.empty(0, pixels.dtype)).dtype).view(pixels.shape)
