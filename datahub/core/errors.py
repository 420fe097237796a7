"""The one error tree.

Every leaf carries its facts as attributes, says in one line what is wrong and what to do next, knows whether trying
again can help (``retryable``), and which exit code the command line gives it.

    DatahubError                    1
    ├── UsageError                  2
    │   ├── BadReference, BadArgument, NotYetSupported
    │   ├── UnknownDataset, UnknownVersion, UnknownVariant, UnknownSplit
    │   ├── ManifestInvalid
    │   └── StateMismatch
    ├── VerificationError           3
    │   ├── DigestMismatch, SizeMismatch, NotTheFile
    │   ├── LayoutError, UnsafeArchive, UnsafePickle
    │   ├── RecordInvalid, StoreDamaged (ShardCut)
    │   └── DamagedImage, DamagedSample
    ├── OriginError                 4
    │   ├── HttpError, ConnectionLost, OriginStalled, OriginChanged
    │   ├── MissingAtOrigin, AllMirrorsFailed
    │   ├── LockTimeout, ExecutorUnreachable
    │   └── BeingFetched, FetchFailed
    ├── DiskError                   5
    │   └── DiskFull, NotWritable, NotReadable
    ├── ActionNeeded                6
    │   └── ManualFiles, ConsentNeeded, AlreadyPacked, MissingTool, MissingExtra,
    │       MissingLibrary, DeviceOutOfMemory, TokenRefused, LeaseRefused
    ├── NotInStore, NotServed,
    │   Offline                     7
    └── WorkerDied                  4, or 1 where a worker crashed
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple


class DatahubError(Exception):
    """Base of everything datahub raises on purpose."""

    exit_code = 1
    retryable = False

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.message}; {self.next_step}" if self.next_step else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Leaves take their facts, not a message: the default would rebuild a worker's error with wrong arguments.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[DatahubError], args: tuple[Any, ...], facts: dict[str, Any]) -> DatahubError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(facts)
    return error


# -- 2: the caller asked for something that cannot be ---------------------------------------------------------------


class UsageError(DatahubError):
    exit_code = 2


class BadReference(UsageError):
    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"{text!r} is not a dataset reference: {reason}", "write NAME[@VERSION][/VARIANT]")
        self.text, self.reason = text, reason


class BadArgument(UsageError):
    def __init__(self, name: str, value: object, reason: str, next_step: str = "") -> None:
        super().__init__(f"{name}={value!r}: {reason}", next_step)
        self.name, self.value, self.reason = name, value, reason


class NotYetSupported(UsageError):
    """A documented argument whose feature has not landed: refused, never ignored."""

    def __init__(self, name: str, value: object, instead: str = "leave it at its default") -> None:
        super().__init__(f"{name}={value!r} is not supported by this version", instead)
        self.name, self.value = name, value


class UnknownDataset(UsageError):
    def __init__(self, name: str, nearest: Sequence[str] = ()) -> None:
        hint = f"did you mean {' or '.join(nearest)}?" if nearest else "see `datahub list`"
        super().__init__(f"no dataset is called {name!r}", hint)
        self.name, self.nearest = name, tuple(nearest)


class UnknownVersion(UsageError):
    def __init__(self, name: str, version: str, known: Sequence[str]) -> None:
        super().__init__(f"{name} has no version {version!r}", f"known: {', '.join(known) or 'none'}")
        self.name, self.version, self.known = name, version, tuple(known)


class UnknownVariant(UsageError):
    def __init__(self, name: str, variant: str, known: Sequence[str]) -> None:
        super().__init__(f"{name} has no variant {variant!r}", f"known: {', '.join(known) or 'none'}")
        self.name, self.variant, self.known = name, variant, tuple(known)


class UnknownSplit(UsageError):
    def __init__(self, ref: str, split: str, known: Sequence[str]) -> None:
        super().__init__(f"{ref} has no split {split!r}", f"it has {', '.join(known)}")
        self.ref, self.split, self.known = ref, split, tuple(known)


class Problem(NamedTuple):
    """One thing wrong with a file: a dotted place such as ``files[2].sha256`` and what is wrong there."""

    place: str
    message: str


class ManifestInvalid(UsageError):
    def __init__(self, path: str, problems: Iterable[Problem]) -> None:
        self.path, self.problems = path, tuple(problems)
        count = len(self.problems)
        listed = "; ".join(f"{p.place}: {p.message}" for p in self.problems)
        super().__init__(f"{path} has {count} problem{'s' if count != 1 else ''}: {listed}")


class StateMismatch(UsageError):
    """A loader state that belongs to another run; ``changed`` names what differs."""

    def __init__(
        self, changed: Sequence[str], next_step: str = "restore it into a loader with the same settings"
    ) -> None:
        super().__init__(f"the state does not fit this loader: {'; '.join(changed)}", next_step)
        self.changed = tuple(changed)


# -- 3: bytes are not what they should be ---------------------------------------------------------------------------


class VerificationError(DatahubError):
    exit_code = 3


class DigestMismatch(VerificationError):
    def __init__(
        self, path: str, expected: str, actual: str, next_step: str = "fetch it again, or from another mirror"
    ) -> None:
        super().__init__(f"{path}: digest is {actual}, expected {expected}", next_step)
        self.path, self.expected, self.actual = path, expected, actual


class SizeMismatch(VerificationError):
    def __init__(
        self, path: str, expected: int, actual: int, next_step: str = "fetch it again, or from another mirror"
    ) -> None:
        kind = "truncated" if actual < expected else "too long"
        super().__init__(f"{path}: {kind}, {actual} bytes instead of {expected}", next_step)
        self.path, self.expected, self.actual = path, expected, actual


class NotTheFile(VerificationError):
    """A page or message came in place of the file (quota pages, logins, captive portals)."""

    def __init__(self, url: str, what: str) -> None:
        super().__init__(
            f"{url}: {what} came in place of the file", "try another mirror, or download it by hand and use --from DIR"
        )
        self.url, self.what = url, what


class LayoutError(VerificationError):
    """A published file does not have the form its layout promises."""

    def __init__(
        self,
        path: str,
        place: str,
        reason: str,
        next_step: str = "check the file, and that it is in the layout it is read as",
    ) -> None:
        super().__init__(f"{path}: {place}: {reason}" if place else f"{path}: {reason}", next_step)
        self.path, self.place, self.reason = path, place, reason


class UnsafeArchive(VerificationError):
    def __init__(self, path: str, member: str, reason: str) -> None:
        super().__init__(f"{path}: member {member!r} {reason}", "the archive is refused; nothing was extracted")
        self.path, self.member, self.reason = path, member, reason


class UnsafePickle(VerificationError):
    def __init__(self, path: str, name: str) -> None:
        super().__init__(
            f"{path}: the pickle asks for {name}, which is not allowed", "the file is refused; nothing in it was run"
        )
        self.path, self.name = path, name


class RecordInvalid(VerificationError):
    def __init__(self, path: str, reason: str, next_step: str = "pack it again with --replace") -> None:
        super().__init__(f"{path}: {reason}", next_step)
        self.path, self.reason = path, reason


class StoreDamaged(VerificationError):
    """Files of a packed variant are missing or changed; ``problems`` lists every one."""

    def __init__(self, ref: str, problems: Iterable[Problem], next_step: str = "") -> None:
        self.ref, self.problems = ref, tuple(problems)
        listed = "; ".join(f"{p.place}: {p.message}" for p in self.problems)
        super().__init__(f"{ref} is damaged: {listed}", next_step or f"run `datahub fetch {ref} --replace`")


class ShardCut(StoreDamaged):
    """A shard that is there but ends before a sample does."""


class DamagedImage(VerificationError):
    """Bytes that do not decode; whoever knows which sample they are raises `DamagedSample` from it."""

    def __init__(self, cause: str, position: int | None = None) -> None:
        where = "" if position is None else f" {position} of the batch"
        super().__init__(f"image{where}: {cause}", "run `datahub verify --deep`, or fetch it again")
        self.cause, self.position = cause, position


class DamagedSample(VerificationError):
    def __init__(self, shard: str, key: str, offset: int, cause: str) -> None:
        super().__init__(
            f"{shard}: sample {key} at byte {offset}: {cause}", "run `datahub verify --deep`, or fetch it again"
        )
        self.shard, self.key, self.offset, self.cause = shard, key, offset, cause


# -- 4: network and origins -----------------------------------------------------------------------------------------


class OriginError(DatahubError):
    exit_code = 4
    retryable = True


class HttpError(OriginError):
    def __init__(self, url: str, status: int, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(f"{url}: HTTP {status}{' ' + reason if reason else ''}")
        self.url, self.status, self.retry_after = url, status, retry_after
        self.retryable = status in (408, 425, 429) or status >= 500


class ConnectionLost(OriginError):
    def __init__(self, url: str, cause: str) -> None:
        super().__init__(f"{url}: {cause}")
        self.url, self.cause = url, cause


class OriginStalled(OriginError):
    """An origin that answers too slowly, or not at all, within the time its caller gave it."""

    def __init__(self, url: str, seconds: float, cause: str = "") -> None:
        why = f" ({cause})" if cause else ""
        super().__init__(
            f"{url}: did not give what was asked for within {seconds:.3g} s{why}",
            "check the origin and the network, or raise timeout=",
        )
        self.url, self.seconds, self.cause = url, seconds, cause


class OriginChanged(OriginError):
    def __init__(self, url: str, before: str, after: str) -> None:
        super().__init__(
            f"{url}: the file changed while it was downloaded ({before} became {after})", "run the command again"
        )
        self.url, self.before, self.after = url, before, after


class MissingAtOrigin(OriginError):
    retryable = False

    def __init__(self, origin: str, filename: str, looked: Sequence[str] = ()) -> None:
        where = f" (looked at {', '.join(looked)})" if looked else ""
        super().__init__(
            f"{filename} is not at {origin}{where}", "check --from, or leave it out to use the published mirrors"
        )
        self.origin, self.filename, self.looked = origin, filename, tuple(looked)
        self.retryable = False


class AllMirrorsFailed(OriginError):
    def __init__(self, filename: str, failures: Sequence[DatahubError]) -> None:
        listed = "; ".join(f.message for f in failures) or "no mirror is known"
        super().__init__(f"{filename}: no mirror worked: {listed}", "try again later, or give --from DIR|URL")
        self.filename, self.failures = filename, tuple(failures)
        self.retryable = any(f.retryable for f in failures)
        if failures and all(isinstance(f, VerificationError) for f in failures):
            self.exit_code = VerificationError.exit_code


class ExecutorUnreachable(OriginError):
    def __init__(self, address: str, cause: str) -> None:
        super().__init__(f"{address} does not answer: {cause}", "check the address and that the scheduler is running")
        self.address, self.cause = address, cause


class LockTimeout(OriginError):
    def __init__(self, path: str, owner: str, waited: float) -> None:
        super().__init__(
            f"waited {waited:.0f} s for {path}, held by {owner}",
            "let it finish, or remove the file if that process is gone",
        )
        self.path, self.owner, self.waited = path, owner, waited


class BeingFetched(OriginError):
    """A cache server fetches and packs a dataset that was asked for."""

    def __init__(self, ref: str) -> None:
        super().__init__(f"{ref} is being fetched and packed", "ask again in a while")
        self.ref = ref


class FetchFailed(OriginError):
    retryable = False

    def __init__(self, ref: str, reason: str) -> None:
        super().__init__(f"{ref} could not be fetched: {reason}", f"run `datahub fetch {ref}` where the server is")
        self.ref, self.reason = ref, reason


# -- 5: this disk ---------------------------------------------------------------------------------------------------


class DiskError(DatahubError):
    exit_code = 5
    path: str


class DiskFull(DiskError):
    def __init__(self, path: str, needed: int | None = None, free: int | None = None) -> None:
        facts = f": {needed} bytes needed, {free} free" if needed is not None and free is not None else ""
        super().__init__(
            f"{path}: no space left on the disk{facts}",
            "free some space (`datahub gc`) or set DATAHUB_HOME, then run it again",
        )
        self.path, self.needed, self.free = path, needed, free


class NotWritable(DiskError):
    def __init__(self, path: str, reason: str = "permission denied") -> None:
        super().__init__(f"cannot write {path}: {reason}", "check the permissions, or set DATAHUB_HOME")
        self.path, self.reason = path, reason


class NotReadable(DiskError):
    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"cannot read {path}: {reason}", "check the path and its permissions")
        self.path, self.reason = path, reason


# -- 6: a person must act -------------------------------------------------------------------------------------------


class ActionNeeded(DatahubError):
    exit_code = 6


class ManualFiles(ActionNeeded):
    def __init__(self, name: str, files: Sequence[str], instructions: str) -> None:
        super().__init__(
            f"{name} cannot be downloaded by a program: {instructions}",
            f"put {', '.join(files)} in a folder and run `datahub fetch {name} --from DIR`",
        )
        self.name, self.files, self.instructions = name, tuple(files), instructions


class ConsentNeeded(ActionNeeded):
    def __init__(self, name: str, what: str, flag: str) -> None:
        super().__init__(f"{name}: {what}", f"say {flag} to go on")
        self.name, self.what, self.flag = name, what, flag


class AlreadyPacked(ActionNeeded):
    def __init__(self, ref: str, path: str) -> None:
        super().__init__(
            f"{ref} is already packed at {path}, from other input", "use --replace to put the new one in its place"
        )
        self.ref, self.path = ref, path


class MissingTool(ActionNeeded):
    """A program that datahub runs is not installed; ``package`` is the Debian package it comes in."""

    def __init__(self, tool: str, package: str) -> None:
        super().__init__(f"{tool} is not on the PATH", f"install the Debian package {package}")
        self.tool, self.package = tool, package


class MissingExtra(ActionNeeded):
    """A package that datahub only needs for one feature is not installed; ``extra`` is the extra that brings it."""

    def __init__(self, extra: str, feature: str) -> None:
        super().__init__(f"{feature} needs a package that is not installed", f"run `pip install 'datahub[{extra}]'`")
        self.extra, self.feature = extra, feature


class MissingLibrary(ActionNeeded):
    """A package is installed, and what it loads from the system is not there; ``package`` is what Debian calls it."""

    def __init__(self, feature: str, package: str, cause: str) -> None:
        super().__init__(
            f"{feature} cannot begin: {cause}",
            f"install the Debian package {package}; if it is there, the versions of the packages do not fit each other",
        )
        self.feature, self.package, self.cause = feature, package, cause


class DeviceOutOfMemory(ActionNeeded):
    def __init__(self, device: str, cause: str) -> None:
        super().__init__(
            f"{device} has no memory left for the next batches: {cause}",
            'lower batch_size or prefetch, or use residency="host" where the pixels are held on the device',
        )
        self.device, self.cause = device, cause


class TokenRefused(ActionNeeded):
    """A cache server wants a token, or another one than it was shown; ``shown`` says which."""

    def __init__(self, server: str, *, shown: bool = False, reason: str = "") -> None:
        said = f" ({reason})" if reason else ""
        what = "refuses the token it was shown" if shown else "wants a token"
        super().__init__(f"{server} {what}{said}", "set DATAHUB_TOKEN or DATAHUB_TOKEN_FILE to one that it takes")
        self.server, self.shown, self.reason = server, shown, reason


class LeaseRefused(ActionNeeded):
    """A cache server does not do what was asked about keeping a dataset, and says what would be possible."""

    def __init__(self, ref: str, reason: str, next_step: str) -> None:
        super().__init__(reason, next_step)
        self.ref = ref


# -- 7: not here ----------------------------------------------------------------------------------------------------


class NotInStore(DatahubError):
    exit_code = 7

    def __init__(self, ref: str, home: str, nearest: Sequence[str] = ()) -> None:
        """``nearest``: known names close to one that is neither packed nor known."""
        fetch = f"run `datahub fetch {ref}`, or pass download=True"
        hint = f"did you mean {' or '.join(nearest)}?" if nearest else fetch
        super().__init__(f"{ref} is not in the store at {home}", hint)
        self.ref, self.home, self.nearest = ref, home, tuple(nearest)


class NotServed(DatahubError):
    """A cache server does not know a dataset."""

    exit_code = 7

    def __init__(self, server: str, ref: str, reason: str) -> None:
        super().__init__(f"{server}: {reason}", "see `datahub cache status`, or give the whole NAME@VERSION/VARIANT")
        self.server, self.ref = server, ref


class Offline(DatahubError):
    exit_code = 7

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} would need the network, and offline mode is on",
            "leave --offline (DATAHUB_OFFLINE) out, or give --from DIR",
        )
        self.what = what


CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT)


class WorkerDied(DatahubError):
    """A worker that is gone or does not answer. Another try may help, unless it crashed: that is a bug of some code."""

    exit_code = 4
    retryable = True
    pid: int | None = None
    signal: int | None = None
    """What ended the process, where a signal did."""

    def __init__(self, stage: str, cause: str) -> None:
        super().__init__(f"a worker died while {stage}: {cause}", "run the command again; finished work is kept")
        self.stage, self.cause = stage, cause

    @classmethod
    def ended(cls, stage: str, pid: int, code: int) -> WorkerDied:
        """Of a process that ended with ``code``: its exit status, or a signal's number below zero."""
        if code >= 0:
            made = cls(stage, f"process {pid} ended with status {code}")
        else:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            made = cls(stage, f"process {pid} was ended by {name}")
            made.signal = -code
        made.pid = pid
        if made.signal == signal.SIGKILL:
            made.next_step = "if memory ran out, use fewer workers or smaller batches; then run it again"
        if made.signal in CRASHES:
            made.exit_code, made.retryable = 1, False
            made.next_step = "a decoder or transform crashed: the traceback above says where"
        return made


def from_oserror(error: OSError, path: object) -> DatahubError:
    """The `DiskError` that an ``OSError`` met at ``path`` stands for."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(str(path))
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NotWritable(str(path), error.strerror or "permission denied")
    return NotReadable(str(path), error.strerror or str(error))
