"""``datahub manifest``: write and check manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from datahub.cli.app import App
from datahub.core.errors import BadArgument, DatahubError, ManifestInvalid, UsageError, from_oserror


@click.group("manifest")
def command() -> None:
    """Write and check manifests: the TOML files that describe datasets."""


@command.command("new")
@click.argument("name")
@click.option("-o", "output", metavar="FILE", help="Write it there; a file that exists is left alone.")
@click.pass_obj
def new(app: App, name: str, output: str | None) -> None:
    """Print a commented template of a manifest for NAME, or write it with -o."""
    from datahub.registry.template import render

    text = render(name)
    if output is None:
        app.emit({"manifest": text})
        app.echo(text.rstrip("\n"))
        return
    _write(Path(output), text)
    app.emit({"path": output})
    app.echo(f"{output} written; fill it in, then run `datahub manifest check {output}`")


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as handle:
            handle.write(text)
    except FileExistsError as error:
        raise BadArgument("-o", str(path), "exists already", "choose another name, or remove it first") from error
    except OSError as error:
        raise from_oserror(error, path, writing=True) from error


@command.command("check")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.pass_obj
def check(app: App, files: tuple[str, ...]) -> None:
    """Report every problem of every FILE (or of the *.toml in a folder), one a line. Exits 2 if there is any."""
    found = [_check(path) for each in files for path in _expand(Path(each))]
    app.emit(found)
    for each in found:
        for problem in each["problems"]:
            app.echo(f"{each['path']}: {problem['place']}: {problem['message']}")
        if not each["problems"]:
            app.echo(f"{each['path']}: ok ({each['summary']})")
    bad = [each for each in found if each["problems"]]
    if bad:
        count = sum(len(each["problems"]) for each in bad)
        raise UsageError(
            f"{_many(count, 'problem')} in {_many(len(bad), 'manifest')} of {len(found)}",
            "mend them and check again",
        )


def _expand(path: Path) -> list[Path]:
    found = sorted(path.glob("[!.]*.toml")) if path.is_dir() else [path]
    if not found:
        raise BadArgument("FILE", str(path), "holds no *.toml", "name a manifest or a folder of them")
    return found


def _check(path: Path) -> dict[str, Any]:
    from datahub.registry import load

    try:
        manifest = load(path)
    except DatahubError as error:
        problems = error.problems if isinstance(error, ManifestInvalid) else [("the file", error.message)]
        return {"path": str(path), "problems": [{"place": place, "message": text} for place, text in problems]}
    counts = (
        _many(len(manifest.files), "file"),
        _many(len(manifest.splits), "split"),
        _many(len(manifest.classes), "class", "classes"),
        _many(len(manifest.variants), "variant"),
    )
    return {
        "path": str(path),
        "ref": f"{manifest.name}@{manifest.version}",
        "digest": manifest.digest,
        "summary": f"{manifest.name}@{manifest.version}: {', '.join(counts)}",
        "problems": [],
    }


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count:,} {one if count == 1 else more or one + 's'}"
