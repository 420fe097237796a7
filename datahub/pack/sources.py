"""What ``datahub pack SOURCE REF`` accepts: a REF (another variant of it is made) or ``scheme:location``.

A source of people's own becomes a manifest in memory, so that packing, the record and every reader treat it as any
other dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datahub.core.errors import BadArgument, NotInStore, NotYetSupported, RecordInvalid, UnknownDataset
from datahub.core.events import Listener, ignore
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.pack.fetch import Target, check_name, of_manifest, stored_base, target
from datahub.pack.splitting import Shares, counts
from datahub.registry import catalog, from_dict, to_dict
from datahub.registry.parse import digest_of
from datahub.registry.schema import Layout, Licence, Manifest, Tried, Variant
from datahub.store.find import Located, find

OWN = ("imagefolder", "csv", "json", "jsonl", "parquet", "wds", "coco", "ilsvrc")
READ: Mapping[str, tuple[str, ...]] = {
    "imagefolder": ("split", "empty_classes"),
    "csv": ("split", "images", "columns", "types"),
    "json": ("split", "images", "columns", "types"),
    "jsonl": ("split", "images", "columns", "types"),
    "parquet": ("split", "columns", "types"),
    "wds": ("split",),
    "coco": ("split", "images", "masks"),
    "shapes": ("split",),
}
"""Which parts of a `Reading` say something to which sources."""
LATER = ("hf", "torchvision")
"""Schemes of the plan that this version does not read yet."""

OPTIONS = {"seed": int, "short_side": int, "clutter": float}
"""Generator options that may stand beside the splits in ``shapes:train=5000,short_side=375``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a source of people's own is read."""

    split: Shares | None = None
    """``train=90%,val=10%``: splits by key hash; None: as the source says, else one split, train."""
    images: Path | None = None
    """Where the images of annotation rows are; None: beside the annotations."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """``image``, ``label`` and ``split`` -> the column that holds them, where their names do not say so."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Further columns -> their types, where values do not tell: ``boxes:xywh``, ``labels``, ``mask``, ..."""
    empty_classes: bool = False
    """Whether a class folder without images is a class all the same, and no error."""
    masks: bool = False
    """Whether segmentations become masks."""

    def check(self, scheme: str) -> None:
        """Raises `BadArgument` for what a source of this kind has no use for: nothing is silently ignored."""
        said = {
            "split": str(self.split) if self.split else "",
            "images": str(self.images or ""),
            "columns": ",".join(f"{what}={name}" for what, name in self.columns.items()),
            "types": ",".join(f"{column}={kind}" for column, kind in self.types.items()),
            "empty_classes": self.empty_classes,
            "masks": self.masks,
        }
        for name, value in said.items():
            if value and name not in READ.get(scheme, ()):
                able = ", ".join(f"{each}:" for each, names in READ.items() if name in names)
                raise BadArgument(name, value, f"says nothing to {scheme}", f"it is for {able}; leave it out")


def target_of(
    source: str,
    ref: Ref,
    settings: Settings,
    reading: Reading | None = None,
    listener: Listener = ignore,
) -> Target:
    """The `Target` that packs ``source`` under ``ref``.

    ``shapes:5000`` makes one split, train; ``shapes:train=5000,test=500,seed=3`` says more. A REF is packed from its
    packed variant where that is in a store, else from its published files. Raises `BadArgument`, `NotYetSupported`,
    and what is wrong with the source.
    """
    reading = reading or Reading()
    scheme, colon, location = source.partition(":")
    if not colon:
        reading.check("a dataset")
        return _from_ref(Ref.parse(source), ref, settings)
    if scheme in LATER:
        raise NotYetSupported("source", source, f"this version packs REF, shapes:N, {', '.join(f'{o}:' for o in OWN)}")
    if scheme not in (*OWN, "shapes"):
        raise BadArgument("source", source, f"{scheme!r} is not a source", f"known: REF, shapes, {', '.join(OWN)}")
    reading.check(scheme)
    if scheme == "shapes":
        given, options = _generator(source, location)
        return _shapes(ref, counts(reading.split) if reading.split else given, options, settings)
    return _own(scheme, location, ref, settings, reading, listener)


