"""``datahub doctor``: a self-check of this machine."""

from __future__ import annotations

import os
from dataclasses import asdict

import click

from datahub.cli.app import App


@click.command("doctor")
@click.pass_context
def command(context: click.Context) -> None:
    """Check this machine: name clash, home, disk, locks, clock, tools, processors, GPU. Exits 6 on a failure."""
    from datahub.loader.doctor import examine

    app = context.find_object(App)
    assert app is not None
    findings = list(examine(app.settings, os.environ))
    app.emit([asdict(each) for each in findings])
    for each in findings:
        app.echo(f"{each.level:<8} {each.check:<11} {each.found}{f'; {each.next}' if each.next else ''}")
    if any(each.level == "failure" for each in findings):
        context.exit(6)
