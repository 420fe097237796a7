"""A loader's position: small, versioned, plain ints and strings, the same on every rank.

It describes what the caller has received. Restoring costs O(1): no sample is read or skipped over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from datahub.core.errors import StateMismatch
from datahub.order import formula

VERSION = 1
NAMES = {"batch": "batch_size", "fingerprint": "dataset", "order_version": "order version"}
"""Parameter -> what a person calls it, where that differs."""


@dataclass(frozen=True, slots=True)
class OrderParameters:
    """Everything that decides which sample stands at which position."""

    fingerprint: str
    block: int
    seed: int
    batch: int
    lanes: int
    window: str
    shuffle: int
    drop_last: int
    order_version: int = formula.VERSION

    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class State:
    """Epoch, and how many samples of it the whole job has consumed."""

    epoch: int
    position: int

    def to_dict(self, parameters: OrderParameters) -> dict[str, int | str]:
        return {
            "version": VERSION,
            "order": parameters.digest(),
            "epoch": self.epoch,
            "position": self.position,
            **asdict(parameters),
        }


def restore(found: Mapping[str, Any], parameters: OrderParameters, size: int, allow: Sequence[str] = ()) -> State:
    """The `State` in ``found``, if it belongs to this order; else `StateMismatch` naming everything that changed."""
    _check_form(found)
    changed = []
    for field in fields(parameters):
        before, now = found[field.name], getattr(parameters, field.name)
        name = NAMES.get(field.name, field.name)
        if before != now and name not in allow:
            changed.append(f"{name} was {before}, is {now}")
    if changed:
        hint = 'pass allow=("batch_size",) to go on with another batch size'
        only_batch = len(changed) == 1 and changed[0].startswith("batch_size")
        raise StateMismatch(changed, hint) if only_batch else StateMismatch(changed)
    state = State(found["epoch"], found["position"])
    if state.epoch < 0 or not 0 <= state.position <= size:
        raise StateMismatch([f"position {state.position} of epoch {state.epoch} is outside the {size} samples"])
    if state.position != size and state.position % parameters.lanes:
        raise StateMismatch([f"position {state.position} is not a multiple of the {parameters.lanes} lanes"])
    return state


def _check_form(found: Mapping[str, Any]) -> None:
    if not isinstance(found, Mapping) or "version" not in found:
        raise StateMismatch(["it is not a datahub loader state"])
    version = found["version"]
    if version != VERSION:
        raise StateMismatch([f"state version {version}, this datahub reads {VERSION}"], "restore it with the version that wrote it")
    kinds = {field.name: (str if field.type == "str" else int) for field in fields(OrderParameters)}
    kinds |= {"order": str, "epoch": int, "position": int}
    wrong = [name for name, kind in kinds.items() if not isinstance(found.get(name), kind)]
    if wrong:
        raise StateMismatch([f"{name} is missing or of the wrong type" for name in wrong])
