"""Find manifests by name and version, among the shipped ones and the user's own, which win."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from datahub.core.errors import BadArgument, DiskError, ManifestInvalid, UnknownDataset, UnknownVersion
from datahub.core.refs import Ref, version_key
from datahub.core.settings import Settings
from datahub.registry import entries as shipped
from datahub.registry.entries import Entry, entry_of
from datahub.registry.nearest import nearest
from datahub.registry.parse import decode, from_dict, load, read_text
from datahub.registry.schema import Manifest


@dataclass(frozen=True, slots=True)
class Broken:
    """A manifest file that cannot be used, and what can be told of the dataset it was for."""

    error: ManifestInvalid | DiskError
    name: str
    version: str | None
    named: bool
    """True: the user gave this very file, not a folder that holds it."""


@dataclass(frozen=True, slots=True)
class Found:
    """A usable manifest of the user's: its file ("" for one made in Python) and what it says."""

    manifest: Manifest
    file: str


class Catalog:
    """All known manifests. Nothing is read before the first question; then each file once.

    ``user`` holds manifest files, folders of ``*.toml`` and `Manifest` objects; of two with one name and version the
    first is used, and any of them before a shipped one. A broken file hides no other dataset: `broken` lists it, and
    only asking for its own dataset raises its `ManifestInvalid`.
    """

    def __init__(self, user: Sequence[Path | Manifest] = (), *, folder: Path | None = None) -> None:
        self._given = tuple(user)
        self._folder = folder
        self._loaded: dict[str, Manifest] = {}

    def names(self) -> list[str]:
        return sorted({each.name for each in self._entries.values()})

    def versions(self, name: str) -> list[str]:
        """The versions of ``name``, oldest first; empty where it is unknown."""
        return sorted((version for known, version in self._entries if known == name), key=_age)

    def find(self, ref: Ref) -> Manifest:
        """The manifest of ``ref``, the newest version unless it names one.

        Raises `UnknownDataset` with the nearest names, `UnknownVersion`, or what is wrong with its file.
        """
        for each in self._user.broken:
            if each.name == ref.name and (ref.version is None or each.version in (None, ref.version)):
                raise each.error
        versions = self.versions(ref.name)
        if not versions:
            for each in self._user.broken:
                if each.named:  # whatever dataset it was for, it is more likely meant than a name nobody knows
                    raise each.error
            raise UnknownDataset(ref.name, nearest(ref.name, self.names()))
        version = ref.version or versions[-1]
        if version not in versions:
            raise UnknownVersion(ref.name, version, versions)
        return self._manifest(ref.name, version)

    def entries(self, query: str | None = None, task: str | None = None, licence: str | None = None) -> list[Entry]:
        """What is known, by name and then version, narrowed by parts of its name or title, its task, its licence.

        All three match anywhere and in any case. Shipped manifests are not parsed for this.
        """
        found = sorted(self._entries.values(), key=lambda each: (each.name, _age(each.version)))
        return [
            each
            for each in found
            if _within(query, each.name, each.title) and _within(task, each.task) and _within(licence, each.licence)
        ]

    def file_of(self, manifest: Manifest) -> str:
        """The path of the file this manifest was read from; "" for one made in Python."""
        entry = self._entries[manifest.name, manifest.version]
        own = (manifest.name, manifest.version) in self._user.found
        return entry.file if own else str(self._shipped_folder / entry.file)

    @property
    def broken(self) -> tuple[ManifestInvalid | DiskError, ...]:
        """Why some of the user's manifest files cannot be used: all problems of each."""
        return tuple(each.error for each in self._user.broken)

    @property
    def _shipped_folder(self) -> Path:
        return self._folder or shipped.shipped_folder()

    @cached_property
    def _user(self) -> _User:
        return _User(self._given)

    @cached_property
    def _entries(self) -> dict[tuple[str, str], Entry]:
        listed = {(each.name, each.version): each for each in shipped.read(self._shipped_folder)}
        own = {key: entry_of(each.manifest, each.file) for key, each in self._user.found.items()}
        return {**listed, **own}

    def _manifest(self, name: str, version: str) -> Manifest:
        if own := self._user.found.get((name, version)):
            return own.manifest
        file = self._entries[name, version].file
        if file not in self._loaded:
            self._loaded[file] = load(self._shipped_folder / file)
        return self._loaded[file]


class _User:
    """The user's manifests, read: those that can be used by name and version, and the broken ones."""

    def __init__(self, given: Iterable[Path | Manifest]) -> None:
        self.found: dict[tuple[str, str], Found] = {}
        self.broken: list[Broken] = []
        for each in given:
            if isinstance(each, Manifest):
                self._add(each, "")
            elif each.is_dir():
                for path in sorted(each.glob("[!.]*.toml")):
                    self._read(path, named=False)
            elif each.exists():
                self._read(each, named=True)
            else:
                reason = "there is no such file or folder"
                raise BadArgument("manifests", str(each), reason, "check --manifest and DATAHUB_MANIFESTS")

    def _add(self, manifest: Manifest, file: str) -> None:
        self.found.setdefault((manifest.name, manifest.version), Found(manifest, file))

    def _read(self, path: Path, named: bool) -> None:
        name, version = path.stem, None
        try:
            table = decode(read_text(path), str(path))
            # Whoever asks for the dataset by the name inside must hear of the problems, however the file is named.
            name = table["name"] if isinstance(table.get("name"), str) else name
            version = table["version"] if isinstance(table.get("version"), str) else None
            self._add(from_dict(table, str(path)), str(path))
        except (ManifestInvalid, DiskError) as error:
            self.broken.append(Broken(error, name, version, named))


def _age(version: str) -> tuple[object, str]:
    return version_key(version), version


def _within(wanted: str | None, *texts: str | None) -> bool:
    return not wanted or any(wanted.lower() in text.lower() for text in texts if text)


def catalog(settings: Settings) -> Catalog:
    """The catalog with the user's manifests of these settings."""
    return Catalog(settings.manifests)
