"""Records and block digests that came from origins, kept on disk: what the cached blocks are blocks of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from datahub.core import atomic
from datahub.core.errors import DatahubError
from datahub.core.events import Listener, Note
from datahub.core.refs import Ref
from datahub.core.urls import shown
from datahub.serve.origins import Found, Origin
from datahub.store.paths import variant_dir
from datahub.store.record import BLOCKS, FILENAME

PLACE = "place.json"
NEWS = ".news"


class Shelf:
    """``folder/NAME/VERSION/VARIANT``. A disk that cannot be written costs only what a restart would have known."""

    def __init__(self, folder: Path, listener: Listener) -> None:
        self._folder, self._listener, self._told = folder, listener, False

    def keep(self, found: Found) -> None:
        folder = self._at(found.ref)
        try:
            # The record goes first: block digests of another one would not fit it, and are refused.
            place = json.dumps({"origin": shown(found.origin), "place": shown(found.files.url)}).encode()
            for name, data in ((FILENAME, found.data), (BLOCKS, found.raws), (PLACE, place)):
                atomic.write_bytes(folder / name, data)
        except DatahubError as error:
            if not self._told:
                self._told = True
                self._listener(Note("serve", f"{error.message}; origins are asked again after a restart", warning=True))

    def tell(self) -> None:
        """Say to the server's other processes that one of them knows something new."""
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / NEWS).touch()

    def told(self) -> int:
        """What changes when some process has said so."""
        try:
            return (self._folder / NEWS).stat().st_mtime_ns
        except OSError:
            return 0

    def forget(self, ref: Ref) -> None:
        shutil.rmtree(self._at(ref), ignore_errors=True)

    def all(self, origins: Sequence[Origin]) -> Iterator[Found]:
        """What is kept of the origins that there are now."""
        for path in sorted(self._folder.glob(f"*/*/*/{PLACE}")):
            ref = Ref(path.parent.parent.parent.name, path.parent.parent.name, path.parent.name)
            with suppress(OSError, ValueError, KeyError, TypeError, DatahubError):
                place = json.loads(path.read_text())
                if "place" not in place:  # of a version that wrote passwords down
                    path.unlink()
                    continue
                for origin in origins:
                    if shown(origin.url) == place["origin"]:
                        data, raws = ((path.parent / name).read_bytes() for name in (FILENAME, BLOCKS))
                        yield Found(ref, origin.files_at(place["place"]), data, raws, origin.url)

    def _at(self, ref: Ref) -> Path:
        return variant_dir(self._folder, ref.name, str(ref.version), str(ref.variant))
