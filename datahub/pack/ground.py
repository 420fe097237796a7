"""Where a variant is built: a folder that is renamed into place, or a URL that shards are written straight to.

Names are ``out/<file>`` for what the variant will hold and ``work/<file>`` for what only the packer needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from datahub.core import atomic
from datahub.core.errors import BadArgument, ConnectionLost, DatahubError, HttpError, MissingExtra, from_oserror

IOV_MAX = 512
"""Pieces of one writev; the kernel takes 1024."""
WRITEBACK = 32 << 20
"""Bytes after which the kernel is asked to start writing, so that the final fsync finds little left."""


class Sink(Protocol):
    """One file being written from its start."""

    def write(self, parts: list[bytes]) -> None: ...

    def finish(self) -> None:
        """Make it durable; only now need it be seen."""
        ...

    def abandon(self) -> None:
        """Stop; what was written is not to be used."""
        ...


class Ground(Protocol):
    """Pickles small. Raises datahub's errors."""

    def sink(self, name: str) -> Sink: ...

    def get(self, name: str) -> bytes | None:
        """The content, None where there is none."""
        ...

    def size(self, name: str) -> int | None: ...


def put(ground: Ground, name: str, data: bytes) -> None:
    """Write a whole small file."""
    if isinstance(ground, Folder):  # through a temporary file: a torn one must never be taken for whole
        atomic.write_bytes(ground.path / name, data)
        return
    sink = ground.sink(name)
    try:
        sink.write([data])
    except BaseException:
        sink.abandon()
        raise
    sink.finish()


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of this machine or of a file system it shares."""

    path: Path

    def sink(self, name: str) -> FileSink:
        atomic.make_dir((self.path / name).parent)
        return FileSink(self.path / name)

    def get(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise from_oserror(error, self.path / name, writing=False) from error

    def size(self, name: str) -> int | None:
        try:
            return (self.path / name).stat().st_size
        except OSError:
            return None


class FileSink:
    def __init__(self, path: Path) -> None:
        self._path = path
        with self._translated():
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._written = self._asked = 0

    def write(self, parts: list[bytes]) -> None:
        with self._translated():
            for first in range(0, len(parts), IOV_MAX):
                some = parts[first : first + IOV_MAX]
                size = sum(map(len, some))
                count = os.writev(self._descriptor, some)
                if count < size:
                    rest = memoryview(b"".join(some))[count:]
                    while rest:
                        rest = rest[os.write(self._descriptor, rest) :]
                self._written += size
            if self._written - self._asked >= WRITEBACK:
                # DONTNEED on dirty pages starts their write-back without waiting; clean ones before them may go.
                os.posix_fadvise(self._descriptor, self._asked, self._written - self._asked, os.POSIX_FADV_DONTNEED)
                self._asked = self._written

    def finish(self) -> None:
        try:
            with self._translated():
                os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)

    def abandon(self) -> None:
        os.close(self._descriptor)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise from_oserror(error, self._path, writing=True) from error


@dataclass(frozen=True, slots=True)
class Bucket:
    """A URL that fsspec can write to (``s3://bucket/prefix``, ``gs://``, ``memory://``): the variant's own folder.

    An object store shows a file only when it is whole, so shards are written where they stay.
    """

    url: str
    work: str
    """Name of the folder below ``url`` for what only the packer needs."""

    def sink(self, name: str) -> BucketSink:
        return BucketSink(self.path_of(name))

    def get(self, name: str) -> bytes | None:
        url = self.path_of(name)
        with translated(url):
            fs, path = open_fs(url)
            try:
                data: bytes = fs.cat_file(path)
            except FileNotFoundError:
                return None
            return data

    def size(self, name: str) -> int | None:
        url = self.path_of(name)
        with translated(url):
            fs, path = open_fs(url)
            fs.invalidate_cache()  # another process may have written it
            try:
                return int(fs.size(path))
            except FileNotFoundError:
                return None

    def path_of(self, name: str) -> str:
        kind, _, rest = name.partition("/")
        return f"{self.url}/{rest}" if kind == "out" else f"{self.url}/{self.work}/{rest}"

    def clear(self) -> None:
        """Remove what only the packer needed."""
        url = f"{self.url}/{self.work}"
        with translated(url):
            fs, path = open_fs(url)
            with suppress(FileNotFoundError):
                fs.rm(path, recursive=True)

    def remove(self, name: str) -> None:
        url = self.path_of(name)
        with translated(url):
            fs, path = open_fs(url)
            with suppress(FileNotFoundError):
                fs.rm_file(path)


class BucketSink:
    def __init__(self, url: str) -> None:
        self._url = url
        with translated(url):
            fs, path = open_fs(url)
            with suppress(NotImplementedError):
                fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._file: Any = fs.open(path, "wb")

    def write(self, parts: list[bytes]) -> None:
        with translated(self._url):
            self._file.write(b"".join(parts))

    def finish(self) -> None:
        with translated(self._url):
            self._file.close()

    def abandon(self) -> None:
        discard = getattr(self._file, "discard", None)
        # Closing would upload the half that was written: object stores are told to forget it instead.
        with suppress(Exception):
            if discard is not None:
                discard()
        self._file.closed = True


def open_fs(url: str) -> tuple[Any, str]:
    """(fsspec file system, path in it). Raises `BadArgument` for a scheme that is not known, `MissingExtra`."""
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        scheme = url.partition("://")[0]
        raise MissingExtra({"gs": "gcs"}.get(scheme, scheme), f"writing to {scheme}://") from error
    except ValueError as error:
        raise BadArgument("to", url, str(error), "give a URL that fsspec writes to, like s3://bucket/prefix") from error
    return fs, path


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Whatever a remote file system raises, as a datahub error."""
    try:
        yield
    except DatahubError:
        raise
    except PermissionError as error:
        raise HttpError(url, 403, str(error) or "permission denied") from error
    except FileNotFoundError as error:  # also what fsspec's HTTP makes of a host that does not answer
        raise ConnectionLost(url, str(error.__cause__ or "there is no such file")) from error
    except (OSError, RuntimeError, ValueError, TimeoutError) as error:
        raise ConnectionLost(url, str(error) or type(error).__name__) from error
    except Exception as error:
        # s3fs and gcsfs let their clients' own exceptions through, which share no base class.
        raise ConnectionLost(url, f"{type(error).__name__}: {error}") from error
