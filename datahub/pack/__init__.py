"""Packing: raw layouts into deterministic WebDataset shards with an index.

The package is also the function ``datahub.pack(source, ref)`` of the facade; see `docs/decisions.md`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return sys.modules["datahub"].pack_source(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
