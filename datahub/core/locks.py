"""Locks between processes and machines that do not need flock.

A lock is a file created with O_EXCL and touched by a heartbeat. A lock is stale when its owner ran on this boot of this
machine and is gone, or when its heartbeat is older than ``stale_after`` by the file server's own clock (the age is the
difference of two server-set mtimes, so a client whose clock is a day off judges rightly).
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from datahub.core.atomic import make_dir
from datahub.core.errors import LockTimeout, from_oserror
from datahub.core.processes import machine, started

BREAKING = 10.0
"""Seconds after which whoever began to break a lock is taken to be gone; it takes a few system calls."""


class FileLock:
    """``with FileLock(path): ...`` - one holder however many processes and machines ask.

    Waits up to ``timeout`` seconds (None: for ever), then raises `LockTimeout`. ``on_wait`` is called once, with the
    owner's description, when waiting begins.
    """

    def __init__(
        self,
        path: Path,
        *,
        timeout: float | None = None,
        heartbeat: float = 5.0,
        stale_after: float = 60.0,
        poll: float = 0.1,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self.path = path
        self._timeout, self._heartbeat, self._stale_after, self._poll = timeout, heartbeat, stale_after, poll
        self._on_wait = on_wait
        self._token = secrets.token_hex(8)
        self._stop = threading.Event()
        self._beat: threading.Thread | None = None

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        make_dir(self.path.parent)
        began = time.monotonic()
        told = False
        while not self.try_acquire():
            owner = self._owner()
            if self._stale(owner):
                self._break(owner)
                continue
            if not told and self._on_wait:
                self._on_wait(describe(owner))
                told = True
            waited = time.monotonic() - began
            if self._timeout is not None and waited >= self._timeout:
                raise LockTimeout(str(self.path), describe(owner), waited)
            time.sleep(self._poll)
        self._stop.clear()
        self._beat = threading.Thread(target=self._keep_alive, name=f"lock {self.path.name}", daemon=True)
        self._beat.start()

    def release(self) -> None:
        self._stop.set()
        if self._beat is not None:
            self._beat.join()
            self._beat = None
        if self._owner().get("token") == self._token:
            with suppress(FileNotFoundError):
                self.path.unlink()

    def try_acquire(self) -> bool:
        """Take the lock if nobody holds it, without waiting and without a heartbeat."""
        me = {"token": self._token, "pid": os.getpid(), "started": started(os.getpid()), "machine": machine()}
        # The content must be there the moment the name is, so the file is written first and linked into place.
        draft = self.path.with_name(f"{self.path.name}.{self._token}")
        try:
            draft.write_text(json.dumps(me))
            try:
                os.link(draft, self.path)
            except FileExistsError:
                return False
            except OSError:  # no hard links here: O_EXCL is as good, a reader may see an empty owner for an instant
                return self._try_exclusive(json.dumps(me))
            return True
        except OSError as error:
            raise from_oserror(error, self.path, writing=True) from error
        finally:
            with suppress(OSError):
                draft.unlink()

    def held(self) -> bool:
        """Whether a live holder has the lock at this moment; takes nothing and breaks nothing."""
        return self.path.exists() and not self._stale(self._owner())

    def _try_exclusive(self, content: str) -> bool:
        try:
            with self.path.open("x") as handle:
                handle.write(content)
        except FileExistsError:
            return False
        return True

    def _owner(self) -> dict[str, Any]:
        try:
            owner = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return owner if isinstance(owner, dict) else {}

    def _stale(self, owner: dict[str, Any]) -> bool:
        if owner and owner.get("machine") == machine():
            return started(int(owner.get("pid", 0))) != owner.get("started")
        age = self._age()
        return age is not None and age > self._stale_after

    def _age(self, path: Path | None = None) -> float | None:
        """Seconds since the holder's last heartbeat, by the file server's clock; None if the lock is gone."""
        probe = self.path.with_name(f"{self.path.name}.{self._token}.clock")
        try:
            probe.touch()
            return probe.stat().st_mtime - (path or self.path).stat().st_mtime
        except FileNotFoundError:
            return None
        except OSError as error:
            raise from_oserror(error, self.path, writing=True) from error
        finally:
            with suppress(OSError):
                probe.unlink()

    def _break(self, stale: dict[str, Any]) -> None:
        """Take the stale lock away, one breaker at a time: with two, one could move the lock that the other has taken
        since, and a third take it meanwhile. A lock that is another's by now is put back."""
        guard = self.path.with_name(f"{self.path.name}.breaking")
        try:
            os.close(os.open(guard, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        except FileExistsError:
            self._await_breaker(guard)
            return
        except OSError as error:
            raise from_oserror(error, self.path, writing=True) from error
        try:
            if self._owner() == stale:
                self._move_away(stale)
        finally:
            with suppress(OSError):
                guard.unlink()

    def _await_breaker(self, guard: Path) -> None:
        """Somebody else breaks the lock now; one that was killed over it is cleared away."""
        age = self._age(guard)
        if age is not None and age > BREAKING:
            with suppress(OSError):
                guard.unlink()
        time.sleep(self._poll)

    def _move_away(self, stale: dict[str, Any]) -> None:
        moved = self.path.with_name(f"{self.path.name}.{self._token}.stale")
        with suppress(FileNotFoundError):
            self.path.rename(moved)
            try:
                found = json.loads(moved.read_text())
            except ValueError:
                found = {}
            if found != stale:
                with suppress(OSError):
                    os.link(moved, self.path)
            moved.unlink()

    def _keep_alive(self) -> None:
        while not self._stop.wait(self._heartbeat):
            with suppress(OSError):
                os.utime(self.path)


def describe(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    return f"process {owner.get('pid')} on {str(owner.get('machine', '')).partition('/')[0]}"
