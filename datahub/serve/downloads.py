"""Published files and model weights by name: ``/v1/files``. Fetched whole, verified, then served like any other blob.

What is served is what a manifest describes, or weights whose names carry their digest; never whatever lies in the
folder. Block digests are computed with the first verification and kept, so that later ones are by the block.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from datahub.acquire import planning, weights
from datahub.acquire.files import Verified, verify
from datahub.acquire.running import run
from datahub.core import atomic
from datahub.core.errors import DatahubError, DigestMismatch, UnknownDataset, UnknownVersion
from datahub.core.events import Listener
from datahub.core.refs import NAME, VERSION, Ref
from datahub.core.settings import Settings
from datahub.registry import catalog
from datahub.registry.schema import File, Manifest
from datahub.serve.library import Blob
from datahub.store import blocks
from datahub.store.blocks import WIDTH, count

WEIGHTS = "weights"
WEIGHTS_AT = "https://download.pytorch.org/models"
"""Where torchvision publishes."""


class Downloads:
    """``fetching``: whether what is missing is downloaded. ``folder`` keeps block digests. Called from threads."""

    def __init__(self, settings: Settings, folder: Path, listener: Listener, *, fetching: bool) -> None:
        self._settings = replace(settings, source=None)  # a server asks no server for what it is asked for
        self._folder, self._listener, self._fetching = folder, listener, fetching

    def find(self, dataset: str, version: str | None, name: str) -> Blob | None:
        """The file, verified; None where nobody knows it, or it is not here and may not be fetched.

        Raises `VerificationError`s, `OriginError`s, `ManualFiles`, and `DiskError`s.
        """
        found = self._weights(name) if dataset == WEIGHTS else self._published(dataset, version, name)
        return None if found is None else self._blob(found, f"{dataset}/{name}")

    def _weights(self, name: str) -> Verified | None:
        if not weights.NAME.fullmatch(name):
            return None
        path = self._settings.downloads / weights.FOLDER / name
        if path.is_file():
            file = weights.WeightsFile(filename=name, role="weights", mirrors=[])
            return verify(file, path, self._settings, self._listener)
        if not self._fetching:
            return None
        return weights.fetch_weights(f"{WEIGHTS_AT}/{name}", self._settings, listener=self._listener)

    def _published(self, dataset: str, version: str | None, name: str) -> Verified | None:
        if not NAME.fullmatch(dataset) or (version is not None and not VERSION.fullmatch(version)):
            return None
        try:
            manifest = catalog(self._settings).find(Ref(dataset, version))
        except (UnknownDataset, UnknownVersion):
            return None
        file = next((each for each in manifest.files if each.filename == name), None)
        return None if file is None else self._verified(manifest, file)

    def _verified(self, manifest: Manifest, file: File) -> Verified | None:
        path = self._settings.downloads / manifest.name / manifest.version / file.filename
        if path.is_file():
            return verify(file, path, self._settings, self._listener)
        if not self._fetching or manifest.access.consent:
            return None
        whole = planning.plan(manifest, self._settings)
        items = tuple(item for item in whole.items if item.file.filename == file.filename)
        return run(replace(whole, items=items), self._settings, listener=self._listener)[0]

    def _blob(self, found: Verified, name: str) -> Blob:
        size, kept = found.path.stat().st_size, self._folder / found.sha256
        with suppress(OSError):
            raw = kept.read_bytes()
            if len(raw) == WIDTH * count(size):
                return Blob(found.sha256, size, raw, name, found.path.name, found.path)
        digests = blocks.of_file(found.path)
        if digests.sha256 != found.sha256:
            raise DigestMismatch(name, f"sha256:{found.sha256}", f"sha256:{digests.sha256}")
        with suppress(DatahubError):  # computed again next time
            atomic.write_bytes(kept, digests.raw)
        return Blob(found.sha256, size, digests.raw, name, found.path.name, found.path)
