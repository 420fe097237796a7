"""`datahub.fetch` and `datahub.pack`: what the command line does, from Python, returning an open dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from datahub.core.events import Listener, ignore
from datahub.core.refs import Ref
from datahub.core.settings import Settings, resolve
from datahub.loader.opening import open_dataset

if TYPE_CHECKING:
    from datahub.store.dataset import Dataset


def fetch(
    ref: str | Ref,
    *,
    from_: str | None = None,
    accept_licence: bool = False,
    jobs: int | None = None,
    listener: Listener = ignore,
    settings: Settings | None = None,
) -> Dataset:
    """Open ``ref``, having downloaded, verified and packed it if it was not in the store.

    ``from_`` is a folder or URL that holds published files as NAME/FILENAME. Raises the errors of `datahub.errors`.
    """
    from datahub.pack.fetch import Options
    from datahub.pack.fetch import fetch as run

    settings = _settings(settings, from_)
    wanted = Ref.parse(ref) if isinstance(ref, str) else ref
    done = run(wanted, settings, Options(accept_licence=accept_licence, jobs=jobs), listener)
    return open_dataset(done.ref, settings)


def pack(
    source: str,
    ref: str | Ref,
    *,
    splits: Mapping[str, int] | None = None,
    replace: bool = False,
    jobs: int | None = None,
    listener: Listener = ignore,
    settings: Settings | None = None,
) -> Dataset:
    """Pack ``source`` (``shapes:5000``, or a dataset's REF) as ``ref`` and open it."""
    from datahub.pack.fetch import Options, download, pack_files
    from datahub.pack.sources import target_of

    settings = _settings(settings, None)
    wanted = target_of(
        source, Ref.parse(ref) if isinstance(ref, str) else ref, settings, dict(splits) if splits else None
    )
    options = Options(replace=replace, jobs=jobs)
    pack_files(wanted, download(wanted, settings, options, listener), settings, options, listener)
    return open_dataset(wanted.ref, settings)


def _settings(settings: Settings | None, from_: str | None) -> Settings:
    settings = resolve() if settings is None else settings
    return replace(settings, from_=from_) if from_ else settings
