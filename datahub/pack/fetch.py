"""From a dataset's name to a committed variant: find the manifest, acquire its files, open their layout, pack.

Nothing here imports numpy until something must be packed: a second fetch of a packed dataset only stats its files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from datahub.core.errors import ConsentNeeded, NotInStore, RecordInvalid, StoreDamaged, UnknownVariant
from datahub.core.events import Listener, Note, ignore
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.registry import catalog
from datahub.registry.schema import Manifest
from datahub.store.find import Located, find

if TYPE_CHECKING:
    from datahub.acquire import Plan, Verified
    from datahub.pack.plan import PackPlan
    from datahub.pack.source import Source


@dataclass(frozen=True, slots=True)
class Target:
    """A manifest and the variant of it that is wanted."""

    manifest: Manifest
    variant: str

    @property
    def ref(self) -> Ref:
        return Ref(self.manifest.name, self.manifest.version, self.variant)


@dataclass(frozen=True, slots=True)
class Options:
    """How to fetch; the defaults are what ``datahub fetch REF`` does."""

    replace: bool = False
    accept_licence: bool = False
    delete_downloads: bool = False
    jobs: int | None = None
    stats: str = "sample"
    """Mean and std from at most 10,000 images (``sample``), all (``full``) or none."""


@dataclass(frozen=True, slots=True)
class Fetched:
    ref: Ref
    path: Path
    fresh: bool
    """False: it was there already."""


def target(ref: Ref, settings: Settings) -> Target:
    """The manifest that ``ref`` names; raises `UnknownDataset`, `UnknownVersion` or `UnknownVariant`."""
    manifest = catalog(settings).find(ref)
    variant = ref.variant or manifest.default_variant
    if variant not in manifest.variants:
        raise UnknownVariant(manifest.name, variant, sorted(manifest.variants))
    return Target(manifest, variant)


def present(wanted: Target, settings: Settings, listener: Listener = ignore) -> Located | None:
    """The packed variant if it stands whole: every file there with its size, none of them read."""
    from datahub.store.verify import verify

    try:
        located = find(settings, wanted.ref)
        verify(located, quick=True)
    except NotInStore:
        return None
    except (RecordInvalid, StoreDamaged) as damage:
        listener(Note("fetch", f"{damage.message}; it is packed again", warning=True))
        return None
    if located.record.manifest.digest != wanted.manifest.digest:
        text = f"{wanted.ref} was packed from an older manifest; --replace packs it again"
        listener(Note("fetch", text))
    return located


def acquire_plan(wanted: Target, settings: Settings, *, accept_licence: bool = False) -> Plan:
    """What must be downloaded; raises `ConsentNeeded`, `ManualFiles`, `DiskFull`."""
    from datahub.acquire import plan

    manifest = wanted.manifest
    if manifest.access.consent and not accept_licence:
        terms = manifest.licence.url or manifest.homepage
        raise ConsentNeeded(manifest.name, f"its terms must be accepted first ({terms})", "--accept-licence")
    return plan(manifest, settings)


def source_of(wanted: Target, files: tuple[Verified, ...]) -> Source:
    """The samples inside verified files (or of a generator, which has none)."""
    from datahub.pack.layouts import open_source

    manifest = wanted.manifest
    return open_source(
        manifest.layout_of(wanted.variant),
        {each.file.role: each for each in files},
        splits=manifest.splits_of(wanted.variant),
        classes=manifest.classes_of(wanted.variant),
    )


def pack_plan(
    wanted: Target, files: tuple[Verified, ...], settings: Settings, options: Options
) -> tuple[Source, PackPlan]:
    from datahub.pack.plan import plan

    source = source_of(wanted, files)
    return source, plan(
        source,
        manifest=wanted.manifest,
        variant=wanted.variant,
        settings=settings,
        jobs=options.jobs,
        stats=options.stats,
        inputs=[each.sha256 for each in files],
    )


def pack_files(
    wanted: Target, files: tuple[Verified, ...], settings: Settings, options: Options, listener: Listener = ignore
) -> Path:
    """Pack verified files; returns the committed folder."""
    from datahub.pack.run import run

    source, plan = pack_plan(wanted, files, settings, options)
    return run(plan, source, settings=settings, jobs=options.jobs, listener=listener, replace=options.replace)


def download(wanted: Target, settings: Settings, options: Options, listener: Listener = ignore) -> tuple[Verified, ...]:
    """Download and verify what is missing; nothing is read again that a receipt vouches for."""
    from datahub.acquire import run

    plan = acquire_plan(wanted, settings, accept_licence=options.accept_licence)
    return run(plan, settings, listener=listener, jobs=options.jobs)


def fetch(ref: Ref, settings: Settings, options: Options | None = None, listener: Listener = ignore) -> Fetched:
    """Download, verify and pack ``ref`` unless it is packed already."""
    options = options or Options()
    wanted = target(ref, settings)
    if not options.replace and (located := present(wanted, settings, listener)):
        return Fetched(wanted.ref, located.path, fresh=False)
    damaged = _stands_damaged(wanted, settings)
    files = download(wanted, settings, options, listener)
    if damaged and not options.replace:
        options = replace(options, replace=True)
    path = pack_files(wanted, files, settings, options, listener)
    if options.delete_downloads:
        delete_downloads(files, settings)
    return Fetched(wanted.ref, path, fresh=True)


def _stands_damaged(wanted: Target, settings: Settings) -> bool:
    """True where a folder of this name stands in the home store although `present` did not accept it."""
    from datahub.store.paths import variant_dir

    ref = wanted.ref
    return variant_dir(settings.datasets, ref.name, str(ref.version), str(ref.variant)).exists()


def delete_downloads(files: tuple[Verified, ...], settings: Settings) -> None:
    """Remove the downloaded files (never ones read in place) after they have been packed."""
    for each in files:
        if each.path.is_relative_to(settings.downloads):
            each.path.unlink(missing_ok=True)
