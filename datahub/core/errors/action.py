"""Exit code 6: a person must act."""

from __future__ import annotations

from collections.abc import Sequence

from datahub.core.errors.base import DatahubError


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
            f"{ref} is already packed at {path}, from other input or by other rules",
            "use --replace to put the new one in its place",
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
    """``what``: what there is no memory for."""

    NEXT = 'lower batch_size or prefetch, or use residency="host" where the pixels are held on the device'

    def __init__(self, device: str, cause: str, what: str = "the next batches", next_step: str = NEXT) -> None:
        super().__init__(f"{device} has no memory left for {what}: {cause}", next_step)
        self.device, self.cause, self.what = device, cause, what


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
