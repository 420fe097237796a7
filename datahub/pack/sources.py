"""What ``datahub pack SOURCE REF`` accepts: a generator (``shapes:...``) or a REF's published files."""

from __future__ import annotations

from typing import Any

from datahub.core.errors import BadArgument, NotYetSupported
from datahub.core.refs import SPLIT, Ref
from datahub.core.settings import Settings
from datahub.pack.fetch import Target, target
from datahub.registry import catalog, from_dict, to_dict

LATER = ("imagefolder", "csv", "json", "jsonl", "parquet", "wds", "hf", "torchvision")
"""Schemes of the plan that this version does not read yet."""

OPTIONS = {"seed": int, "short_side": int, "clutter": float}
"""Generator options that may stand beside the splits in ``shapes:train=5000,short_side=375``."""


def target_of(source: str, ref: Ref, settings: Settings, splits: dict[str, int] | None = None) -> Target:
    """The `Target` that packs ``source`` under ``ref``.

    ``shapes:5000`` makes one split, train; ``shapes:train=5000,test=500,seed=3`` says more. A REF source packs that
    dataset's published files as the variant ``ref`` names. Raises `BadArgument` or `NotYetSupported`.
    """
    scheme, colon, location = source.partition(":")
    if not colon:
        return _from_ref(Ref.parse(source), ref, settings)
    if scheme in LATER:
        raise NotYetSupported("source", source, "this version packs shapes:N and published datasets (REF)")
    if scheme != "shapes":
        raise BadArgument("source", source, f"{scheme!r} is not a source", "use shapes:N or a dataset's REF")
    counts, options = _generator(source, location)
    return _shapes(ref, splits or counts, options, settings)


def _from_ref(source: Ref, ref: Ref, settings: Settings) -> Target:
    if (source.name, source.version or ref.version) != (ref.name, ref.version or source.version):
        reason = f"{source} and {ref} are different datasets"
        raise BadArgument("ref", str(ref), reason, f"write {source.name}/{ref.variant or 'VARIANT'}")
    return target(Ref(source.name, source.version or ref.version, ref.variant or source.variant), settings)


def _generator(source: str, location: str) -> tuple[dict[str, int], dict[str, Any]]:
    splits: dict[str, int] = {}
    options: dict[str, Any] = {}
    parts = location.split(",") if not location.isdigit() else [f"train={location}"]
    for part in parts:
        name, _, value = part.partition("=")
        try:
            if name in OPTIONS:
                options[name] = OPTIONS[name](value)
            elif SPLIT.fullmatch(name) and int(value) > 0:
                splits[name] = int(value)
            else:
                raise ValueError
        except ValueError:
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
    variant = ref.variant or shipped.default_variant
    facts["variants"], facts["default_variant"] = {variant: {}}, variant
    return Target(from_dict(facts), variant)
