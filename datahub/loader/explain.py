"""A loader in a few lines for people."""

from __future__ import annotations

from datahub.core.sizes import format_bytes
from datahub.loader.bottleneck import Bottleneck
from datahub.loader.counters import STAGES
from datahub.loader.listening import Stats
from datahub.loader.residency import Residence
from datahub.loader.schedule import Schedule
from datahub.store.dataset import Split


def explanation(
    split: Split,
    schedule: Schedule,
    residence: Residence,
    workers: tuple[int, str],
    prefetch: int,
    stats: Stats,
    device: str | None = None,
) -> str:
    """What is read, in which order, by whom (``workers``: how many, of what kind), and where the time went so far.

    ``device``: where batches are made and what decodes there, in words; None on the host.
    """
    plan = schedule.plan
    topology, options = plan.topology, plan.options
    order = "source order" if not plan.shuffle else f"shuffled by seed {plan.seed}, window {options.window}"
    shown = f", {schedule.size} an epoch" if schedule.size != len(split) else ""
    lines = [
        f"{split.dataset.ref} {split.name}: {len(split)} samples in {len(split.shards)} shards {_place(split)}{shown}",
        f"order: {order}, lanes {options.lanes}, blocks of about {plan.block}",
        f"batch: {plan.batch} over {topology.world_size} ranks, {len(schedule)} steps an epoch; "
        + ("the tail is dropped" if plan.drop_last else "every sample once"),
        f"this is rank {topology.rank}, {workers[0]} worker {workers[1]}, {prefetch} batches ahead",
        f"pixels: {residence}",
        *([f"device: {device}"] if device is not None else []),
    ]
    if stats["batches"]:
        lines.append(
            f"so far: {stats['samples']} samples, {format_bytes(stats['bytes'])} read; "
            f"waited {stats['wait_seconds']:.2f} s for batches"
            + (f"; {stats['quarantined']} quarantined" if stats["quarantined"] else "")
            + (f"; {stats['refused']} images were refused by the device's decoder" if stats["refused"] else "")
        )
        spent = ", ".join(f"{stage} {stats[f'{stage}_seconds']:.2f} s" for stage in STAGES)
        lines.append(f"{workers[1]} spent: {spent}")
        lines.append(str(Bottleneck(stats["bottleneck"], stats["because"])))
    return "\n".join(lines)


def _place(split: Split) -> str:
    return "on this disk" if split.dataset.elsewhere is None else str(split.dataset.elsewhere)
