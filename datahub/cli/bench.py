"""``datahub bench``: a loader measured on this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from datahub.cli.app import App
from datahub.cli.pictures import picture
from datahub.core.refs import reference
from datahub.core.sizes import format_bytes


@click.command("bench")
@click.argument("ref", metavar="REF")
@click.option("--split", default="train", metavar="NAME", help="Default: train.")
@click.option("--batch-size", type=click.IntRange(1), default=64, help="Default: 64.")
@click.option("--transform", metavar="PRESET", help="For example normalize. Default: decoded images as they are.")
@click.option("--num-workers", type=click.IntRange(0), help="Threads. Default: one a processor.")
@click.option("--prefetch", type=click.IntRange(1), default=2, help="Batches made ahead. Default: 2.")
@click.option("--shuffle/--no-shuffle", default=True, help="Default: shuffled.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=10.0, help="How long. Default: 10.")
@click.option("--steps", type=click.IntRange(1), help="Batches, in place of --seconds.")
@click.option("-o", "output", callback=picture, metavar="FILE", help="Draw throughput over time as a PNG.")
@click.pass_obj
def command(app: App, /, ref: str, output: str | None, **run: Any) -> None:
    """Run a loader over REF, do nothing with its batches, and tell its pace, its stages and its bottleneck.

    REF may be WebDataset shards of any origin: 'wds:/data/train-{000000..000146}.tar'.
    """
    wanted = reference(ref)
    from datahub.loader.bench import Run, bench, chart

    with app.listener() as listener:
        report = bench(wanted, app.settings, Run(**run), listener)
    if output is not None:
        from datahub.tensor.sheet import save_png

        save_png(chart(report), Path(output))
    app.emit({**asdict(report), "chart": output})
    for line in _lines(report):
        app.echo(line)
    if output is not None:
        app.echo(f"  chart: {output}")


def _lines(report: Any) -> list[str]:
    stats = report.stats
    stages = ("read", "decode", "transform", "assemble")
    rows = [(name, stats[f"{name}_seconds"], stats[f"{name}_busy_seconds"]) for name in stages]
    whole = sum(seconds for _, seconds, _ in rows) or 1.0
    return [
        f"{report.ref} {report.split}: {report.samples_per_second:,.0f} samples/s, "
        f"{format_bytes(report.bytes_per_second)}/s encoded, over {report.steps:,} batches of {report.shape}",
        f"  first batch after {report.first_batch:.2f} s; {stats['workers']} threads, prefetch {stats['prefetch']}",
        f"  {'stage':<10}{'seconds':>9}{'share':>8}{'on a processor':>16}",
        *(f"  {name:<10}{spent:>9.2f}{spent / whole:>8.0%}{_share(busy, spent):>16}" for name, spent, busy in rows),
        f"  the loop waited {stats['wait_seconds']:.2f} s; {stats['ready_mean']:.1f} batches stood ready when it asked",
        f"  bottleneck: {stats['bottleneck']}: {stats['because']}",
    ]


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "-"
