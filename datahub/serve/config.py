"""What a server is told: flags, else environment (``DATAHUB_SERVE_PORT``), else a TOML file, else the defaults."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from datahub.core import private
from datahub.core.errors import BadArgument
from datahub.core.events import Note
from datahub.core.settings import Settings
from datahub.core.sizes import parse_bytes
from datahub.wire.tokens import read_tokens

PREFIX = "DATAHUB_SERVE_"
POLICIES = ("epoch", "lru")
BACKLOG = 1024
"""Connections that wait to be taken in."""
STALL = 60.0
"""Seconds in which a client must take something of what it is sent, or its connection is ended."""
SHORTEST = 16
"""Characters of a token at least: short ones can be guessed."""


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """``quota``: bytes of the cache, never exceeded; above ``soft_quota`` it evicts in the background. ``policy``: what
    goes first, "epoch" or "lru". ``scrub_rate``: bytes a second that are verified again, 0 for none.

    ``rate``: requests a second that one client may make, 0 for any number; ``drain``: seconds to end requests in."""

    host: str = "127.0.0.1"
    port: int = 8080
    origin: tuple[str, ...] = ()
    cache_dir: Path | None = None
    quota: int | None = None
    soft_quota: int | None = None
    policy: str = "epoch"
    scrub_rate: int = 10_000_000
    token_file: Path | None = None
    admin_token_file: Path | None = None
    workers: int = 1
    cert: Path | None = None
    key: Path | None = None
    insecure: bool = False
    access_log: str = "-"
    rate: float = 0.0
    connections: int = 4096
    drain: float = 30.0
    origin_timeout: float = 60.0
    allow_fetch: bool = False

    @property
    def scheme(self) -> str:
        return "https" if self.cert else "http"


@dataclass(frozen=True, slots=True)
class Tokens:
    """What opens what; empty: no token is asked for. ``trusting``: without tokens, whoever reaches it administers."""

    read: tuple[str, ...] = ()
    admin: tuple[str, ...] = ()
    trusting: bool = True


def resolve(flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None) -> ServeConfig:
    """Raises `BadArgument`, naming the flag, variable or file."""
    table = {} if file is None else _load(file)
    values = {}
    for each in fields(ServeConfig):
        name, flag = each.name, f"--{each.name.replace('_', '-')}"
        variable = PREFIX + name.upper()
        given = flags.get(name)
        if given is not None and given is not False and given != ():
            values[name] = _convert(name, given, flag)
        elif environ.get(variable):
            values[name] = _convert(name, environ[variable], variable)
        elif name in table:
            values[name] = _convert(name, table[name], f"{name} in {file}")
    config = ServeConfig(**values)
    _check(config)
    return config


def tokens_of(config: ServeConfig) -> Tokens:
    """Raises `BadArgument` for a file that cannot be read, holds none, or holds short ones."""
    read = _tokens(config.token_file, "--token-file")
    admin = _tokens(config.admin_token_file, "--admin-token-file")
    return Tokens(read, admin, trusting=loopback(config.host))


def exposures(config: ServeConfig) -> list[Note]:
    """A warning of each secret that others can read."""
    secrets = ("token_file", "admin_token_file", "key")
    found = [(path, private.exposed(path)) for name in secrets if (path := getattr(config, name)) is not None]
    return [Note("serve", f"{path}: {why}{private.advice(path)}", warning=True) for path, why in found if why]


def cache_folder(config: ServeConfig, settings: Settings) -> Path:
    return config.cache_dir or settings.cache_dir or settings.home / "cache"


def _check(config: ServeConfig) -> None:
    if bool(config.cert) != bool(config.key):
        given, missing = ("--cert", "--key") if config.cert else ("--key", "--cert")
        raise BadArgument(given, str(config.cert or config.key), f"TLS needs {missing} too")
    if not (config.token_file or config.insecure or loopback(config.host)):
        hint = "give --token-file FILE, or --insecure for a network where everybody may read"
        raise BadArgument("--host", config.host, "serves others than this machine without a token", hint)
    for name, low, high in (("port", 0, 65535), ("workers", 1, 256), ("connections", 1, 1_000_000)):
        value = getattr(config, name)
        if not low <= value <= high:
            raise BadArgument(f"--{name}", value, f"is not between {low} and {high}")
    for name in ("rate", "drain", "origin_timeout"):
        if not 0 <= getattr(config, name) < 1e9 or (name == "origin_timeout" and not config.origin_timeout):
            raise BadArgument(f"--{name.replace('_', '-')}", getattr(config, name), "must be a positive number")
    _check_cache(config)


def _check_cache(config: ServeConfig) -> None:
    if config.cache_dir is not None and config.cache_dir.exists() and not config.cache_dir.is_dir():
        raise BadArgument("--cache-dir", str(config.cache_dir), "is no folder")
    if config.quota is not None and config.quota < 1:
        raise BadArgument("--quota", config.quota, "must be a positive number of bytes")
    if config.soft_quota is not None and not 0 < config.soft_quota <= (config.quota or config.soft_quota):
        raise BadArgument("--soft-quota", config.soft_quota, "must be positive, and no more than --quota")
    if config.policy not in POLICIES:
        raise BadArgument("--policy", config.policy, f"is not one of {', '.join(POLICIES)}")
    if config.scrub_rate < 0:
        raise BadArgument("--scrub-rate", config.scrub_rate, "must be a number of bytes a second, 0 for none")


def loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _tokens(path: Path | None, name: str) -> tuple[str, ...]:
    if path is None:
        return ()
    found = tuple(read_tokens(path, name))
    if not found:
        raise BadArgument(name, str(path), "holds no token", "write one a line: `openssl rand -hex 32`")
    if min(map(len, found)) < SHORTEST:
        hint = "make them with `openssl rand -hex 32`"
        raise BadArgument(name, str(path), f"holds a token of fewer than {SHORTEST} characters", hint)
    return found


def _load(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not text"
        raise BadArgument("--config", str(path), f"cannot be read: {reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise BadArgument("--config", str(path), f"is not TOML: {error}") from error
    known = {each.name for each in fields(ServeConfig)}
    for key in table:
        if key not in known:
            raise BadArgument("--config", key, f"is not a setting ({path})", f"known: {', '.join(sorted(known))}")
    return table


def _convert(name: str, raw: Any, where: str) -> Any:
    try:
        return _CONVERT[name](raw)
    except ValueError as error:
        raise BadArgument(where, raw, str(error)) from error


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise ValueError("is no text")
    return raw


def _path(raw: Any) -> Path:
    return Path(raw if isinstance(raw, Path) else _text(raw)).expanduser().absolute()


def _origins(raw: Any) -> tuple[str, ...]:
    """A list, or text with blanks between the URLs."""
    if isinstance(raw, str):
        return tuple(raw.split())
    if not isinstance(raw, list | tuple) or not all(isinstance(each, str) for each in raw):
        raise ValueError("is no list of URLs")
    return tuple(raw)


def _whole(raw: Any) -> int:
    try:
        if not isinstance(raw, bool | float):
            return int(raw)
    except (ValueError, TypeError):
        pass
    raise ValueError("is no whole number")


def _number(raw: Any) -> float:
    try:
        if not isinstance(raw, bool):
            return float(raw)
    except (ValueError, TypeError):
        pass
    raise ValueError("is no number")


def _bytes(raw: Any) -> int:
    return raw if isinstance(raw, int) and not isinstance(raw, bool) else parse_bytes(str(raw))


def _truth(raw: Any) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    try:
        return raw if isinstance(raw, bool) else words[str(raw).strip().lower()]
    except KeyError:
        raise ValueError("is neither true nor false") from None


_CONVERT: dict[str, Callable[[Any], Any]] = {
    "host": _text,
    "policy": _text,
    "access_log": _text,
    "port": _whole,
    "workers": _whole,
    "connections": _whole,
    "origin": _origins,
    "quota": _bytes,
    "soft_quota": _bytes,
    "scrub_rate": _bytes,
    "insecure": _truth,
    "allow_fetch": _truth,
    "rate": _number,
    "drain": _number,
    "origin_timeout": _number,
    "cache_dir": _path,
    "token_file": _path,
    "admin_token_file": _path,
    "cert": _path,
    "key": _path,
}
