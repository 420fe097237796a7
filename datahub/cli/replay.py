"""``datahub replay``: the exact batch of any moment of a run, as a picture."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from datahub.cli.app import App
from datahub.cli.pictures import picture
from datahub.core.refs import reference


@click.command("replay")
@click.argument("ref", metavar="REF")
@click.option("--epoch", type=click.IntRange(0), default=0, help="Default: 0.")
@click.option("--step", type=click.IntRange(0), required=True, help="The batch's number in its epoch, from 0.")
@click.option("--split", default="train", metavar="NAME", help="Default: train.")
@click.option("--seed", type=int, default=0, help="The run's seed. Default: 0.")
@click.option("--batch-size", type=click.IntRange(1), help="Of a rank.")
@click.option("--global-batch-size", type=click.IntRange(1), help="Of the whole job.")
@click.option("--rank", type=click.IntRange(0), default=0, help="The rank whose part it is. Default: 0.")
@click.option("--world-size", type=click.IntRange(1), default=1, help="Ranks of the job. Default: 1, the whole batch.")
@click.option("--shuffle/--no-shuffle", default=True, help="As the run did. Default: shuffled.")
@click.option("--drop-last", is_flag=True, help="The run dropped the tail.")
@click.option("--window", default="all", metavar="W", help="The order's window, in blocks. Default: all.")
@click.option("--lanes", type=click.IntRange(1), default=1, help="The order's lanes. Default: 1.")
@click.option("--where", metavar="FILTER", help="The run's filter on index columns.")
@click.option("--augment", metavar="PRESET", help="Show the images as this preset makes them, with the run's draws.")
@click.option("-o", "output", callback=picture, default="batch.png", metavar="FILE", help="The picture. [batch.png]")
@click.pass_obj
def command(app: App, /, ref: str, output: str, **moment: Any) -> None:
    """Make the batch of --epoch and --step again, and no other, and draw it with classes and keys."""
    if (moment["batch_size"] is None) == (moment["global_batch_size"] is None):
        raise click.UsageError("give --batch-size (of a rank) or --global-batch-size (of the job), as the run had it.")
    wanted = reference(ref)
    from datahub.loader.replay import Moment, replay

    made = replay(wanted, app.settings, Moment(**moment), Path(output))
    app.emit({**asdict(made), "state": dict(made.state), **moment})
    valid = sum(each["valid"] for each in made.samples)
    rest = f" of {len(made.samples)}" if made.shown < len(made.samples) else ""
    app.echo(
        f"{made.ref} {moment['split']}, seed {moment['seed']}, epoch {moment['epoch']}, step {moment['step']}: "
        f"{len(made.samples)} samples, {valid} valid, from position {made.position} of the epoch"
    )
    app.echo(f"  {output} shows {made.shown}{rest}")
