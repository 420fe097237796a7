"""Model weights: files whose name ends in the first digits of their SHA-256, as torchvision publishes them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

from datahub.acquire.files import Verified
from datahub.acquire.planning import Item, Plan, local_folder
from datahub.acquire.policy import RetryPolicy
from datahub.acquire.running import run
from datahub.core import atomic
from datahub.core.digests import Digest, of_file
from datahub.core.errors import BadArgument, DigestMismatch, from_oserror
from datahub.core.events import Listener, ignore
from datahub.core.settings import Settings
from datahub.registry.schema import File

FOLDER = "weights"
"""Below the downloads and below a site mirror: ``weights/resnet18-f37072fd.pth``."""
NAME = re.compile(r"[A-Za-z0-9_.+-]*-([0-9a-f]{8,64})\.(?:pth|pt|safetensors)")


class WeightsFile(File, frozen=True, kw_only=True):
    """A file known by the beginning of its digest."""

    def digests(self) -> tuple[Digest, ...]:
        match = NAME.fullmatch(self.filename)
        assert match is not None  # `fetch_weights` makes no other
        return (Digest("sha256", match[1]),)


def fetch_weights(
    url: str, settings: Settings, *, listener: Listener = ignore, policy: RetryPolicy | None = None
) -> Verified:
    """The file at ``url``, downloaded unless it is here, and right by the digest in its name.

    With ``--from`` (a folder or URL) it comes from ``weights/FILENAME`` there, and offline from what is here. Raises
    `BadArgument` for a name without a digest, `DigestMismatch`, `Offline`, `OriginError`s and `DiskError`s.
    """
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    if not NAME.fullmatch(name):
        hint = "save it under a name that ends in the first 8 or more hex digits of its SHA-256, like net-f37072fd.pth"
        raise BadArgument("weights", url, "its name carries no digest to verify it by", hint)
    file = WeightsFile(filename=name, role="weights", mirrors=[url])
    folder = atomic.make_dir(settings.downloads / FOLDER)
    item = _item(file, folder / name, settings)
    return run(
        Plan(FOLDER, "", (item,), shutil.disk_usage(folder).free, folder), settings, listener=listener, policy=policy
    )[0]


def check_name(path: Path) -> None:
    """Raise `DigestMismatch` where a file's name ends in the first digits of another digest, and `NotReadable`.

    Digits that are all decimal may be a date and say nothing, as does any other name.
    """
    match = NAME.fullmatch(path.name)
    if match is None or match[1].isdecimal():
        return
    try:
        (found,) = of_file(path).digests()
    except OSError as error:
        raise from_oserror(error, path) from error
    wanted = Digest("sha256", match[1])
    if not wanted.fits(found):
        hint = "fetch it again, or give a file of your own another name"
        raise DigestMismatch(str(path), str(wanted), str(found), hint)


def _item(file: File, target: Path, settings: Settings) -> Item:
    if target.is_file():
        return Item(file, "present", target, target.stat().st_size, _sources(file, settings), False)
    site = local_folder(settings.from_)
    if site is not None:
        looked = (site / FOLDER / file.filename, site / file.filename)
        for path in looked:
            if path.is_file():
                return Item(file, "present", path.absolute(), path.stat().st_size, (), True)
        return Item(file, "missing", target, 0, (), False, tuple(map(str, looked)))
    return Item(file, "missing", target, 0, _sources(file, settings), False)


def _sources(file: File, settings: Settings) -> tuple[str, ...]:
    if settings.from_ and local_folder(settings.from_) is None:
        return (f"{settings.from_.rstrip('/')}/{FOLDER}/{file.filename}",)
    return tuple(file.mirrors)
