"""Where a loader's pixels live: streamed from shards, decoded once on the host, or whole on the device.

Or its encoded bytes, which are decoded for every batch but read from the shards once; ``auto`` never chooses that.

The decision is a pure function of `Facts`; `datahub.loader.residency_files` makes and opens what it asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from datahub.core.errors import BadArgument, DiskFull
from datahub.core.sizes import format_bytes

Kind = Literal["stream", "host", "device", "encoded"]
CHOICES = ("auto", "stream", "host", "device", "encoded")

SMALLEST = 1 << 20
"""Decoded bytes below which decoding every epoch anew costs less than it is worth to keep."""
SHARE = 4
"""``auto`` takes at most one part in so many of the memory that is free."""
PATIENCE = 5.0
"""Seconds that ``auto`` may spend on decoding before a loader's first batch."""
PER_SAMPLE, PER_BYTE = 15e-6, 8e-9
"""Seconds of one thread: of reading and decoding a sample at all, and of each byte it decodes to."""
NO_SHAPE = "the images have no one shape"
FEWER = 'choose fewer samples (part=, max_samples=), pack a smaller variant (max256), or use "stream"'


@dataclass(frozen=True, slots=True)
class Facts:
    """What the decision rests on."""

    samples: int
    shape: tuple[int, int, int] | None
    """(C, H, W) of every image; None where they differ."""
    obstacle: str | None
    """What about the batches speaks for streaming them; None for nothing."""
    present: bool
    """The decoded file is on this disk already."""
    memory: int | None
    """Bytes free; None where the system does not say."""
    disk: int | None
    """Bytes free where derived files go; None where that cannot be told."""
    path: str
    """The decoded file."""
    workers: int = 1
    device: str | None = None
    """Where batches are made, if not on the host."""
    device_memory: int | None = None
    """Bytes free there; None where that cannot be told."""
    encoded: int = 0
    """Bytes of memory for all that batches read of the shards; told where it is asked for."""
    ranks: int = 1
    """Processes of this machine that each hold them, where they are held on the host."""

    @property
    def decoded(self) -> int:
        channels, height, width = self.shape or (0, 0, 0)
        return self.samples * channels * height * width

    @property
    def lacks_disk(self) -> bool:
        return not self.present and self.disk is not None and self.decoded > self.disk


@dataclass(frozen=True, slots=True)
class Residence:
    """What was chosen, and why, in words for people."""

    kind: Kind
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


def decide(wanted: str, facts: Facts) -> Residence:
    """What ``residency=wanted`` means here. Raises `BadArgument`, or `DiskFull`, where ``wanted`` cannot be had."""
    if wanted not in CHOICES:
        raise BadArgument("residency", wanted, "is no residency", f"use {', '.join(CHOICES)}")
    if wanted == "stream":
        return Residence("stream", "asked for")
    if not facts.samples:
        return Residence("stream", "the split is empty")
    if wanted == "encoded":
        return _encoded(facts)
    if facts.obstacle is not None:
        return Residence("stream", facts.obstacle)
    if wanted == "auto":
        reason = _obstacle(facts) or _reluctance(facts)
        if reason:
            return Residence("stream", reason)
        return _device(facts) if _fits_device(facts) else _host(facts)
    return _asked_for(wanted, facts)


def _encoded(facts: Facts) -> Residence:
    if not facts.encoded:
        return Residence("stream", "batches read nothing of the shards")
    size, here = f"{format_bytes(facts.encoded)} of encoded samples", facts.device is None
    free, ranks = (facts.memory, facts.ranks) if here else (facts.device_memory, 1)
    if free is not None and facts.encoded * ranks > free:
        each, where = f" in each of {ranks} ranks" if ranks > 1 else "", facts.device or "memory"
        raise BadArgument("residency", "encoded", f"{size}{each}, and {format_bytes(free)} of {where} are free", FEWER)
    where = "in memory" if here else f"on {facts.device}, from where those of a batch come back in one copy"
    return Residence("encoded", f"{size} {where}")


def _asked_for(wanted: str, facts: Facts) -> Residence:
    if facts.shape is None:
        raise BadArgument("residency", wanted, NO_SHAPE, 'use "stream" or "auto"')
    if facts.lacks_disk:
        raise DiskFull(facts.path, facts.decoded, facts.disk)
    if facts.memory is not None and facts.decoded > facts.memory:
        reason = f"{_size(facts)}, and {format_bytes(facts.memory)} of memory are free"
        raise BadArgument("residency", wanted, reason, 'use "stream" or "auto"')
    if wanted == "host":
        return _host(facts)
    if facts.device_memory is not None and facts.decoded > facts.device_memory:
        reason = f"{_size(facts)}, and {format_bytes(facts.device_memory)} of {facts.device} are free"
        raise BadArgument("residency", wanted, reason, 'use "host", "stream" or "auto"')
    return _device(facts)


def _obstacle(facts: Facts) -> str | None:
    """Why the pixels cannot be kept."""
    if facts.shape is None:
        return NO_SHAPE
    return f"{_size(facts)}, and {format_bytes(facts.disk or 0)} of disk are free" if facts.lacks_disk else None


def _reluctance(facts: Facts) -> str | None:
    """Why it is better not to, where nobody asked for it."""
    if facts.decoded < SMALLEST:
        return f"{_size(facts)}: too little to be worth keeping"
    if facts.memory is not None and facts.decoded > facts.memory // SHARE:
        return f"{_size(facts)}, more than a quarter of the {format_bytes(facts.memory)} of memory that are free"
    seconds = (facts.samples * PER_SAMPLE + facts.decoded * PER_BYTE) / max(1, facts.workers)
    if not facts.present and seconds > PATIENCE:
        return f'{_size(facts)}: the first batch would wait some {seconds:.0f} s; residency="host" does'
    return None


def _fits_device(facts: Facts) -> bool:
    """Whether nobody would miss the memory."""
    return facts.device_memory is not None and facts.decoded <= facts.device_memory // SHARE


def _device(facts: Facts) -> Residence:
    if facts.device is None:
        return Residence("device", f"{_size(facts)} in memory whole")
    return Residence("device", f"{_size(facts)} on {facts.device} whole; a batch is one gather there")


def _host(facts: Facts) -> Residence:
    known = "decoded before" if facts.present else "decoded once"
    return Residence("host", f"{_size(facts)}, {known}; a batch is one gather")


def _size(facts: Facts) -> str:
    return f"{format_bytes(facts.decoded)} of pixels"
