"""``datahub path``: where a packed dataset is."""

from __future__ import annotations

import click

from datahub.cli.app import App
from datahub.core.refs import Ref


@click.command("path")
@click.argument("ref", metavar="REF")
@click.pass_obj
def command(app: App, ref: str) -> None:
    """Print the folder of a packed dataset: `webdataset.WebDataset("$(datahub path mnist)/mnist-train-{...}.tar")`."""
    from datahub.store.find import find_place

    place = find_place(app.settings, Ref.parse(ref))
    app.echo(str(place.path))
    app.emit({"ref": str(place.ref), "path": str(place.path)})
