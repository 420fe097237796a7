"""Groups of consecutive slots that must stay on one rank: those whose samples are mixed with each other."""

from __future__ import annotations

import math

from datahub.core.errors import BadArgument
from datahub.order.formula import share_of


def cut_groups(batch: int, world_size: int, mix_group: int) -> int | None:
    """The first rank whose share of the slots begins inside a group; None where every group lies on one rank.

    Group k of a global batch is its slots ``k * mix_group .. (k + 1) * mix_group``; the last one may be shorter.
    ``world_size`` is at most ``batch``. Raises `BadArgument` for a group of less than 1.
    """
    if mix_group < 1:
        raise BadArgument("mix_group", mix_group, "must be a positive number of slots")
    borders = (share_of(batch, rank, world_size)[0] for rank in range(1, world_size))
    return next((rank for rank, border in enumerate(borders, 1) if border % mix_group), None)


def largest_group(batch: int, world_size: int) -> int:
    """The largest ``mix_group`` that no rank's border cuts; what divides it cuts none either, and nothing else."""
    borders = (share_of(batch, rank, world_size)[0] for rank in range(1, world_size))
    return math.gcd(*borders) or batch
