"""What a loader hands out: dicts and tuples that know the state of the loader right after them.

A batch that has travelled (through a queue, a process, a copy, to another device) still carries its state, so that a
training loop can save where it is without asking the loader, which may be further on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch

from datahub.core.errors import BadArgument

State = Mapping[str, int | str]


class Travelling:
    """A batch with its ``state``. Lightning, Accelerate and torch's pinning thread find these methods and keep both."""

    state: State

    def to(self, device: str | torch.device, non_blocking: bool = False) -> Self:
        """The batch with every tensor of it on ``device``."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The batch with every tensor of it in page-locked memory."""
        return self._mapped(_pinned)

    def _mapped(self, of: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        made: Self = type(self)(_each(self, of))  # type: ignore[call-arg]
        made.__dict__.update(self.__dict__)
        return made


class Batch(Travelling, dict[str, Any]):
    """A batch as a dict, with its ``state`` beside the items: iterating shows the fields alone."""


class TupleBatch(Travelling, tuple[Any, ...]):
    """A batch as a tuple, with its ``state``."""


class ListBatch(Travelling, list[Any]):
    """A tuple that went through a torch DataLoader, which makes lists of tuples, and would drop the state of one."""


def with_state(batch: Any, state: State) -> Any:
    """The batch carrying ``state``: plain dicts and tuples become `Batch` and `TupleBatch`.

    Anything else that a ``collate`` or ``batch_transform`` returns is handed on as it is, without state.
    """
    if type(batch) is dict:
        batch = Batch(batch)
    elif type(batch) is tuple:
        batch = TupleBatch(batch)
    if isinstance(batch, Travelling):
        batch.state = state
    return batch


def as_list(batch: Any) -> Any:
    """A `TupleBatch` as the `ListBatch` that survives torch's ``default_convert``; others as they are."""
    if not isinstance(batch, TupleBatch):
        return batch
    made = ListBatch(batch)
    made.state = batch.state
    return made


def state_of(batch: Any) -> dict[str, int | str]:
    """The state a batch carries; raises `BadArgument` where it carries none."""
    state = getattr(batch, "state", None)
    if not isinstance(batch, Travelling) or state is None:
        reason = "carries no state"
        hint = "pass a batch as the loader gave it, or let collate and batch_transform return a dict or a tuple"
        raise BadArgument("batch", type(batch).__name__, reason, hint)
    return dict(state)


def _each(value: Any, of: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """``value`` with ``of`` done to every tensor in it, through plain dicts, lists and tuples."""
    if isinstance(value, torch.Tensor):
        return of(value)
    if isinstance(value, dict):
        return {name: _each(each, of) for name, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_each(each, of) for each in value))
    if isinstance(value, list | tuple):
        made = [_each(each, of) for each in value]
        return tuple(made) if isinstance(value, tuple) else made
    return value


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    pinned = tensor.pin_memory()
    tv_tensors = sys.modules.get("torchvision.tv_tensors")  # not loaded: no tensor is one, and it costs 100 MB
    wraps = tv_tensors is not None and isinstance(tensor, tv_tensors.TVTensor)
    return tv_tensors.wrap(pinned, like=tensor) if tv_tensors is not None and wraps else pinned
