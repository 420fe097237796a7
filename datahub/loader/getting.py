"""`datahub.fetch` and `datahub.pack`: what the command line does, from Python, returning an open dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from datahub.core.events import Listener, ignore
from datahub.core.refs import Ref
from datahub.core.settings import Settings, resolve
from datahub.loader.opening import open_dataset

if TYPE_CHECKING:
    from datahub.pack.splitting import Shares
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
    splits: Mapping[str, float] | str | None = None,
    images: str | PathLike[str] | None = None,
    columns: Mapping[str, str] | None = None,
    types: Mapping[str, str] | None = None,
    masks: bool = False,
    damaged: str = "keep",
    replace: bool = False,
    jobs: int | None = None,
    listener: Listener = ignore,
    settings: Settings | None = None,
) -> Dataset:
    """Pack ``source`` (``imagefolder:DIR``, ``csv:FILE``, ``shapes:5000``, a REF, ...) as ``ref`` and open it.

    ``splits``: ``"train=90%,val=10%"``, or shares of 1 or numbers of samples by name. ``images`` and ``columns``: where
    annotation rows' images are, and which columns say ``image``, ``label`` and ``split``. ``types``: of
    further columns, ``{"boxes": "boxes:xywh"}``. ``masks``: COCO's
    segmentations become masks. ``damaged``: ``keep``,
    ``quarantine`` or ``refuse`` images that do not decode.
    """
    from datahub.pack.fetch import Options, check, download, pack_files
    from datahub.pack.sources import Reading, target_of

    settings = _settings(settings, None)
    reading = Reading(
        split=_shares(splits) if splits else None,
        images=Path(images) if images is not None else None,
        columns=dict(columns or {}),
        types=dict(types or {}),
        masks=masks,
    )
    wanted = target_of(source, Ref.parse(ref) if isinstance(ref, str) else ref, settings, reading, listener)
    options = Options(replace=replace, jobs=jobs, damaged=damaged)
    check(wanted, options)
    pack_files(wanted, download(wanted, settings, options, listener), settings, options, listener)
    return open_dataset(wanted.ref, settings)


def _shares(splits: Mapping[str, float] | str) -> Shares:
    from datahub.pack.splitting import Shares

    if isinstance(splits, str):
        return Shares.parse(splits)
    percent = all(isinstance(share, float) for share in splits.values())
    return Shares.parse(",".join(f"{k}={100 * v:.10g}%" if percent else f"{k}={v}" for k, v in splits.items()))


def _settings(settings: Settings | None, from_: str | None) -> Settings:
    settings = resolve() if settings is None else settings
    return replace(settings, from_=from_) if from_ else settings
