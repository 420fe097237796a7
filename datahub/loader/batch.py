"""What a loader hands out: dicts and tuples that know the state of the loader right after them.

A batch that has travelled (through a queue, a process, a copy) still carries its state, so that a training loop can
save where it is without asking the loader, which may be further on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datahub.core.errors import BadArgument

State = Mapping[str, int | str]


class Batch(dict[str, Any]):
    """A batch as a dict, with its ``state`` beside the items: iterating shows the fields alone."""

    state: State


class TupleBatch(tuple[Any, ...]):
    """A batch as a tuple, with its ``state``."""

    state: State


def with_state(batch: Any, state: State) -> Any:
    """The batch carrying ``state``: plain dicts and tuples become `Batch` and `TupleBatch`.

    Anything else that a ``collate`` or ``batch_transform`` returns is handed on as it is, without state.
    """
    if type(batch) is dict:
        batch = Batch(batch)
    elif type(batch) is tuple:
        batch = TupleBatch(batch)
    if isinstance(batch, Batch | TupleBatch):
        batch.state = state
    return batch


def state_of(batch: Any) -> dict[str, int | str]:
    """The state a batch carries; raises `BadArgument` where it carries none."""
    state = getattr(batch, "state", None)
    if not isinstance(batch, Batch | TupleBatch) or state is None:
        reason = "carries no state"
        hint = "pass a batch as the loader gave it, or let collate and batch_transform return a dict or a tuple"
        raise BadArgument("batch", type(batch).__name__, reason, hint)
    return dict(state)
