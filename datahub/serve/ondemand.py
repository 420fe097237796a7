"""Datasets that nobody has packed yet, fetched and packed when they are asked for (``--allow-fetch``).

`datahub fetch` runs as a process of its own; those who ask meanwhile are told to come again. Its locks make one of
several servers do the work.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

from datahub.core.errors import BeingFetched, DatahubError, FetchFailed, UnknownDataset, UnknownVariant, UnknownVersion
from datahub.core.events import Listener, Note
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.registry import catalog
from datahub.store.find import default_variant

STAGE = "serve"
AGAIN = 60.0
"""Seconds for which a failure is told to whoever asks, before it is tried again."""


class OnDemand:
    """Called from threads."""

    def __init__(self, settings: Settings, listener: Listener) -> None:
        self._settings, self._listener = settings, listener
        self._lock = threading.Lock()
        self._running: dict[Ref, subprocess.Popen[str]] = {}
        self._failed: dict[Ref, tuple[float, str]] = {}

    def want(self, ref: Ref) -> None:
        """Have a dataset fetched that the registry knows. Raises `BeingFetched`, or `FetchFailed` for a while after
        it failed; returns where nobody knows it."""
        full = self._known(ref)
        if full is None:
            return
        with self._lock:
            when, reason = self._failed.get(full, (-AGAIN, ""))
            if time.monotonic() - when < AGAIN:
                raise FetchFailed(str(full), reason)
            if full not in self._running:
                self._start(full)
        raise BeingFetched(str(full))

    def close(self) -> None:
        """What was downloaded is kept, and taken up by the next run."""
        with self._lock:
            for process in self._running.values():
                process.terminate()

    def _known(self, ref: Ref) -> Ref | None:
        known = catalog(self._settings)
        try:
            version = ref.version or known.versions(ref.name)[-1]
            variant = ref.variant or default_variant(self._settings, Ref(ref.name, version))
            known.find(Ref(ref.name, version)).files_of(variant)
        except (UnknownDataset, UnknownVersion, UnknownVariant, IndexError):
            return None
        except DatahubError as error:
            raise FetchFailed(str(ref), error.message) from error
        return Ref(ref.name, version, variant)

    def _start(self, ref: Ref) -> None:
        command = [sys.executable, "-m", "datahub", "fetch", str(ref), "-y", "--json"]
        command += ["--home", str(self._settings.home)]
        command += ["--from", self._settings.from_] if self._settings.from_ else []
        command += ["--offline"] if self._settings.offline else []
        for path in self._settings.manifests:
            command += ["--manifest", str(path)]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "DATAHUB_SOURCE": ""},  # it would ask this server for what this server wants
        )  # fmt: skip
        self._running[ref] = process
        self._listener(Note(STAGE, f"{ref} is fetched, for somebody asked for it"))
        threading.Thread(target=self._wait, args=(ref, process), name="datahub-ondemand", daemon=True).start()

    def _wait(self, ref: Ref, process: subprocess.Popen[str]) -> None:
        _, errors = process.communicate()
        with self._lock:
            del self._running[ref]
            if process.returncode:
                self._failed[ref] = time.monotonic(), _message(errors)
        text = f"{ref} was not fetched: {_message(errors)}" if process.returncode else f"{ref} is here now"
        self._listener(Note(STAGE, text, warning=process.returncode != 0))


def _message(errors: str) -> str:
    """What the command said, without its own paths' next step."""
    try:
        return str(json.loads(errors.strip().splitlines()[-1])["message"])
    except (ValueError, KeyError, IndexError, TypeError):
        return errors.strip()[-200:] or "it was ended"
