"""Files at any fsspec URL: s3, gs, hf, ftp, memory, ..."""

from __future__ import annotations

from collections.abc import Iterator

import fsspec

from datahub.acquire.origins import READ, Stream
from datahub.core.errors import ConnectionLost, HttpError


def known(scheme: str) -> bool:
    return scheme in fsspec.available_protocols()


class FsspecOrigin:
    """One file of an fsspec file system, read by ranges."""

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._system, self._path = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError, OSError) as error:
            raise ConnectionLost(url, str(error)) from error

    def open(self, start: int, end: int, tag: str | None) -> Stream:
        try:
            facts = self._system.info(self._path)
        except FileNotFoundError as error:
            raise HttpError(self.url, 404, "not found") from error
        except PermissionError as error:
            raise HttpError(self.url, 403, "forbidden") from error
        except Exception as error:
            raise ConnectionLost(self.url, f"{type(error).__name__}: {error}") from error
        size = facts.get("size")
        now = next((str(facts[key]) for key in ("ETag", "etag", "mtime", "created") if facts.get(key)), None)
        same = tag is None or tag == now
        first, last = (start, end) if same else (0, int(size or 0))
        return Stream(self.url, first, size, now, same, self._chunks(first, min(last, int(size or last))))

    def _chunks(self, start: int, end: int) -> Iterator[bytes]:
        try:
            for at in range(start, end, READ * 4):
                yield self._system.cat_file(self._path, start=at, end=min(at + READ * 4, end))
        except Exception as error:
            raise ConnectionLost(self.url, f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """fsspec keeps its own pools."""