def _own(scheme: str, location: str, ref: Ref, settings: Settings, reading: Reading, listener: Listener) -> Target:
    from datahub.pack import own
    from datahub.pack.fetch import scratch
    from datahub.pack.own.objects import task_of

    if not location:
        raise BadArgument("source", f"{scheme}:", "says no place", f"write {scheme}:PATH")
    check_name(ref, settings)
    source = own.open_own(scheme, location, reading, scratch(settings), listener)
    manifest = Manifest(
        name=ref.name,
        version=ref.version or "1.0",
        title=ref.name,
        licence=Licence(note="the packer's own data"),
        task=task_of(source.fields()),
        classes=list(source.classes() or []),
        words=list(source.words()),
        splits=dict(source.splits()),
        tried=Tried(how="published files"),
        layout=Layout(kind=scheme),
    )
    manifest = _sealed(manifest)
    return replace(of_manifest(manifest, ref.variant), source=source)


def _sealed(manifest: Manifest) -> Manifest:
    import msgspec

    return msgspec.structs.replace(manifest, digest=digest_of(manifest))


def _from_ref(source: Ref, ref: Ref, settings: Settings) -> Target:
    if (source.name, source.version or ref.version) != (ref.name, ref.version or source.version):
        reason = f"{source} and {ref} are different datasets"
        raise BadArgument("ref", str(ref), reason, f"write {source.name}/{ref.variant or 'VARIANT'}")
    version = source.version or ref.version
    wanted = ref.variant or source.variant
    try:
        manifest = catalog(settings).find(Ref(source.name, version))
    except UnknownDataset:
        manifest = None
    if source.variant and source.variant != wanted:
        return _between(Ref(source.name, version, source.variant), str(wanted), manifest, settings)
    if manifest is not None:
        return stored_base(target(Ref(source.name, version, wanted), settings), settings)
    if not wanted:
        raise BadArgument("ref", str(ref), "names no variant to make", f"write {ref.name}/tiled or another")
    return _between(Ref(source.name, version, None), wanted, None, settings)


def _between(source: Ref, wanted: str, manifest: Manifest | None, settings: Settings) -> Target:
    """A variant made from another one that is packed."""
    from datahub.pack.stored import Stored

    try:
        located = find(settings, source)
    except NotInStore:
        if manifest is not None and source.variant == manifest.default_variant:
            return of_manifest(manifest, wanted)  # from its published files
        raise
    if manifest is None or manifest.digest != located.record.manifest.digest:
        manifest = _recorded(located)
    if located.ref.variant not in manifest.variants:
        # A variant of a variant: what counts is what the record says it holds.
        manifest = _recorded(located)
    made = of_manifest(manifest, wanted)
    return replace(made, base=str(located.ref.variant), source=Stored(located.path))


def _recorded(located: Located) -> Manifest:
    """The manifest that a variant was packed from, as it remembers it. Raises `RecordInvalid`."""
    import msgspec

    from datahub.pack.commit import MANIFEST

    path = located.path / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise RecordInvalid(str(path), f"cannot be read: {error}") from error
    variant = located.record.variant
    if variant not in manifest.variants:
        manifest = msgspec.structs.replace(manifest, variants={variant: Variant()}, default_variant=variant)
    return manifest


def _generator(source: str, location: str) -> tuple[dict[str, int], dict[str, Any]]:
    splits: dict[str, int] = {}
    options: dict[str, Any] = {}
    parts = location.split(",") if not location.isdigit() else [f"train={location}"]
    for part in parts:
        name, _, value = part.partition("=")
        try:
            if name in OPTIONS:
                options[name] = OPTIONS[name](value)
            else:
                splits |= counts(Shares.parse(part))
        except (ValueError, BadArgument):
            raise BadArgument(
                "source", source, f"cannot read {part!r}", "write shapes:5000 or shapes:train=5000,test=500,seed=3"
            ) from None
    if not splits:
        raise BadArgument("source", source, "says no split", "write shapes:5000 or shapes:train=5000,test=500")
    return splits, options


def _shapes(ref: Ref, splits: dict[str, int], options: dict[str, Any], settings: Settings) -> Target:
    shipped = catalog(settings).find(Ref("shapes"))
    facts = to_dict(shipped)
    facts["name"], facts["version"] = ref.name, ref.version or "1.0"
    facts["splits"] = splits
    facts["layout"]["options"] = {**facts["layout"].get("options", {}), **options}
    return of_manifest(from_dict(facts), ref.variant)
