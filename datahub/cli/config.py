"""``datahub config``: every setting and where its value came from."""

from __future__ import annotations

import os

import click

from datahub.cli.app import App
from datahub.core.settings import ENVIRONMENT, Origin, config_path
from datahub.core.urls import shown


@click.command("config")
@click.pass_obj
def command(app: App) -> None:
    """Every setting and where its value came from (flag > environment > config.toml > default)."""
    settings = app.settings
    rows = []
    for name, variable in ENVIRONMENT.items():
        value = getattr(settings, name)
        text = (
            os.pathsep.join(str(each) for each in value)
            if isinstance(value, tuple)
            else str("" if value is None else value)
        )
        rows.append((name.rstrip("_"), shown(text), str(settings.origins.get(name, Origin("default"))), variable))
    app.emit(
        {
            "config_file": str(config_path()),
            "settings": {n: {"value": v, "from": o, "variable": e} for n, v, o, e in rows},
        }
    )
    app.echo(f"config file: {config_path()}{'' if config_path().is_file() else ' (not there)'}")
    for name, text, origin, variable in rows:
        app.echo(f"{name:<12} {text or '-':<40} {origin:<28} {variable}")
