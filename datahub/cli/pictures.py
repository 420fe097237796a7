"""Where a command draws: the value of its ``-o``."""

from __future__ import annotations

from pathlib import Path

import click

from datahub.core.errors import BadArgument


def picture(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A callback of click's. Raises `BadArgument` for the name of anything but a PNG, before any work is done."""
    if value is not None and Path(value).suffix.lower() != ".png":
        raise BadArgument("-o", value, "is no name for a PNG, which the picture is", "write FILE.png")
    return value
