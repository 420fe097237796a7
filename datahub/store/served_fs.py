"""`datahub+http://`: the datasets of a cache server as an fsspec file system, read-only.

    datahub+http://cache:8080/mnist/index-train.parquet          a file of the default variant of the newest version
    datahub+https://cache:8443/mnist@1.0/published/dataset.json  a file of that very variant

After the server's address a path is what it is to `datahub.store.fs`. Files are read by the digests of the record that
was read first, so what was replaced meanwhile is never mixed with what it was. The token is DATAHUB_TOKEN, or what
DATAHUB_TOKEN_FILE holds.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from fsspec.spec import AbstractBufferedFile

from datahub.core.errors import BadReference, DatahubError, HttpError, TokenRefused
from datahub.core.refs import Ref
from datahub.store import blocks
from datahub.store import record as records
from datahub.store.readonly_fs import ReadOnlyFileSystem
from datahub.store.record import BLOCKS, FILENAME
from datahub.wire import paths
from datahub.wire.client import ServerClient
from datahub.wire.messages import DatasetInfo, Datasets
from datahub.wire.ranges import Range

SECONDS = 60.0
"""That one answer may take."""
SCHEME = "datahub+"


@dataclass(frozen=True, slots=True)
class _Listed:
    """The files of a variant: name -> bytes, and where the server has it."""

    sizes: dict[str, int]
    places: dict[str, str]


class ServedFileSystem(ReadOnlyFileSystem):
    """fsspec's view of the cache server at ``server``, an ``http://`` or ``https://`` address.

    Like every fsspec file system it raises ``OSError``s: ``FileNotFoundError`` for what is not there,
    ``PermissionError`` where the token is missing or another one, EROFS for writes, EIO for a server that fails.
    """

    protocol = ("datahub+http", "datahub+https")

    def __init__(self, server: str, **options: Any) -> None:
        super().__init__(**options)
        self.server = server.removeprefix(SCHEME)
        self._client = ServerClient(self.server)
        self._infos: dict[str, list[DatasetInfo]] = {}
        self._variants: dict[Ref, _Listed] = {}

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        scheme, found, rest = str(path).partition("://")
        return (rest.partition("/")[2] if found and scheme in cls.protocol else str(path)).strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        scheme, _, rest = path.partition("://")
        return {"server": f"{scheme.removeprefix(SCHEME)}://{rest.partition('/')[0]}"}

    def unstrip_protocol(self, name: str) -> str:
        return f"{SCHEME}{self.server}/{self._strip_protocol(name)}"

    def ls(self, path: str, detail: bool = True, refresh: bool = False, **kwargs: Any) -> list[Any]:  # noqa: ARG002 - fsspec's signature
        """Files and folders directly under ``path``: names of datasets at the root. ``refresh``: asked again."""
        if refresh:
            self.invalidate_cache()
        path = self._strip_protocol(path)
        entries = self._entries(path) if path else [_folder(each) for each in self._names()]
        return entries if detail else [entry["name"] for entry in entries]

    def exists(self, path: str, **kwargs: Any) -> bool:
        """False for what is not there; a server that fails, or refuses, says nothing of that."""
        try:
            self.info(path, **kwargs)
        except FileNotFoundError:
            return False
        return True

    def isdir(self, path: str) -> bool:
        return self.exists(path) and self.info(path)["type"] == "directory"

    def isfile(self, path: str) -> bool:
        return self.exists(path) and self.info(path)["type"] == "file"

    def walk(self, path: str, *arguments: Any, on_error: Any = "omit", **kwargs: Any) -> Iterator[Any]:
        """As fsspec's, for `glob` and `find` too; ``omit`` leaves out what is not there, and hides no failure."""
        yield from super().walk(path, *arguments, on_error=_absent if on_error == "omit" else on_error, **kwargs)

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:  # noqa: ARG002 - fsspec's signature
        path = self._strip_protocol(path)
        if not path:
            return _folder(path)
        listed, inside = self._where(path)
        if inside in listed.sizes:
            return _file(path, listed.sizes[inside])
        if inside and not any(name.startswith(f"{inside}/") for name in listed.sizes):
            raise FileNotFoundError(errno.ENOENT, "the variant holds no such file", path)
        return _folder(path)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:  # noqa: ARG002 - fsspec's signature
        """Those bytes of a file, and no more, are asked for; negative places count from its end."""
        path = self._strip_protocol(path)
        size = self._size(path)
        low, high, _ = slice(start, end).indices(size)
        return self.range(path, low, high)

    def range(self, path: str, start: int, end: int) -> bytes:
        """Bytes ``[start, end)`` of a file."""
        listed, inside = self._where(path)
        if start >= end:
            return b""
        with _told(path), self._client.range(listed.places[inside], Range(start, end), SECONDS) as chunks:
            data = b"".join(chunks)[: end - start]
        if len(data) != end - start:
            raise OSError(errno.EIO, f"{len(data)} of {end - start} bytes came", path)
        return data

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> Any:
        if mode != "rb":
            self._refuse(path)
        size = self._size(path)
        if size == 0:
            return io.BytesIO()
        return _Open(self, path, mode, block_size or "default", size=size, **kwargs)

    def invalidate_cache(self, path: str | None = None) -> None:
        """What the server has is asked again."""
        self._infos.clear()
        self._variants.clear()
        super().invalidate_cache(path)

    def _size(self, path: str) -> int:
        found = self.info(path)
        if found["type"] != "file":
            raise IsADirectoryError(errno.EISDIR, "is a folder", path)
        return int(found["size"])

    def _names(self) -> list[str]:
        with _told(""):
            return sorted({each.name for each in _decoded(self._client.whole(paths.DATASETS, SECONDS))})

    def _entries(self, path: str) -> list[dict[str, Any]]:
        listed, inside = self._where(path)
        if inside in listed.sizes:
            return [_file(path, listed.sizes[inside])]
        below = f"{inside}/" if inside else ""
        found: dict[str, dict[str, Any]] = {}
        for name, size in listed.sizes.items():
            first, deeper, _ = name.removeprefix(below).partition("/")
            if name.startswith(below):
                where = f"{path}/{first}"
                found[first] = _folder(where) if deeper else _file(where, size)
        if not found:
            raise FileNotFoundError(errno.ENOENT, "the variant holds no such file", path)
        return [found[name] for name in sorted(found)]

    def _where(self, path: str) -> tuple[_Listed, str]:
        """A path taken apart: the files of its variant, and the path among them. Raises ``FileNotFoundError``."""
        first, _, rest = path.partition("/")
        try:
            ref = Ref.parse(first)
        except BadReference as error:
            raise FileNotFoundError(errno.ENOENT, error.message, path) from error
        infos = [each for each in self._of_name(ref.name, path) if ref.version in (None, each.version)]
        variant, _, deeper = rest.partition("/")
        named = [each for each in infos if each.variant == variant]
        chosen = named or [each for each in infos if each.default]
        if not chosen:
            raise FileNotFoundError(errno.ENOENT, f"{self.server} has no {ref} in its default variant", path)
        newest = Ref(chosen[0].name, chosen[0].version, chosen[0].variant)
        return self._listed(newest, path), deeper if named else rest

    def _of_name(self, name: str, path: str) -> list[DatasetInfo]:
        if name not in self._infos:
            with _told(path):
                self._infos[name] = _decoded(self._client.whole(paths.of_name(name), SECONDS))
        return self._infos[name]

    def _listed(self, ref: Ref, path: str) -> _Listed:
        if ref not in self._variants:
            with _told(path):
                data = self._client.whole(paths.of_record(ref), SECONDS)
                files = records.decode(data, f"{self.server}{paths.of_record(ref)}").files
            sizes = {each.path: each.bytes for each in files}
            places = {each.path: paths.of_blob(each.sha256, ref) for each in files}
            sizes |= {FILENAME: len(data), BLOCKS: blocks.size(files)}
            places |= {name: paths.of_file(ref, name) for name in (FILENAME, BLOCKS)}
            self._variants[ref] = _Listed(sizes, places)
        return self._variants[ref]


class _Open(AbstractBufferedFile):  # type: ignore[misc]
    """A file that is read by ranges."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return cast(ServedFileSystem, self.fs).range(self.path, start, min(end, self.size))


@contextmanager
def _told(path: str) -> Iterator[None]:
    """What a client raises, as fsspec's users expect it."""
    try:
        yield
    except TokenRefused as error:
        raise PermissionError(errno.EACCES, str(error), path) from error
    except DatahubError as error:
        if isinstance(error, HttpError) and error.status == 404:
            raise FileNotFoundError(errno.ENOENT, error.message, path) from error
        raise OSError(errno.EIO, str(error), path) from error


def _absent(error: OSError) -> None:
    """Raises what is no absence."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _decoded(data: bytes) -> list[DatasetInfo]:
    try:
        return msgspec.json.decode(data, type=Datasets).datasets
    except msgspec.DecodeError as error:
        raise OSError(errno.EIO, f"no cache server answers there: {error}") from error


def _folder(name: str) -> dict[str, Any]:
    return {"name": name, "size": 0, "type": "directory"}


def _file(name: str, size: int) -> dict[str, Any]:
    return {"name": name, "size": size, "type": "file"}
