"""``datahub serve``: the shared cache server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from datahub.cli.app import App
from datahub.core.errors import MissingExtra
from datahub.core.sizes import format_bytes
from datahub.core.urls import shown


@click.command("serve")
@click.option("--host", metavar="ADDRESS", help="Where to listen. [127.0.0.1]")
@click.option("--port", type=int, help="0 takes a free one. [8080]")
@click.option("--store", metavar="DIR", help="The store whose datasets are served. [DATAHUB_HOME]")
@click.option(
    "--origin", multiple=True, metavar="URL", help="Where else datasets are: a store, an fsspec URL, a cache server."
)
@click.option("--cache-dir", metavar="DIR", help="Where blocks from origins are kept. [STORE/cache]")
@click.option("--quota", metavar="SIZE", help="Bytes of them at most, like 500GB.")
@click.option("--soft-quota", metavar="SIZE", help="Evict in the background down to so many.")
@click.option("--policy", help="Which blocks go first: epoch (what jobs read next stays) or lru. [epoch]")
@click.option("--scrub-rate", metavar="SIZE", help="Bytes a second that are verified again; 0 for none. [10MB]")
@click.option(
    "--token-file", metavar="FILE", help="Tokens that read, one a line; without, only this machine is served."
)
@click.option("--admin-token-file", metavar="FILE", help="Tokens that also administer.")
@click.option("--workers", type=int, help="Processes. [1]")
@click.option("--cert", metavar="FILE", help="TLS certificate chain, PEM.")
@click.option("--key", metavar="FILE", help="Its key, PEM.")
@click.option("--insecure", is_flag=True, help="Serve other machines without a token.")
@click.option("--access-log", metavar="FILE", help="JSON lines to a file, - (standard error) or off. [-]")
@click.option("--rate", type=float, help="Requests a second that one client may make. [any]")
@click.option("--connections", type=int, help="At most, in each process. [4096]")
@click.option("--drain", type=float, metavar="SECONDS", help="To end requests in after SIGTERM. [30]")
@click.option("--origin-timeout", type=float, metavar="SECONDS", help="For one block. [60]")
@click.option("--allow-fetch", is_flag=True, help="Fetch and pack datasets of the registry when they are asked for.")
@click.option("--config", "file", metavar="FILE", help="The same as TOML: port = 8080, origin = [...]")
@click.pass_obj
def command(app: App, /, file: str | None, store: str | None, **flags: Any) -> None:
    """Serve the store's datasets, and through a cache those of origins, to training jobs.

    Each option can also be DATAHUB_SERVE_OPTION in the environment.
    """
    try:
        from datahub.serve import running
        from datahub.serve.config import ServeConfig, cache_folder, resolve
    except ModuleNotFoundError as error:
        raise MissingExtra("serve", "datahub serve") from error
    _needs_extra()
    if store:
        app.flags["home"] = store
    path = file or os.environ.get("DATAHUB_SERVE_CONFIG")
    config = resolve(flags, os.environ, Path(path) if path else None)
    settings = app.settings
    origins = [shown(each) for each in config.origin]

    def started(url: str) -> None:
        app.echo(_line(url, config))
        told = {"url": url, "store": str(settings.home), "origins": origins, "workers": config.workers}
        app.emit(told)

    def _line(url: str, config: ServeConfig) -> str:
        parts = [f"serving {settings.home} at {url}"]
        if config.workers > 1:
            parts.append(f"{config.workers} processes")
        if config.origin:
            quota = f", at most {format_bytes(config.quota)}" if config.quota else ""
            parts.append(f"origins {' '.join(origins)} through {cache_folder(config, settings)}{quota}")
        parts.append("with tokens" if config.token_file else "without tokens")
        return ", ".join(parts)

    code = running.run(config, settings, started)
    if code:
        raise click.exceptions.Exit(code)


def _needs_extra() -> None:
    from importlib.util import find_spec

    if find_spec("aiohttp") is None or find_spec("prometheus_client") is None:
        raise MissingExtra("serve", "datahub serve")
