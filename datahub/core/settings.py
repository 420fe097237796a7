"""Settings: every value and where it came from (flag > environment > config.toml > default).

Only the command line and the `datahub` facade call `resolve`; everything below them takes a `Settings`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from datahub.core.errors import BadArgument
from datahub.core.sizes import parse_bytes

ENVIRONMENT = {
    "home": "DATAHUB_HOME",
    "stores": "DATAHUB_STORES",
    "from_": "DATAHUB_FROM",
    "source": "DATAHUB_SOURCE",
    "cache_dir": "DATAHUB_CACHE_DIR",
    "cache_limit": "DATAHUB_CACHE_LIMIT",
    "manifests": "DATAHUB_MANIFESTS",
    "offline": "DATAHUB_OFFLINE",
    "announce": "DATAHUB_ANNOUNCE",
}
"""Setting name -> environment variable. Tokens are read where they are used and never kept in settings."""


class Origin(NamedTuple):
    """Where a value came from: ``flag``, ``environment``, ``config.toml`` or ``default``, and its name there."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip()


@dataclass(frozen=True, slots=True)
class Settings:
    home: Path
    stores: tuple[Path, ...] = ()
    """Read-only stores, searched before ``home``."""
    from_: str | None = None
    """Where published files come from in place of the mirrors: a folder or URL holding NAME/FILENAME."""
    source: str | None = None
    cache_dir: Path | None = None
    cache_limit: int | None = None
    manifests: tuple[Path, ...] = ()
    """The user's manifest files and folders, which win over the shipped ones."""
    offline: bool = False
    announce: bool = True
    """Whether loaders tell the cache servers that they read from what they read, and how far they are."""
    origins: Mapping[str, Origin] = field(default_factory=dict, compare=False)

    @property
    def downloads(self) -> Path:
        return self.home / "downloads"

    @property
    def receipts(self) -> Path:
        return self.home / "receipts"

    @property
    def datasets(self) -> Path:
        return self.home / "datasets"

    @property
    def locks(self) -> Path:
        return self.home / ".locks"

    @property
    def trash(self) -> Path:
        return self.home / ".trash"


def default_home() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("datahub", appauthor=False))


def config_path() -> Path:
    import platformdirs

    return Path(platformdirs.user_config_dir("datahub", appauthor=False)) / "config.toml"


def resolve(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> Settings:
    """Merge the four layers. ``flags`` maps setting names to values (None: not given). Raises `BadArgument`."""
    flags = {k: v for k, v in (flags or {}).items() if v is not None and v is not False and v != ()}
    environ = os.environ if environ is None else environ
    path = config if config is not None else config_path()
    table = _load(path)
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for name, variable in ENVIRONMENT.items():
        written = name.rstrip("_")
        if name in flags:
            raw, origin = flags[name], Origin("flag", f"--{written.replace('_', '-')}")
        elif environ.get(variable):
            raw, origin = environ[variable], Origin("environment", variable)
        elif written in table:
            raw, origin = table[written], Origin("config.toml", str(path))
        else:
            origins[name] = Origin("default")
            continue
        values[name] = _convert(name, raw, origin)
        origins[name] = origin
    values.setdefault("home", default_home())
    return Settings(**values, origins=origins)


def _load(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return {}
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadArgument("config.toml", str(path), f"is not TOML: {error}", "mend or remove it") from error
    known = {name.rstrip("_") for name in ENVIRONMENT}
    for key in table:
        if key not in known:
            raise BadArgument("config.toml", key, f"is not a setting ({path})", f"known: {', '.join(sorted(known))}")
    return table


def _convert(name: str, raw: Any, origin: Origin) -> Any:
    if name in ("home", "cache_dir"):
        return Path(str(raw)).expanduser().absolute()
    if name in ("stores", "manifests"):
        parts = str(raw).split(os.pathsep) if isinstance(raw, str) else [str(part) for part in raw]
        return tuple(Path(part).expanduser().absolute() for part in parts if part)
    if name in ("offline", "announce"):
        return _boolean(raw, origin)
    if name == "cache_limit":
        try:
            return raw if isinstance(raw, int) else parse_bytes(str(raw))
        except ValueError as error:
            raise BadArgument(str(origin), raw, str(error)) from error
    return str(raw)


def _boolean(raw: Any, origin: Origin) -> bool:
    if isinstance(raw, bool):
        return raw
    word = str(raw).strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise BadArgument(str(origin), raw, "is neither true nor false", "write 1 or 0")
