"""What both of datahub's fsspec file systems refuse: whatever would change something."""

from __future__ import annotations

import errno
from typing import Any, NoReturn

from fsspec.spec import AbstractFileSystem


class ReadOnlyFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """``OSError`` EROFS where fsspec would say nothing, or that it is not implemented."""

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> NoReturn:  # noqa: ARG002 - fsspec's signature
        self._refuse(path)

    def makedirs(self, path: str, exist_ok: bool = False) -> NoReturn:  # noqa: ARG002 - fsspec's signature
        self._refuse(path)

    def rmdir(self, path: str) -> NoReturn:
        self._refuse(path)

    def rm_file(self, path: str) -> NoReturn:
        self._refuse(path)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> NoReturn:  # noqa: ARG002 - fsspec's signature
        self._refuse(path)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> NoReturn:  # noqa: ARG002 - fsspec's signature
        self._refuse(path2)

    def mv(self, path1: str, path2: str, *arguments: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG002 - fsspec's signature
        self._refuse(path1)

    def _refuse(self, path: Any) -> NoReturn:
        protocol = self.protocol if isinstance(self.protocol, str) else self.protocol[0]
        hint = "`datahub fetch`, `datahub pack` and `datahub rm` change what there is"
        raise OSError(errno.EROFS, f"{protocol}:// is read-only; {hint}", path if isinstance(path, str) else str(path))
