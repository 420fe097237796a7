"""``datahub demo``: the whole line on one dataset."""

from __future__ import annotations

from pathlib import Path

import click

from datahub.cli.app import App
from datahub.cli.pictures import picture
from datahub.core.refs import Ref
from datahub.core.sizes import format_bytes


@click.command("demo")
@click.argument("ref", default="shapes", metavar="[REF]")
@click.option("--from", "from_", metavar="DIR|URL", help="Where published files are: NAME/FILENAME. [DATAHUB_FROM]")
@click.option(
    "-o",
    "output",
    callback=picture,
    default="datahub-demo.png",
    metavar="FILE",
    help="The contact sheet. [datahub-demo.png]",
)
@click.pass_obj
def command(app: App, ref: str, from_: str | None, output: str) -> None:
    """Get, pack, verify, stream, train for at most a minute, test, and draw a contact sheet. Default: shapes."""
    if from_:
        app.flags["from_"] = from_
    wanted = Ref.parse(ref)
    from datahub.train.demo import run

    with app.listener() as listener:
        report = run(wanted, app.settings, Path(output), listener=listener)
    app.emit(
        {
            "ref": report.ref,
            "accuracy": report.accuracy,
            "sheet": str(report.sheet),
            "stages": [
                {"stage": s.name, "seconds": s.seconds, "amount": s.amount, "unit": s.unit} for s in report.stages
            ],
        }
    )
    app.echo(f"{report.ref}")
    app.echo(f"  {'stage':<10}{'seconds':>9}{'amount':>16}{'rate':>18}")
    for stage in report.stages:
        show = format_bytes if stage.unit == "bytes" else lambda count: f"{count:,.0f} images"
        app.echo(f"  {stage.name:<10}{stage.seconds:>9.1f}{show(stage.amount):>16}{show(stage.rate) + '/s':>18}")
    app.echo(f"  test accuracy {report.accuracy:.1%} after {report.epochs:.1f} epochs; contact sheet: {report.sheet}")
