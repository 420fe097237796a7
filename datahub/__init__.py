"""datahub: public vision datasets by name, packed into WebDataset shards, streamed to training jobs.

Everything is loaded on first use (PEP 562): importing datahub costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datahub import errors as errors
    from datahub.loader.batch import state_of as state_of
    from datahub.loader.getting import fetch as fetch
    from datahub.loader.getting import pack as pack
    from datahub.loader.opening import open_dataset as open
    from datahub.loader.opening import vision as vision
    from datahub.loader.streaming import StreamingLoader as StreamingLoader
    from datahub.loader.topology import Topology as Topology
    from datahub.loader.torch_dataset import StreamingDataset as StreamingDataset
    from datahub.loader.writing import Writer as Writer
    from datahub.order.formula import OrderOptions as Order
    from datahub.store.selection import folds as folds
    from datahub.stream.mix import balanced as balanced
    from datahub.stream.mix import mix as mix
    from datahub.stream.mix import weighted as weighted
    from datahub.tensor import transforms as transforms

_WHERE = {
    "StreamingDataset": ("datahub.loader.torch_dataset", "StreamingDataset"),
    "StreamingLoader": ("datahub.loader.streaming", "StreamingLoader"),
    "Topology": ("datahub.loader.topology", "Topology"),
    "Order": ("datahub.order.formula", "OrderOptions"),
    "balanced": ("datahub.stream.mix", "balanced"),
    "fetch": ("datahub.loader.getting", "fetch"),
    "folds": ("datahub.store.selection", "folds"),
    "mix": ("datahub.stream.mix", "mix"),
    "open": ("datahub.loader.opening", "open_dataset"),
    "pack": ("datahub.pack", ""),
    "Writer": ("datahub.loader.writing", "Writer"),
    "weighted": ("datahub.stream.mix", "weighted"),
    "vision": ("datahub.loader.opening", "vision"),
    "transforms": ("datahub.tensor.transforms", ""),
    "state_of": ("datahub.loader.batch", "state_of"),
    "errors": ("datahub.errors", ""),
}

__all__ = [
    "Order",
    "StreamingDataset",
    "StreamingLoader",
    "Topology",
    "Writer",
    "balanced",
    "errors",
    "fetch",
    "folds",
    "mix",
    "open",
    "pack",
    "state_of",
    "transforms",
    "vision",
    "weighted",
]


def __getattr__(name: str) -> Any:
    try:
        module, attribute = _WHERE[name]
    except KeyError:
        raise AttributeError(f"module 'datahub' has no attribute {name!r}") from None
    found = import_module(module)
    value = getattr(found, attribute) if attribute else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def pack_source(*arguments: Any, **options: Any) -> Any:
    """`datahub.pack(source, ref)`: see `datahub.loader.getting.pack`."""
    return import_module("datahub.loader.getting").pack(*arguments, **options)
