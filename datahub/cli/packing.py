"""Options of the commands that pack."""

from __future__ import annotations

import click

stats = click.option(
    "--stats",
    type=click.Choice(["sample", "full", "none"]),
    default="sample",
    help="Mean and std from 10,000 images, all or none.",
)
damaged = click.option(
    "--damaged",
    type=click.Choice(["keep", "quarantine", "refuse"]),
    default="keep",
    help="Images that do not decode: pack them as they are, leave them out, or stop. [keep]",
)
