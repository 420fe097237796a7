"""Checks of this machine, each a small function giving a `Finding`: what `datahub doctor` prints."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from datahub.core import private
from datahub.core.atomic import make_dir
from datahub.core.errors import DatahubError
from datahub.core.locks import FileLock
from datahub.core.settings import Settings
from datahub.core.sizes import format_bytes
from datahub.wire.tokens import FILE, TOKEN, token_of

ROOMY = 10 * 10**9
"""Free bytes under which the disk is worth a warning."""


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    level: Literal["ok", "warning", "failure"]
    found: str
    next: str = ""


def examine(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Run every check; a check that itself fails is a finding, not an exception."""
    checks: tuple[Callable[[], Finding], ...] = (
        lambda: _name_clash(environ),
        lambda: _home(settings),
        lambda: _disk(settings),
        lambda: _locks(settings),
        lambda: _clock(settings),
        lambda: _token(environ),
        _jpegtran,
        _processors,
        _accelerator,
    )
    for check in checks:
        try:
            yield check()
        except (DatahubError, OSError) as error:
            yield Finding("check", "failure", str(error))


def _name_clash(environ: Mapping[str, str]) -> Finding:
    """The package `acryl-datahub` installs a module and a command of our name."""
    installed = {d.metadata["Name"].lower() for d in metadata.distributions() if d.metadata["Name"]}
    if "acryl-datahub" in installed:
        what = "acryl-datahub is installed here and owns the same package and command"
        return Finding("name clash", "failure", what, "use a virtual environment of its own for each")
    folders = [Path(each) for each in environ.get("PATH", "").split(os.pathsep) if each]
    commands = list(dict.fromkeys(str(p.resolve()) for f in folders if os.access(p := f / "datahub", os.X_OK)))
    if len(commands) > 1:
        return Finding(
            "name clash", "warning", f"several datahub commands on PATH: {', '.join(commands)}", "the first one runs"
        )
    return Finding(
        "name clash", "ok", commands[0] if commands else "no datahub command on PATH (python -m datahub works)"
    )


def _home(settings: Settings) -> Finding:
    make_dir(settings.home)
    probe = settings.home / f".probe.{os.getpid()}"
    probe.write_bytes(b"")
    probe.unlink()
    return Finding("home", "ok", f"{settings.home} is writable ({settings.origins.get('home', 'default')})")


def _disk(settings: Settings) -> Finding:
    usage = shutil.disk_usage(settings.home)
    text = f"{format_bytes(usage.free)} free of {format_bytes(usage.total)}"
    if usage.free < ROOMY:
        return Finding("disk", "warning", text, "`datahub gc` removes leftovers; DATAHUB_HOME moves the store")
    return Finding("disk", "ok", text)


def _locks(settings: Settings) -> Finding:
    path = settings.locks / f"doctor.{os.getpid()}"
    began = time.monotonic()
    with FileLock(path, timeout=5):
        if FileLock(path).try_acquire():
            return Finding(
                "locks",
                "failure",
                f"two holders of one lock in {settings.locks}",
                "put DATAHUB_HOME on another file system",
            )
    return Finding("locks", "ok", f"exclusive files work here ({(time.monotonic() - began) * 1e3:.0f} ms)")


def _clock(settings: Settings) -> Finding:
    probe = settings.home / f".clock.{os.getpid()}"
    probe.write_bytes(b"")
    skew = probe.stat().st_mtime - time.time()
    probe.unlink()
    if abs(skew) > 60:
        return Finding(
            "clock", "warning", f"the file server's clock is {skew:+.0f} s off this machine's", "locks allow for it"
        )
    return Finding("clock", "ok", f"file server and machine agree within {abs(skew):.1f} s")


def _token(environ: Mapping[str, str]) -> Finding:
    """Whether the token for cache servers is one, and for its owner only."""
    if token_of(environ) is None:
        return Finding("token", "ok", f"none for cache servers ({TOKEN}, {FILE})")
    if TOKEN in environ or not (why := private.exposed(Path(environ[FILE]))):
        return Finding("token", "ok", f"from {TOKEN if environ.get(TOKEN) else FILE}")
    return Finding("token", "warning", f"{environ[FILE]}: {why}", f"run `chmod 600 {environ[FILE]}`")


def _jpegtran() -> Finding:
    path = shutil.which("jpegtran")
    if path:
        return Finding("jpegtran", "ok", path)
    return Finding(
        "jpegtran", "warning", "not on PATH", "only lossless JPEG work needs it: install libjpeg-turbo-progs"
    )


def _processors() -> Finding:
    from datahub.loader.workers import available_cpus

    return Finding("processors", "ok", f"{available_cpus()} for this process, of {os.cpu_count()}")


def _accelerator() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("GPU", "ok", f"none that torch {torch.__version__} can use; everything runs on the CPU")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("GPU", "ok", f"{', '.join(names)} (torch {torch.__version__})")
