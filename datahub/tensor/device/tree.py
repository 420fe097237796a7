"""Batches as trees of tensors: what of them is a tensor, and the same tree with other tensors in their place."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch


def tensors_in(tree: Any) -> Iterator[torch.Tensor]:
    """Every tensor, through dicts, lists and tuples."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, dict):
        for each in tree.values():
            yield from tensors_in(each)
    elif isinstance(tree, list | tuple):
        for each in tree:
            yield from tensors_in(each)


def mapped(tree: Any, of: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """``tree`` with ``of`` done to every tensor; torchvision's tensors keep their class. Other objects stay."""
    if isinstance(tree, torch.Tensor):
        return _like(of(tree), tree)
    if isinstance(tree, dict):
        return {name: mapped(each, of) for name, each in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(mapped(each, of) for each in tree))
    if isinstance(tree, list | tuple):
        made = [mapped(each, of) for each in tree]
        return tuple(made) if isinstance(tree, tuple) else made
    return tree


def _like(made: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    tv_tensors = sys.modules.get("torchvision.tv_tensors")  # not loaded: no tensor is one
    if tv_tensors is None or not isinstance(given, tv_tensors.TVTensor):
        return made
    return tv_tensors.wrap(made, like=given)  # type: ignore[no-any-return]
