"""The manifest: a dataset as published. Data, never code; one TOML file each (msgspec reads it).

`datahub.registry.parse` turns a file into a `Manifest` and reports every problem at once.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from datahub.core.digests import Digest
from datahub.core.learning import learn

SCHEMA = 1


class _Frozen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class Licence(_Frozen, frozen=True, kw_only=True):
    id: str | None = None
    """SPDX identifier where there is one; None is "not stated by the publisher"."""
    url: str | None = None
    note: str | None = None


class Access(_Frozen, frozen=True, kw_only=True):
    kind: Literal["open", "manual", "credentials"] = "open"
    instructions: str = ""
    """What a person must do, for kinds other than open."""
    consent: bool = False
    """True: the publisher's terms must be accepted (``--accept-licence``) before fetching."""


class File(_Frozen, frozen=True, kw_only=True):
    """One published file."""

    filename: str
    role: str
    """What the layout takes it for, e.g. ``train-images``."""
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    mirrors: list[str] = []
    """URLs (http, https or any fsspec scheme), tried in order."""

    def digests(self) -> tuple[Digest, ...]:
        """The published digests, strongest first; may be empty."""
        found = []
        if self.sha256:
            found.append(Digest("sha256", self.sha256))
        if self.md5:
            found.append(Digest("md5", self.md5))
        return tuple(found)


class Layout(_Frozen, frozen=True, kw_only=True):
    """The raw format inside the published files; ``options`` are the layout's own, checked when it is opened."""

    kind: str
    """``idx``, ``cifar``, ``ilsvrc``, ``imagefolder`` or ``shapes``."""
    options: dict[str, Any] = {}


class Variant(_Frozen, frozen=True, kw_only=True):
    """One way to pack. What is None is taken from the manifest; ``layout`` options are laid over the manifest's."""

    description: str = ""
    splits: dict[str, int] | None = None
    classes: list[str] | None = None
    files: list[str] | None = None
    """Roles of the files this variant is packed from; None for all."""
    layout: dict[str, Any] = {}


def _published() -> dict[str, Variant]:
    return {"published": Variant()}


class Tried(_Frozen, frozen=True, kw_only=True):
    """How far this manifest has been run for real: the column of ``datahub list``."""

    how: Literal["published files", "miniature", "never"]
    note: str = ""


class Manifest(_Frozen, frozen=True, kw_only=True):
    schema: int = SCHEMA
    name: str
    version: str
    title: str
    description: str = ""
    homepage: str = ""
    licence: Licence
    citation: str = ""
    """BibTeX or a plain reference."""
    task: str
    """``image-classification``, ``object-detection``, ..."""
    image: str = ""
    """What an image is, in words: ``28x28x1 uint8``."""
    tags: list[str] = []
    classes: list[str] = []
    words: list[str] = []
    """What each class is called in words, where ``classes`` are identifiers (WordNet's, say); else empty."""
    splits: dict[str, int]
    """Split name -> number of samples."""
    access: Access = Access()
    tried: Tried
    files: list[File] = []
    layout: Layout
    variants: dict[str, Variant] = msgspec.field(default_factory=_published)
    default_variant: str = "published"
    digest: str = ""
    """``sha256:...`` of what the dataset is (`parse.digest_of`), set by `parse`; never written in the file."""

    def file(self, role: str) -> File:
        """The file with this role; raises ``KeyError``."""
        for each in self.files:
            if each.role == role:
                return each
        raise KeyError(role)

    def splits_of(self, variant: str) -> dict[str, int]:
        own = self.variants[variant].splits
        return self.splits if own is None else own

    def classes_of(self, variant: str) -> list[str]:
        own = self.variants[variant].classes
        return self.classes if own is None else own

    def words_of(self, variant: str) -> list[str]:
        """Parallel to `classes_of`; empty where there are none, and for classes of the variant's own."""
        return self.words if self.variants[variant].classes is None else []

    def files_of(self, variant: str) -> list[File]:
        """The published files that this variant is packed from."""
        roles = self.variants[variant].files
        return self.files if roles is None else [each for each in self.files if each.role in roles]

    def layout_of(self, variant: str) -> Layout:
        """The layout with the variant's options laid over it."""
        return Layout(kind=self.layout.kind, options={**self.layout.options, **self.variants[variant].layout})


learn(Manifest)
