"""``datahub info``: one dataset's splits, sizes, licence, citation, mirrors, and where it is on this disk."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from datahub.cli import summary
from datahub.cli.app import App
from datahub.cli.list import packed
from datahub.cli.tables import table
from datahub.core.errors import UnknownDataset, UnknownVariant, UnknownVersion
from datahub.core.refs import Ref
from datahub.core.sizes import format_bytes
from datahub.pack.fetch import RECIPES, of_manifest

if TYPE_CHECKING:
    from datahub.registry import Catalog, File, Manifest
    from datahub.store.find import Located

WIDTH = 100
LABEL = 12
MANY_CLASSES = 40
"""From here on only the first `FEW_CLASSES` are shown."""
FEW_CLASSES = 20
WHOLE = ("homepage", "manifest", "here")
"""Facts that people copy: never broken into lines."""


@click.command("info")
@click.argument("ref", metavar="REF")
@click.pass_obj
def command(app: App, ref: str) -> None:
    """Splits, sizes, licence, citation, mirrors, and where REF is on this disk."""
    from datahub.registry import catalog
    from datahub.store.find import list_local

    asked = Ref.parse(ref)
    here = [each for each in list_local(app.settings) if _same(asked, each.ref)]
    known = catalog(app.settings)
    try:
        manifest = known.find(asked)
    except (UnknownDataset, UnknownVersion):
        if not here:
            raise
        _packed_only(app, here)
        return
    here = [each for each in here if each.ref.version == manifest.version]
    variant = asked.variant or manifest.default_variant
    try:
        base = of_manifest(manifest, variant).base
    except UnknownVariant:
        if not here:
            raise
        _packed_only(app, here)
        return
    app.emit(_document(known, manifest, variant, base, here))
    for line in _lines(known, manifest, variant, base, here):
        app.echo(line)


def _same(asked: Ref, ref: Ref) -> bool:
    """Whether ``ref`` is the asked dataset, at the asked version and variant if any was asked."""
    return asked.name == ref.name and asked.version in (None, ref.version) and asked.variant in (None, ref.variant)


def _packed_only(app: App, here: Sequence[Located]) -> None:
    """What the store knows of a dataset that no manifest describes: packed from a source of the user's."""
    app.emit({"local": [{**packed(each), **summary.document(each.record)} for each in here]})
    for each in here:
        record = each.record
        app.echo(f"{each.ref}{f'  {record.title}' if record.title else ''}")
        splits = ", ".join(f"{name} {split.samples:,}" for name, split in record.splits.items())
        facts = [
            ("task", record.task),
            ("classes", _classes(record.classes, record.words)),
            ("licence", record.licence or ""),
            ("splits", splits),
            ("here", f"{each.path} ({format_bytes(record.bytes())})"),
        ]
        for line in [*_facts(facts), *(f"    {line}" for line in summary.lines(record))]:
            app.echo(line)


def _lines(known: Catalog, manifest: Manifest, variant: str, base: str, here: Sequence[Located]) -> Iterator[str]:
    yield f"{manifest.name}@{manifest.version}/{variant}  {manifest.title}"
    for paragraph in (manifest.description, manifest.variants[base].description):
        yield from textwrap.wrap(" ".join(paragraph.split()), WIDTH, initial_indent="  ", subsequent_indent="  ")
    licence, access = manifest.licence, manifest.access
    splits = manifest.splits_of(base)
    terms = "; the publisher's terms must be accepted" if access.consent else ""
    yield from _facts(
        [
            ("homepage", manifest.homepage),
            ("task", manifest.task),
            ("image", manifest.image),
            ("classes", _classes(manifest.classes_of(base), manifest.words_of(base))),
            ("splits", ", ".join(f"{name} {count:,}" for name, count in splits.items())),
            ("variants", _variants(manifest)),
            ("versions", ", ".join(known.versions(manifest.name))),
            ("licence", _joined(licence.id, licence.url, licence.note) or "none stated"),
            ("access", _joined(access.kind + terms, access.instructions)),
            ("tried", _joined(manifest.tried.how, manifest.tried.note)),
            ("manifest", known.file_of(manifest) or "made in Python"),
            ("digest", manifest.digest),
            ("here", "" if here else f"not packed; run `datahub fetch {_short(manifest, variant)}`"),
        ]
    )
    for each in here:
        yield from _facts([("here", f"{each.path} ({each.ref.variant}, {format_bytes(each.record.bytes())})")])
        yield from (f"    {line}" for line in summary.lines(each.record))
    yield from _files(manifest.files_of(base))
    if manifest.citation:
        yield from ("", "  citation")
        yield from (f"    {line}" for line in manifest.citation.strip().splitlines())


