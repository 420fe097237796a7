"""``map=``: what a caller's function makes of each sample, and the results as a batch again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from datahub.core.errors import BadArgument
from datahub.loader.annotations import Annotations
from datahub.tensor.annotations import apart


def mapped(
    call: Callable[[dict[str, Any]], Any],
    samples: list[dict[str, Any]],
    annotations: Annotations | None,
    key: Callable[[int], str],
) -> list[Any]:
    """``call`` of every sample. Beside boxes or masks its image is a ``tv_tensors.Image``, for v2 to know it by.

    What it raises says which sample it was.
    """
    found = []
    for row, sample in enumerate(samples):
        if annotations is not None and annotations.placed and isinstance(sample.get("image"), torch.Tensor):
            from torchvision import tv_tensors

            sample["image"] = tv_tensors.Image(sample["image"])
        try:
            found.append(call(sample))
        except Exception as error:
            error.add_note(f"in map= for sample {key(row)}")
            raise
    return found


def together(samples: list[Any], annotations: Annotations | None, fields: tuple[str, ...] | None) -> dict[str, Any]:
    """A batch of samples that are dicts with the same names, all of ``fields`` among them.

    Tensors of one shape and numbers become one tensor, other things lists, and so does always what has a row an object.
    Raises `BadArgument` for other results: they need a ``collate``.
    """
    names = samples[0].keys() if isinstance(samples[0], dict) else None
    if names is None or any(not isinstance(each, dict) or each.keys() != names for each in samples):
        hint = "return a dict with the same names for every sample, or give collate= as well"
        raise BadArgument("map", type(samples[0]).__name__, "does not return what can be put together", hint)
    if lacking := [name for name in fields or () if name not in names and name != "n_global"]:
        raise BadArgument("map", lacking[0], "is in fields=, and what map returned lacks it", "return it, too")
    lists = annotations.names if annotations is not None else frozenset()
    columns = {name: [each[name] for each in samples] for name in names}
    return {name: values if name in lists else stacked(values) for name, values in columns.items()}


def stacked(values: list[Any]) -> Any:
    """One tensor where every value is a tensor of one shape and dtype (or a number), else the list.

    Boxes, masks and keypoints stay apart, even where a batch has as many of each by chance.
    """
    first = values[0]
    if all(isinstance(each, int | float) for each in values):
        return torch.tensor(values)
    alike = isinstance(first, torch.Tensor) and all(
        isinstance(each, torch.Tensor) and each.shape == first.shape and each.dtype == first.dtype for each in values
    )
    return torch.stack(values) if alike and not apart(first) else values
