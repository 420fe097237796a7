"""From a dataset's name to a committed variant: find the manifest, acquire its files, open their layout, pack.

Nothing here imports numpy until something must be packed: a second fetch of a packed dataset only stats its files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from datahub.core.errors import (
    BadArgument,
    ConsentNeeded,
    NotInStore,
    RecordInvalid,
    StoreDamaged,
    UnknownDataset,
    UnknownVariant,
    UnknownVersion,
)
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


RECIPES = ("tiled", "max256", "max512", "raw")
"""Variants that every dataset has beside its own: what `datahub.pack.recipes.named` makes, of any side."""
RECIPE = re.compile(r"published|tiled|raw|max[1-9]\d{1,3}")


def is_recipe(name: str) -> bool:
    return RECIPE.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Target:
    """A manifest and the variant of it that is wanted."""

    manifest: Manifest
    variant: str
    base: str
    """The manifest's variant that says which files and samples; ``variant`` itself, or what it is a recipe of."""
    recipe: str = "published"
    source: Source | None = None
    """Samples that are here already (a folder, an annotation file, another variant): nothing is to be downloaded."""

    @property
    def ref(self) -> Ref:
        return Ref(self.manifest.name, self.manifest.version, self.variant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to fetch; the defaults are what ``datahub fetch REF`` does."""

    replace: bool = False
    accept_licence: bool = False
    delete_downloads: bool = False
    jobs: int | None = None
    stats: str = "sample"
    """Mean and std from at most 10,000 images (``sample``), all (``full``) or none."""
    damaged: str = "keep"
    """What becomes of images that do not decode: ``keep``, ``quarantine`` or ``refuse``."""
    executor: str | None = None
    """Where packing runs: None or ``local``, ``dask://HOST``, ``ray://HOST``."""
    task: str | None = None
    """``3/64``: pack only this part; the last one commits."""
    to: str | None = None
    """A URL to write shards straight to, in place of the store."""


@dataclass(frozen=True, slots=True)
class Fetched:
    ref: Ref
    path: Path
    fresh: bool
    """False: it was there already."""


def target(ref: Ref, settings: Settings) -> Target:
    """The manifest that ``ref`` names; raises `UnknownDataset`, `UnknownVersion` or `UnknownVariant`.

    A variant is one of the manifest's, a recipe of the default one (``tiled``), or ``VARIANT-RECIPE``.
    """
    return of_manifest(catalog(settings).find(ref), ref.variant)


def of_manifest(manifest: Manifest, wanted: str | None) -> Target:
    """Raises `UnknownVariant`."""
    variant = wanted or manifest.default_variant
    if variant in manifest.variants:
        return Target(manifest, variant, variant)
    if is_recipe(variant):
        return Target(manifest, variant, manifest.default_variant, variant)
    base, dash, recipe = variant.rpartition("-")
    if dash and base in manifest.variants and is_recipe(recipe):
        return Target(manifest, variant, base, recipe)
    raise UnknownVariant(manifest.name, variant, [*sorted(manifest.variants), *RECIPES])


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
    return plan(manifest, settings, wanted.base)


def source_of(wanted: Target, files: tuple[Verified, ...], settings: Settings, listener: Listener = ignore) -> Source:
    """The samples inside verified files (or of a generator, which has none)."""
    from datahub.pack.layouts import open_source

    if wanted.source is not None:
        return wanted.source
    manifest = wanted.manifest
    return open_source(
        manifest.layout_of(wanted.base),
        {each.file.role: each for each in files},
        splits=manifest.splits_of(wanted.base),
        classes=manifest.classes_of(wanted.base),
        scratch=scratch(settings),
        listener=listener,
    )


def scratch(settings: Settings) -> Path:
    """Where lists of raw files are kept; what is there can be made again."""
    return settings.home / "derived"


def stored_base(wanted: Target, settings: Settings) -> Target:
    """``wanted`` with the packed variant it is a recipe of as its source, where that one stands in a store."""
    from datahub.pack.stored import Stored

    if wanted.variant == wanted.base or wanted.source is not None:
        return wanted
    base = Target(wanted.manifest, wanted.base, wanted.base)
    located = present(base, settings)
    if located is None or located.record.manifest.digest != wanted.manifest.digest:
        return wanted
    return replace(wanted, source=Stored(located.path))


def pack_plan(
    wanted: Target,
    files: tuple[Verified, ...],
    settings: Settings,
    options: Options,
    listener: Listener = ignore,
) -> tuple[Source, PackPlan]:
    from datahub.pack.plan import Choices, plan
    from datahub.pack.recipes.named import recipe

    made = recipe(wanted.recipe)
    source = source_of(wanted, files, settings, listener)
    return source, plan(
        source,
        manifest=wanted.manifest,
        variant=wanted.variant,
        base=wanted.base,
        settings=settings,
        choices=Choices(stats=options.stats, damaged=options.damaged, recipe=made),
        inputs=[each.sha256 for each in files],
        to=options.to,
    )


def pack_files(
    wanted: Target, files: tuple[Verified, ...], settings: Settings, options: Options, listener: Listener = ignore
) -> str | None:
    """Pack verified files; the committed folder (or URL), None where other parts (``options.task``) are missing yet."""
    from datahub.pack.run import How, Part, run, workers

    check(wanted, options)
    part = Part.parse(options.task) if options.task else None
    jobs = 1 if options.to and in_memory(options.to) else options.jobs
    how = How(jobs=jobs, executor=options.executor, part=part, replace=options.replace)
    source, plan = pack_plan(wanted, files, settings, options, listener)
    for line in plan.lines(workers(plan, jobs)):
        listener(Note("pack", line))
    return run(plan, source, settings=settings, how=how, listener=listener)


def check(wanted: Target, options: Options) -> None:
    """Raises, before anything is downloaded, what packing would raise after it: `BadArgument` for an option that is
    none, `MissingTool` for a program that is not here.
    """
    from datahub.pack import executors
    from datahub.pack.plan import POLICIES
    from datahub.pack.recipes.named import recipe
    from datahub.pack.run import Part

    recipe(wanted.recipe)
    scheme = executors.parse(options.executor)[0]
    if options.task:
        Part.parse(options.task)
    if options.damaged not in POLICIES:
        raise BadArgument("damaged", options.damaged, "is not a policy", f"known: {', '.join(POLICIES)}")
    if options.to and in_memory(options.to) and scheme != "local":
        raise BadArgument("to", options.to, f"is this process's memory, which no worker of {scheme} sees")


def check_name(ref: Ref, settings: Settings) -> None:
    """Raises `BadArgument` where a published dataset is called so: `fetch` would take people's own for it."""
    try:
        found = catalog(settings).find(Ref(ref.name, ref.version or "1.0"))
    except (UnknownDataset, UnknownVersion):
        return
    reason = f"is what a published dataset is called ({found.title})"
    raise BadArgument("ref", str(ref), reason, "choose another name or version")


def in_memory(url: str) -> bool:
    return url.startswith("memory:")


def download(wanted: Target, settings: Settings, options: Options, listener: Listener = ignore) -> tuple[Verified, ...]:
    """Download and verify what is missing; nothing is read again that a receipt vouches for."""
    from datahub.acquire import run

    if wanted.source is not None:
        return ()
    plan = acquire_plan(wanted, settings, accept_licence=options.accept_licence)
    return run(plan, settings, listener=listener, jobs=options.jobs)


def fetch(ref: Ref, settings: Settings, options: Options | None = None, listener: Listener = ignore) -> Fetched:
    """Download, verify and pack ``ref`` unless it is packed already."""
    options = options or Options()
    wanted = target(ref, settings)
    if not options.replace and (located := present(wanted, settings, listener)):
        return Fetched(wanted.ref, located.path, fresh=False)
    check(wanted, options)
    damaged = _stands_damaged(wanted, settings)
    wanted = stored_base(wanted, settings)
    files = download(wanted, settings, options, listener)
    if damaged and not options.replace:
        options = replace(options, replace=True)
    path = pack_files(wanted, files, settings, options, listener)
    assert path is not None  # fetch packs every part
    if options.delete_downloads:
        delete_downloads(files, settings)
    return Fetched(wanted.ref, Path(path), fresh=True)


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
