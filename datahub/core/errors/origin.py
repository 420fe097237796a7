"""Exit code 4: the network, and whoever was asked over it."""

from __future__ import annotations

from collections.abc import Sequence

from datahub.core.errors.base import DatahubError
from datahub.core.errors.verification import VerificationError


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
