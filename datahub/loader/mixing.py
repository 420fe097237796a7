"""Mixing as a stage of a loader: planned where a batch's columns are put together, done where its images are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from datahub.core.errors import BadArgument
from datahub.loader.schedule import Step
from datahub.order.groups import cut_groups, largest_group
from datahub.store.record import FieldSpec
from datahub.store.typed import PLACES
from datahub.tensor.draws import Draws
from datahub.tensor.mixing import Mixing, Mixture, partners

DRAWN = "mixing"
"""Where a batch carries what was drawn, until it is mixed; beside it on the way to a device."""


def mixing_of(
    batch_transform: Any, shown: tuple[str, ...] | None, own: Mapping[str, FieldSpec], collate: Any
) -> Mixing | None:
    """The mixing that ``batch_transform`` is, if any. ``shown``: the fields asked for; ``own``: those of the dataset.

    Raises `BadArgument` where images or labels are not to be had, or something else would not be mixed with them.
    """
    if not isinstance(batch_transform, Mixing):
        return None
    name = type(batch_transform).__name__
    if collate is not None:
        raise BadArgument("collate", collate, f"{name} mixes what the loader collates", "mix in your own collate")
    names = ("image", *own) if shown is None else shown
    missing = next((each for each in ("image", "label") if each not in names), None)
    if missing is not None:
        reason = f"{name} mixes images with their labels, and the batches show no {missing}"
        raise BadArgument("batch_transform", name, reason)
    placed = next((each for each in names if each in own and own[each].type in PLACES), None)
    if placed is not None:
        hint = 'leave them out: fields=("image", "label")'
        raise BadArgument("batch_transform", name, f"mixes images, and {placed} would not be mixed", hint)
    return batch_transform


def check_groups(mixing: Mixing | None, batch: int, world_size: int) -> None:
    """Raise `BadArgument` where a rank's share of the global batch begins inside a group."""
    rank = None if mixing is None else cut_groups(batch, world_size, mixing.mix_group)
    if mixing is None or rank is None:
        return
    reason = f"rank {rank} of {world_size} would begin inside a group of the global batch of {batch}"
    largest = largest_group(batch, world_size)
    wider = f"a global batch that is a multiple of {mixing.mix_group * world_size}"
    hint = f"use {wider}" if largest == 1 else f"use a mix_group that divides {largest}, or {wider}"
    raise BadArgument("mix_group", mixing.mix_group, reason, hint)


class MixStage:
    """Safe to use from many threads."""

    def __init__(self, mixing: Mixing, classes: int, seed: int) -> None:
        if mixing.num_classes is None and not classes:
            raise BadArgument("num_classes", None, "the dataset names no classes", "say how many there are")
        self._mixing, self._seed = mixing.bound(classes), seed

    def planned(self, batch: dict[str, Any], step: Step) -> dict[str, Any]:
        """The batch with what its rows draw, as tensors on the host. Raises `BadArgument` for a label of no class."""
        labels, classes = batch.get("label"), self._mixing.num_classes or 0
        if (
            not isinstance(labels, torch.Tensor)
            or labels.dtype != torch.int64
            or labels.ndim != 1
            or "image" not in batch
        ):
            reason = "needs an image and the number of a class of every sample"
            raise BadArgument("batch_transform", type(self._mixing).__name__, reason, "let map= return both")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            wrong = labels[(labels < 0) | (labels >= classes)][0].item()
            raise BadArgument(
                "num_classes", classes, f"a sample's label is {wrong}", "leave out samples without a class"
            )
        partner = partners(step.places - step.position, step.valid, self._mixing.mix_group)
        draws = Draws(self._seed, step.epoch, step.places)
        return {**batch, DRAWN: tuple(self._mixing.plan(draws, partner))}

    def mixed(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch of planned rows, mixed, wherever its tensors are."""
        images = batch["image"]
        if not isinstance(images, torch.Tensor):
            reason = "its images differ in size, and only equal ones can be mixed"
            raise BadArgument("batch_transform", type(self._mixing).__name__, reason, "add a crop or Resize((H, W))")
        image, label = self._mixing(images, batch["label"], Mixture(*batch[DRAWN]))
        return {name: value for name, value in batch.items() if name != DRAWN} | {"image": image, "label": label}
