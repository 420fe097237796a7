"""``datahub estimate``: on paper, what each node of a training job needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from datahub.cli.app import App
from datahub.cli.tables import table
from datahub.core.refs import Ref
from datahub.core.sizes import format_bytes, parse_bytes

if TYPE_CHECKING:
    from datahub.loader.estimate import Estimate


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else max(1, parse_bytes(value))
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def _window(context: click.Context, parameter: click.Parameter, value: str) -> int | str:
    return int(value) if value.isdecimal() else value


@click.command("estimate")
@click.argument("ref", metavar="REF")
@click.option("--nodes", type=click.IntRange(1), required=True, help="Machines of the job.")
@click.option("--gpus", type=click.IntRange(1), default=8, help="GPUs a node. Default: 8.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=1000.0, help="Images/s a GPU. Default: 1000.")
@click.option("--split", default="train", metavar="NAME", help="Default: train.")
@click.option("--batch", type=click.IntRange(1), help="Of one GPU; tells the steps of an epoch.")
@click.option("--lanes", type=click.IntRange(1), default=1, help="The order's lanes. Default: 1.")
@click.option("--window", callback=_window, default="all", metavar="W", help="The order's window, in blocks. [all]")
@click.option("--epochs", type=click.IntRange(1), default=90, help="Default: 90.")
@click.option("--augment", metavar="PRESET", help="Count this preset's work, too (the dataset must be packed).")
@click.option("--image-bytes", callback=_size, metavar="SIZE", help="Mean size of an image, instead of what is known.")
@click.pass_obj
def command(
    app: App, /, ref: str, split: str, augment: str | None, image_bytes: int | None, batch: int | None, **job: Any
) -> None:
    """Disk, network and processors a node needs to keep --rate, from the record or the manifest; nothing is fetched."""
    wanted = Ref.parse(ref)
    from datahub.loader.estimate import Job, estimate
    from datahub.loader.estimating import facts_of

    asked = Job(batch=batch, **job)
    found = estimate(facts_of(wanted, split, app.settings, augment=augment, image_bytes=image_bytes), asked)
    ways = [
        {**asdict(each), "first_per_second": found.rate(each.first), "later_per_second": found.rate(each.later)}
        for each in found.ways
    ]
    app.emit({**asdict(found), "ways": ways})
    for line in _lines(found):
        app.echo(line)


def _lines(found: Estimate) -> Iterator[str]:
    facts, job = found.facts, found.job
    yield (
        f"{facts.ref} {facts.split}: {facts.samples:,} images, {format_bytes(facts.packed)} in shards, "
        f"{format_bytes(facts.image)} an image (from {facts.known_from})"
    )
    steps = f", {found.steps:,} steps" if found.steps is not None else ""
    yield (
        f"{job.nodes} nodes x {job.gpus} GPUs x {job.rate:,.0f} images/s = "
        f"{found.images_per_second * job.nodes:,.0f} images/s: an epoch in {_duration(found.epoch_seconds)}{steps}, "
        f"{job.epochs} epochs"
    )
    yield f"a node: {found.images_per_second:,.0f} images/s, {format_bytes(found.read_per_second)}/s of encoded images"
    yield (f"  processors  {found.cores:.1f} cores, at {facts.seconds * 1000:.2g} ms an image ({facts.seconds_from})")
    rows = [
        (each.name, format_bytes(each.disk), _network(found, each.first, each.once), _network(found, each.later))
        for each in found.ways
    ]
    for line in table(("WAY", "DISK", "NETWORK, FIRST EPOCH", "LATER EPOCHS, MEAN"), rows):
        yield f"  {line}"
    yield from (f"  note: {each}" for each in found.advice)


def _network(found: Estimate, amount: float, once: bool = False) -> str:
    if once or not round(amount):
        return f"{format_bytes(amount)} before it" if once else "none"
    return f"{format_bytes(amount)}, {found.rate(amount) * 8 / 1e9:,.2f} Gbit/s"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
