"""Clips of a batch: which field they are of, decoded piece by piece, and put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray

from datahub.core.errors import BadArgument
from datahub.loader.annotations import Damage, Values
from datahub.loader.mapping import stacked
from datahub.store.record import FieldSpec
from datahub.tensor.clips import Clip, decoder_of
from datahub.tensor.draws import Draws


def bound(clip: Any, fields: Mapping[str, FieldSpec], shown: tuple[str, ...] | None) -> Clip | None:
    """``clip`` with the name of its field, once it is sure that it can be decoded.

    Raises `BadArgument`, `MissingExtra`, `MissingLibrary`.
    """
    if clip is None:
        return None
    if not isinstance(clip, Clip):
        raise BadArgument("clip", type(clip).__name__, "is no clip", "pass datahub.transforms.Clip(frames=16)")
    videos = [name for name, spec in fields.items() if spec.type == "video"]
    if not videos or (clip.field is not None and clip.field not in videos):
        has = f"its videos: {', '.join(videos)}" if videos else "it has none"
        raise BadArgument("clip", clip.field or "Clip", "names no field of type video of this dataset", has)
    if clip.field is None and len(videos) > 1:
        raise BadArgument("clip", "Clip", f"does not say of which: {', '.join(videos)}", f'add field="{videos[0]}"')
    found = replace(clip, field=clip.field or videos[0])
    if shown is not None and found.field not in shown:
        raise BadArgument("fields", shown, "does not show the clip", f'add "{found.field}", or leave clip out')
    decoder_of()
    return found


def decode_clips(clip: Clip, values: Sequence[Values], draws: Draws, damage: Damage) -> None:
    """The clip of each sample in place of its video, for those whose video could be read."""
    name = str(clip.field)
    for row, value in enumerate(values):
        if name not in value:
            continue
        try:
            value[name] = clip.decode(value[name], draws.take(slice(row, row + 1)))
        except ValueError as error:
            damage(row, name, f"its {name} {error}")


def clips_together(clip: Clip, found: Sequence[Any], rows: NDArray[Any], draws: Draws) -> Any:
    """One tensor ``(B, T, C, H, W)`` where all have one size, else a list; black where there is none."""

    def filler(row: int) -> torch.Tensor:
        size = int(rows["height"][row]), int(rows["width"][row])
        return clip.filler(size, draws.take(slice(row, row + 1)))

    return stacked([each if isinstance(each, torch.Tensor) else filler(row) for row, each in enumerate(found)])