def _facts(facts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Label and text, wrapped beside it; facts without text are left out."""
    for label, text in facts:
        yield from textwrap.wrap(
            text,
            WIDTH if label not in WHOLE else len(text) + LABEL + 2,
            initial_indent=f"  {label:<{LABEL}}",
            subsequent_indent=" " * (LABEL + 2),
            break_long_words=False,
            break_on_hyphens=False,
        )


def _files(files: Sequence[File]) -> Iterator[str]:
    if not files:
        return
    sizes = [each.bytes for each in files if each.bytes is not None]
    least = "" if len(sizes) == len(files) else "at least "
    yield from ("", f"  files: {len(files)}, {least}{format_bytes(sum(sizes))} to download")
    rows = [
        (
            each.filename,
            "?" if each.bytes is None else format_bytes(each.bytes),
            " ".join(digest.algorithm for digest in each.digests()) or "no digest",
        )
        for each in files
    ]
    lines = table(("FILE", "SIZE", "DIGESTS"), rows, right=("SIZE",))[1:]
    for line, each in zip(lines, files, strict=True):
        yield f"    {line}"
        yield from (f"      {url}" for url in each.mirrors)


def _classes(classes: Sequence[str], words: Sequence[str] = ()) -> str:
    if not classes:
        return ""
    if words:
        classes = [f"{name} ({word.split(',')[0]})" for name, word in zip(classes, words, strict=True)]
    shown = classes if len(classes) < MANY_CLASSES else classes[:FEW_CLASSES]
    more = f", and {len(classes) - len(shown):,} more" if len(shown) < len(classes) else ""
    return f"{len(classes):,}: {', '.join(shown)}{more}"


def _variants(manifest: Manifest) -> str:
    default = manifest.default_variant
    others = [name for name in manifest.variants if name != default]
    return ", ".join([f"{default} (default)", *others]) + f"; of each also {', '.join(RECIPES)}"


def _joined(*texts: str | None) -> str:
    return "; ".join(text.strip() for text in texts if text)


def _short(manifest: Manifest, variant: str) -> str:
    return manifest.name if variant == manifest.default_variant else f"{manifest.name}/{variant}"


def _document(known: Catalog, manifest: Manifest, variant: str, base: str, here: Sequence[Located]) -> dict[str, Any]:
    from msgspec.structs import asdict

    facts = asdict(manifest)
    sizes = [each.bytes for each in manifest.files_of(base)]
    facts.update(
        ref=f"{manifest.name}@{manifest.version}/{variant}",
        variant=variant,
        splits=manifest.splits_of(base),
        classes=manifest.classes_of(base),
        words=manifest.words_of(base),
        licence=asdict(manifest.licence),
        access=asdict(manifest.access),
        tried=asdict(manifest.tried),
        files=[asdict(each) for each in manifest.files_of(base)],
        layout=asdict(manifest.layout_of(base)),
        variants={name: asdict(each) for name, each in manifest.variants.items()},
        versions=known.versions(manifest.name),
        manifest=known.file_of(manifest),
        download_bytes=None if None in sizes else sum(size for size in sizes if size is not None),
        local=[{**packed(each), **summary.document(each.record)} for each in here],
    )
    return facts
