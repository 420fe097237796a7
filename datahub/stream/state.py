"""A loader's position: small, versioned, plain ints and strings, the same on every rank.

It describes what the caller has received. Restoring costs O(1): no sample is read or skipped over. Beside the digest
of everything that decides the order stand the single parameters, so that a refusal can name what changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from datahub.core.errors import BadArgument, StateMismatch
from datahub.order import formula

VERSION = 1
NAMES = {"batch": "batch_size", "fingerprint": "the split's fingerprint", "order_version": "the order's version"}
"""Parameter -> what a person calls it, where that differs."""
MAY_CHANGE = ("batch_size",)
SELECTING = ("where", "part", "max_samples", "mix")
"""Parameters that states from before they existed lack: absent and empty are one."""


@dataclass(frozen=True, slots=True)
class OrderParameters:
    """Everything that decides which sample stands at which position of which epoch."""

    dataset: str
    """REF:split, for the reader of a refusal; the fingerprint is what decides."""
    fingerprint: str
    block: int
    seed: int
    batch: int
    """Of the whole job, not of a rank."""
    lanes: int
    window: str
    shuffle: int
    drop_last: int
    order_version: int = formula.VERSION
    where: str = ""
    """The filter in its one written form; empty where there is none, as in the next three."""
    part: str = ""
    max_samples: str = ""
    mix: str = ""
    """Members, weights and end of a mixture, or of weighted sampling."""

    def digest(self) -> str:
        facts = {name: value for name, value in asdict(self).items() if name != "dataset"}
        facts = {name: value for name, value in facts.items() if value or name not in SELECTING}
        return "sha256:" + hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


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


def restore(found: Mapping[str, Any], parameters: OrderParameters, size: int, allow: Collection[str] = ()) -> State:
    """The `State` in ``found``, if it belongs to this order of ``size`` samples.

    Else `StateMismatch` naming everything that changed. ``allow=("batch_size",)`` goes on with another batch size:
    positions count samples.
    """
    found = _check_form(found)
    unknown = set(allow) - set(MAY_CHANGE)
    if unknown:
        raise BadArgument("allow", sorted(unknown)[0], "cannot change within a run", 'only "batch_size" can')
    changed = _changes(found, parameters)
    refused = [text for name, text in changed.items() if name not in allow]
    if refused:
        only_batch = not set(changed) - set(MAY_CHANGE)
        hint = 'pass allow=("batch_size",) to go on with another batch size'
        raise StateMismatch(refused, hint) if only_batch else StateMismatch(refused)
    return _checked(State(found["epoch"], found["position"]), parameters, size)


def _changes(found: Mapping[str, Any], parameters: OrderParameters) -> dict[str, str]:
    """Name -> "name was this, is that", of every parameter that differs."""
    changed = {}
    for each in fields(parameters):
        before, now = found[each.name], getattr(parameters, each.name)
        name = NAMES.get(each.name, each.name)
        if each.name != "dataset" and before != now:
            changed[name] = f"{name} was {before or _nothing(before)}, is {now or _nothing(now)}"
    if NAMES["fingerprint"] in changed and found["dataset"] != parameters.dataset:
        changed[NAMES["fingerprint"]] = f"the dataset was {found['dataset']}, is {parameters.dataset}"
    return changed


def _nothing(value: int | str) -> int | str:
    return value if isinstance(value, int) else "none"


def _checked(state: State, parameters: OrderParameters, size: int) -> State:
    if state.epoch < 0 or not 0 <= state.position <= size:
        raise StateMismatch([f"position {state.position} of epoch {state.epoch} is outside the {size} samples"])
    if state.position != size and state.position % parameters.lanes:
        raise StateMismatch([f"position {state.position} is not a multiple of the {parameters.lanes} lanes"])
    return state


def _check_form(found: Mapping[str, Any]) -> dict[str, Any]:
    """The state with every parameter in it; raises `StateMismatch` where it is none that can be read."""
    if not isinstance(found, Mapping) or "version" not in found:
        raise StateMismatch(["it is not a datahub loader state"], "pass what state_dict() gave")
    version = found["version"]
    if version != VERSION:
        reason = f"it has version {version}, this datahub reads {VERSION}"
        raise StateMismatch([reason], "restore it with the version that wrote it")
    found = {**dict.fromkeys(SELECTING, ""), **found}
    kinds = {each.name: (str if each.type == "str" else int) for each in fields(OrderParameters)}
    kinds |= {"order": str, "epoch": int, "position": int}
    wrong = [name for name, kind in kinds.items() if not isinstance(found.get(name), kind)]
    if wrong:
        raise StateMismatch([f"{name} is missing or of the wrong type" for name in wrong], "save it again")
    parameters = OrderParameters(**{each.name: found[each.name] for each in fields(OrderParameters)})
    if parameters.digest() != found["order"]:
        raise StateMismatch(["its order digest does not match its own parameters"], "it was edited; save it again")
    return found
