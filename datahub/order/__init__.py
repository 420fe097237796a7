"""The order of samples as a formula: pure numpy functions, no I/O. See `datahub.order.formula`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datahub.order.formula import EpochOrder as EpochOrder
    from datahub.order.formula import OrderOptions as OrderOptions
    from datahub.order.formula import cut_blocks as cut_blocks
    from datahub.order.formula import rank_of as rank_of
    from datahub.order.formula import share_of as share_of
    from datahub.order.permutation import Permutation as Permutation

_WHERE = {
    "Permutation": "permutation",
    "EpochOrder": "formula",
    "OrderOptions": "formula",
    "cut_blocks": "formula",
    "rank_of": "formula",
    "share_of": "formula",
}

__all__ = ["EpochOrder", "OrderOptions", "Permutation", "cut_blocks", "rank_of", "share_of"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
