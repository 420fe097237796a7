"""Running a `Plan`: every file verified, downloaded first where it is missing, several at once."""

from __future__ import annotations

import queue
import threading
from functools import partial as partial_call
from hashlib import sha256

from datahub.acquire import partial
from datahub.acquire.files import Verified, accept, verify, vouched
from datahub.acquire.planning import Item, Plan
from datahub.acquire.policy import RetryPolicy
from datahub.core import atomic
from datahub.core.digests import Digest
from datahub.core.errors import (
    AllMirrorsFailed,
    DatahubError,
    DigestMismatch,
    DiskFull,
    HttpError,
    MissingAtOrigin,
    Offline,
    OriginError,
    SizeMismatch,
    TokenRefused,
    VerificationError,
    from_oserror,
)
from datahub.core.events import Listener, Note, Progress, ignore
from datahub.core.locks import FileLock
from datahub.core.settings import Settings

FILES = 4
"""Files that are downloaded at once."""
CONNECTIONS = 8
"""Connections for one large file."""


def run(
    plan: Plan,
    settings: Settings,
    *,
    listener: Listener = ignore,
    jobs: int | None = None,
    policy: RetryPolicy | None = None,
) -> tuple[Verified, ...]:
    """Verify every file of ``plan``, downloading what is missing. ``jobs``: connections for one file.

    A file that a receipt vouches for costs a stat. Raises the first file's error; what was verified stays verified,
    what was received of the others is kept and taken up next time.
    """
    if plan.disk_needed > plan.disk_free:
        raise DiskFull(str(plan.folder), plan.disk_needed, plan.disk_free)
    known = [vouched(item.file, item.path, settings) for item in plan.items]
    if all(known):
        return tuple(each for each in known if each)
    run_ = _Run(plan, settings, listener, jobs or CONNECTIONS, policy or RetryPolicy())
    return run_.all(plan.items)


class _Run:
    def __init__(
        self, plan: Plan, settings: Settings, listener: Listener, connections: int, policy: RetryPolicy
    ) -> None:  # fmt: skip
        self.plan = plan
        self.settings, self.listener, self.connections, self.policy = settings, listener, connections, policy
        self.stop = threading.Event()
        from datahub.acquire.served import Servers  # imports urllib3

        self.servers = Servers(settings)

    def all(self, items: tuple[Item, ...]) -> tuple[Verified, ...]:
        """Each item in a daemon thread of a few, so that Ctrl-C never waits for a server."""
        todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(len(items)):
            todo.put(index)
        done: dict[int, Verified] = {}
        errors: dict[int, BaseException] = {}
        work = partial_call(self._work, items, todo, done, errors)
        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(FILES, len(items)))]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)
        finally:
            self.stop.set()
        if errors:
            raise errors[min(errors)]
        return tuple(done[index] for index in range(len(items)))

    def _work(
        self,
        items: tuple[Item, ...],
        todo: queue.SimpleQueue[int],
        done: dict[int, Verified],
        errors: dict[int, BaseException],
    ) -> None:
        from datahub.acquire.downloading import Cancelled

        while not self.stop.is_set():
            try:
                index = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done[index] = self.one(items[index])
            except Cancelled:
                return
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
                errors[index] = error
                self.stop.set()

    def one(self, item: Item) -> Verified:
        if item.state in ("verified", "present"):
            if found := self._here(item):
                return found
        elif item.looked:
            raise MissingAtOrigin(str(self.settings.from_), item.file.filename, item.looked)
        if self.settings.offline and not all(each.startswith(("file:", "memory:")) for each in item.sources):
            raise Offline(f"{item.file.filename}, which is not here,")
        name = sha256(str(item.path.absolute()).encode()).hexdigest()[:32]

        def waiting(owner: str) -> None:
            self.listener(
                Note("download", f"waiting for {owner}, which is downloading {item.file.filename}", warning=True)
            )

        with FileLock(self.settings.locks / f"download-{name}.lock", on_wait=waiting):
            if item.path.is_file() and (found := self._here(item)):
                return found
            return self._from_mirrors(item)

    def _here(self, item: Item) -> Verified | None:
        """The file that stands there, if it is right; a wrong download is put away and downloaded again."""
        try:
            return verify(item.file, item.path, self.settings, self.listener)
        except (SizeMismatch, DigestMismatch) as error:
            if item.in_place or not item.sources:
                raise
            self.listener(Note("verify", f"{error.message}; it is downloaded again", warning=True))
            atomic.discard(item.path, self.settings.trash)
            return None

    def _from_mirrors(self, item: Item) -> Verified:
        failures: list[DatahubError] = []
        for url in self.servers.places(self.plan.name, self.plan.version, item.file.filename):
            try:
                return self._from(url, item)
            except (OriginError, VerificationError, TokenRefused) as error:
                failures.append(error)
                warning = not isinstance(error, HttpError)  # a server that has not this file is nothing to worry about
                self.listener(Note("download", f"{error.message}; going on without it", warning=warning))
        for url in item.sources:
            try:
                return self._from(url, item)
            except (OriginError, VerificationError) as error:
                failures.append(error)
                if url != item.sources[-1]:
                    self.listener(Note("download", f"{error.message}; trying the next mirror", warning=True))
        if len(failures) == 1:
            raise failures[0]
        raise AllMirrorsFailed(item.file.filename, failures)

    def _from(self, url: str, item: Item) -> Verified:
        from datahub.acquire.downloading import Download
        from datahub.acquire.origins import open_origin

        origin = self.servers.origin(url, self.connections) or open_origin(url, self.connections)
        try:
            download = Download(
                item.file,
                item.path,
                origin,
                policy=self.policy,
                connections=self.connections,
                listener=self.listener,
                stop=self.stop,
            )
            found = download.run()
        finally:
            origin.close()
        return self._publish(item, url, found)

    def _publish(self, item: Item, url: str, found: tuple[Digest, ...]) -> Verified:
        """Check size and digests of the complete ``.part``, and only then give it its name."""
        part = partial.part_of(item.path)
        size = part.stat().st_size
        try:
            if item.file.bytes is not None and size != item.file.bytes:
                raise SizeMismatch(url, item.file.bytes, size)
            _check(url, item, found)
        except VerificationError:
            partial.discard(item.path)
            raise
        try:
            part.replace(item.path)
            partial.state_of(item.path).unlink(missing_ok=True)
            atomic.fsync_dir(item.path.parent)
        except OSError as error:
            raise from_oserror(error, item.path, writing=True) from error
        self.listener(Progress("verify", item.file.filename, size, size))
        return accept(item.file, item.path, found, self.settings, self.listener)


def _check(url: str, item: Item, found: tuple[Digest, ...]) -> None:
    actual = {each.algorithm: each for each in found}
    for want in item.file.digests():
        if not want.fits(actual[want.algorithm]):
            raise DigestMismatch(url, str(want), str(actual[want.algorithm]))
