"""`datahub://`: what is in the store as an fsspec file system, read-only.

    datahub://mnist/index-train.parquet              a file of the default variant of the newest packed version
    datahub://mnist@1.0/published/dataset.json       a file of that very variant

A path is a REF and a file in that variant's folder. The part after the name is the variant where such a variant of it
is packed, else the start of the file's path (no file's name looks like a variant's: they have a dot). Listing a REF
lists its variant's files; listing a name whose default variant is not packed lists the variants that are.

Files open as plain local files, so pyarrow, pandas and ``fsspec.open_local`` read them at the disk's speed. webdataset
opens URLs through its own table: call `register_webdataset` once in each process that reads ``datahub://`` URLs
(worker processes that are forked have it already), or hand it plain paths, from ``datahub path``.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from datahub.core.errors import BadReference, NotInStore
from datahub.core.refs import VARIANT, Ref
from datahub.core.settings import Settings, resolve
from datahub.store import record
from datahub.store.find import find_place, packed_versions, roots
from datahub.store.paths import variant_dir
from datahub.store.readonly_fs import ReadOnlyFileSystem


class _Where(NamedTuple):
    """A path taken apart: the REF as it was written, the variant's folder, the path inside it ("" for the folder)."""

    prefix: str
    folder: Path
    inside: str

    @property
    def path(self) -> Path:
        return self.folder / self.inside


class _File(io.BufferedReader):
    """A local file, open to be read. It closes with its last reference: webdataset leaves what it reads open."""

    @property
    def size(self) -> int:
        """Bytes of the file: fsspec's own methods ask for it."""
        return os.fstat(self.fileno()).st_size

    def __del__(self) -> None:
        self.close()


class DatahubFileSystem(ReadOnlyFileSystem):
    """fsspec's view of the stores that settings name; ``home`` and ``stores`` win over the environment.

    Like every fsspec file system it raises ``OSError``s: ``FileNotFoundError`` for what is not in the store, with the
    command to run, and EROFS for writes.
    """

    protocol = "datahub"
    cachable = False  # the environment may change between two instances, and one costs next to nothing
    local_file = True

    def __init__(self, home: str | None = None, stores: str | Iterable[str] | None = None) -> None:
        super().__init__()
        self.settings: Settings = resolve({"home": home, "stores": stores})
        self._folders: dict[str, Path] = {}

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        stripped = super()._strip_protocol(path)
        return stripped.strip("/") if isinstance(stripped, str) else stripped

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:  # noqa: ARG002 - fsspec's signature
        """Files and folders directly under ``path``: names of datasets at the root."""
        path = self._strip_protocol(path)
        entries = self._root() if not path else self._entries(path)
        return entries if detail else [entry["name"] for entry in entries]

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:  # noqa: ARG002 - fsspec's signature
        path = self._strip_protocol(path)
        if not path or self._variants(path):
            return _folder(path)
        where = self._where(path)
        return _facts(path, where.path)

    def created(self, path: str) -> Any:
        return self.modified(path)

    def modified(self, path: str) -> Any:
        from datetime import UTC, datetime

        return datetime.fromtimestamp(self._where(path).path.stat().st_mtime, tz=UTC)

    def local_path(self, path: str) -> Path:
        """The file or folder on the disk that a ``datahub://`` URL or path names."""
        return self._where(self._strip_protocol(path)).path

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> BinaryIO:  # noqa: ARG002 - fsspec's signature
        if mode != "rb":
            self._refuse(path)
        return _File(io.FileIO(str(self.local_path(path))), 1 << 16)

    def invalidate_cache(self, path: str | None = None) -> None:
        self._folders.clear()
        super().invalidate_cache(path)

    def _root(self) -> list[dict[str, Any]]:
        names = {each.parent.parent.parent.name for root in roots(self.settings) for each in _records(root)}
        return [_folder(name) for name in sorted(names)]

    def _entries(self, path: str) -> list[dict[str, Any]]:
        if variants := self._variants(path):
            return [_folder(f"{path}/{variant}") for variant in variants]
        where = self._where(path)
        if where.path.is_file():
            return [_facts(path, where.path)]
        return [_facts(f"{path}/{each.name}", each) for each in sorted(where.path.iterdir())]

    def _variants(self, path: str) -> list[str]:
        """The packed variants under ``NAME[@VERSION]`` where the variant it stands for is not packed, else none."""
        try:
            ref = Ref.parse(path)
        except BadReference:
            return []
        if ref.variant is not None or self._folder(path) is not None:
            return []
        for version in [ref.version] if ref.version else packed_versions(self.settings, ref.name):
            folders = [variant_dir(root, ref.name, version, "") for root in roots(self.settings)]
            if found := {each.parent.name for folder in folders for each in folder.glob(f"*/{record.FILENAME}")}:
                return sorted(found)
        return []

    def _where(self, path: str) -> _Where:
        """Take a path apart; raises ``FileNotFoundError``."""
        path = self._strip_protocol(path)
        parts = path.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise FileNotFoundError(errno.ENOENT, "not a path in the store", path)
        if len(parts) > 1 and VARIANT.fullmatch(parts[1]):
            prefix = "/".join(parts[:2])
            if (folder := self._folder(prefix)) is not None:
                return _found(_Where(prefix, folder, "/".join(parts[2:])), path)
        try:
            place = self._folder(parts[0]) or find_place(self.settings, Ref.parse(parts[0])).path
        except (BadReference, NotInStore) as error:
            raise FileNotFoundError(errno.ENOENT, str(error), path) from error
        return _found(_Where(parts[0], place, "/".join(parts[1:])), path)

    def _folder(self, text: str) -> Path | None:
        """The folder of a REF, remembered while it stands; None where it is not in the store."""
        known = self._folders.get(text)
        if known is not None and (known / record.FILENAME).is_file():
            return known
        try:
            self._folders[text] = find_place(self.settings, Ref.parse(text)).path
        except (BadReference, NotInStore):
            self._folders.pop(text, None)
            return None
        return self._folders[text]


def _found(where: _Where, path: str) -> _Where:
    if not where.path.exists():
        raise FileNotFoundError(errno.ENOENT, f"{where.prefix} holds no {where.inside}", path)
    return where


def _records(root: Path) -> Iterable[Path]:
    return root.glob(f"[!.]*/*/*/{record.FILENAME}")


def _folder(name: str) -> dict[str, Any]:
    return {"name": name, "size": 0, "type": "directory"}


def _facts(name: str, path: Path) -> dict[str, Any]:
    if path.is_dir():
        return _folder(name)
    found = path.stat()
    return {"name": name, "size": found.st_size, "type": "file", "mtime": found.st_mtime}


def register_webdataset() -> None:
    """Let ``webdataset.WebDataset("datahub://mnist/mnist-train-{000000..000007}.tar")`` read the store.

    Adds the scheme to webdataset's own table of openers, in this process.
    """
    from webdataset import gopen_schemes

    gopen_schemes["datahub"] = _gopen


def _gopen(url: str, mode: str = "rb", bufsize: int = 8192) -> BinaryIO:  # noqa: ARG001 - webdataset's signature
    """What webdataset calls to open a URL of a registered scheme."""
    return cast(BinaryIO, DatahubFileSystem().open(url, mode))
