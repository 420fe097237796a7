"""Exit code 3: bytes are not what they should be."""

from __future__ import annotations

from collections.abc import Iterable

from datahub.core.errors.base import DatahubError, Problem


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
