"""What a loader accepts, checked before anything is opened: every argument is honoured or refused, none ignored."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from datahub.core.errors import BadArgument
from datahub.order.formula import OrderOptions
from datahub.tensor.presets import Moments, preset
from datahub.tensor.transforms import DTYPES, BatchTransform, Mixing


def batch_sizes(batch_size: int | None, global_batch_size: int | None) -> None:
    """Exactly one of the two, positive."""
    if (batch_size is None) == (global_batch_size is None):
        given = "neither" if batch_size is None else "both"
        hint = "batch_size is per rank, global_batch_size of the whole job"
        raise BadArgument("batch_size", batch_size, f"give it or global_batch_size, not {given}", hint)
    for name, value in (("batch_size", batch_size), ("global_batch_size", global_batch_size)):
        if value is not None:
            whole(name, value, least=1)


def fits(batch: int, world_size: int, lanes: int) -> None:
    """The whole job's batch gives every rank a slot and every lane the same share."""
    if world_size > batch:
        reason = f"some of the {world_size} ranks would own no slot"
        raise BadArgument("global_batch_size", batch, reason, f"use at least {world_size}")
    if batch % lanes:
        raise BadArgument("lanes", lanes, f"does not divide the global batch of {batch}")


def integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadArgument(name, value, "must be a whole number")
    return value


def whole(name: str, value: Any, *, least: int) -> int:
    if integer(name, value) < least:
        raise BadArgument(name, value, f"must be a whole number of at least {least}")
    return integer(name, value)


def seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise BadArgument(name, value, "must be a positive number of seconds")
    return float(value)


def order_options(order: Any) -> OrderOptions:
    if order is not None and not isinstance(order, OrderOptions):
        raise BadArgument("order", order, "is not an order", "pass datahub.Order(window=..., lanes=...)")
    return order or OrderOptions()


def field_names(fields: Any) -> tuple[str, ...] | None:
    if fields is None:
        return None
    if isinstance(fields, str) or not all(isinstance(name, str) for name in fields):
        raise BadArgument("fields", fields, "is not a tuple of names", 'write ("image", "label")')
    return tuple(fields)


def on_error(value: Any, fields: tuple[str, ...] | None) -> bool:
    """Whether damaged samples are set aside; their rows must then be told from others."""
    if value not in ("raise", "quarantine"):
        raise BadArgument("on_error", value, 'use "raise" or "quarantine"')
    read = {"image", "encoded"}.intersection(fields or ())
    if value == "quarantine" and fields is not None and read and "valid" not in fields:
        reason = 'a quarantined sample comes as a black image, or bytes cut short, that only "valid" tells from others'
        raise BadArgument("fields", fields, reason, 'add "valid" to fields, or use on_error="raise"')
    return bool(value == "quarantine")


def process_workers(value: Any, *, on_cpu: bool) -> bool:
    """Whether batches are made by processes."""
    if value not in ("thread", "process"):
        raise BadArgument("workers", value, 'use "thread" or "process"')
    if value == "process" and not hasattr(os, "memfd_create"):
        raise BadArgument("workers", value, "needs Linux, whose memory files it is made of", 'use workers="thread"')
    if value == "process" and not on_cpu:
        hint = 'use workers="thread": they hold the interpreter little'
        raise BadArgument("workers", value, "processes share no memory with a device", hint)
    return bool(value == "process")


def callables(**given: Any) -> None:
    for name, value in given.items():
        if value is not None and not callable(value):
            raise BadArgument(name, value, "cannot be called")


def image_transform(
    transform: Any, dtype: torch.dtype | None, moments: Callable[[], Moments | None]
) -> BatchTransform | Callable[[torch.Tensor], Any] | None:
    """The transform that a name, a `BatchTransform` or a per-sample callable stands for."""
    if isinstance(transform, str):
        transform = preset(transform, moments)
    if isinstance(transform, type) and issubclass(transform, BatchTransform | Mixing | torch.nn.Module):
        name = transform.__name__
        raise BadArgument("transform", name, "is a class, which makes transforms", f"write {name}(...)")
    if isinstance(transform, Mixing):
        name = type(transform).__name__
        raise BadArgument("transform", name, "mixes the samples of a batch", "give it as batch_transform=")
    callables(transform=transform)
    if dtype is not None and dtype not in DTYPES:
        raise BadArgument("dtype", dtype, f"use one of {', '.join(map(str, DTYPES))}")
    if dtype is not None and not (isinstance(transform, BatchTransform) and transform.casts):
        reason = "only a preset or a transform of datahub.transforms makes it; images are uint8 without one"
        raise BadArgument("dtype", dtype, reason, 'add transform="normalize", or cast in your own transform')
    return transform  # type: ignore[no-any-return]
