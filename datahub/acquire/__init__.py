"""Getting published files: plan, download, verify, receipts. Knows nothing of image formats.

`plan` says what is here and what is missing; `run` makes every file `Verified`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datahub.acquire.files import Verified as Verified
    from datahub.acquire.planning import Item as Item
    from datahub.acquire.planning import Plan as Plan
    from datahub.acquire.planning import plan as plan
    from datahub.acquire.running import run as run

_WHERE = {"Verified": "files", "Item": "planning", "Plan": "planning", "plan": "planning", "run": "running"}

__all__ = ["Item", "Plan", "Verified", "plan", "run"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
